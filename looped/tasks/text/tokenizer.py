"""Conversion of text to token ids and back: UTF-8 bytes, or any byte-pair encoding of the `tokenizers` library."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from looped.tasks.base import Tokenizer

END_TOKEN = "<|endoftext|>"
GPT2_FILES = "encoder.json", "vocab.bpe"
GPT2_ADDRESS = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"

# Without this setting the library warns about every worker process that is forked after it encoded text in parallel.
# The workers encode no text.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


class ByteTokenizer:
    """The 256 bytes of UTF-8 and an end of text.

    >>> ByteTokenizer().encode(["Aé"])
    [[65, 195, 169]]
    """

    vocab_size = 257
    end = 256

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids. Bytes that are not UTF-8 become U+FFFD."""
        end = END_TOKEN.encode()
        return b"".join(end if i == self.end else bytes([i]) for i in ids).decode(errors="replace")


class BPETokenizer:
    """A tokenizer of the `tokenizers` library, from its JSON text.

    Raises:
        ValueError: the text is not a tokenizer, or it has no `end_token`; names `source`.
    """

    def __init__(self, text: str, end_token: str, source: str) -> None:
        import tokenizers  # takes a moment, which the list of tasks should not spend

        try:
            self._inner = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library has no more specific exception
            raise ValueError(f"{source}: not a tokenizer of the tokenizers library ({error})") from None
        end = self._inner.token_to_id(end_token)
        if end is None:
            raise ValueError(f"{source}: no token {end_token!r}; expected the task.end_token of this vocabulary")
        self._inner.encode_special_tokens = True  # the name of a special token in a text is ordinary text
        self.end = end
        self.vocab_size = 1 + max(self._inner.get_vocab().values())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._inner.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._inner.decode(ids, skip_special_tokens=False)


def as_tokenizer(given: Any, end_token: str) -> Tokenizer:
    """Convert a tokenizer object to a `looped.tasks.base.Tokenizer`.

    Args:
        given: a fast tokenizer of transformers, whose `eos_token` is the end of text; a `tokenizers.Tokenizer`, whose
            end of text is `end_token`; or an object with the methods and attributes of `looped.tasks.base.Tokenizer`.

    Raises:
        ValueError: any other object, or a tokenizer without an end of text.
    """
    if (inner := getattr(given, "backend_tokenizer", None)) is not None:
        if given.eos_token is None:
            raise ValueError("tokenizer: has no eos_token; expected one, the end of text")
        return BPETokenizer(inner.to_str(), given.eos_token, "tokenizer")
    if hasattr(given, "to_str"):
        return BPETokenizer(given.to_str(), end_token, "tokenizer")
    if missing := [name for name in ("encode", "decode", "vocab_size", "end") if not hasattr(given, name)]:
        raise ValueError(
            f"tokenizer: a {type(given).__name__} without {', '.join(missing)}; expected a fast tokenizer of "
            "transformers, a tokenizers.Tokenizer, or what looped.tasks.base.Tokenizer describes"
        )
    return given


def trained_bpe(texts: Iterable[str], size: int) -> str:
    """A byte-level BPE of at most `size` tokens for these texts, as JSON. Equal texts give equal JSON."""
    import tokenizers

    bpe = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator(texts, size, special_tokens=[END_TOKEN], show_progress=False)
    return bpe.to_str()


def tokenizer_files(name: str) -> list[Path]:
    """The files of a tokenizer: a tokenizers JSON, or a folder with one or with GPT-2's two files.

    Raises:
        ValueError: they do not exist.
    """
    path = Path(name).expanduser()
    files = [path]
    if path.is_dir():
        saved = path / "tokenizer.json"  # written by `save_pretrained`
        files = [saved] if saved.is_file() else [path / file for file in GPT2_FILES]
    if missing := [file for file in files if not file.is_file()]:
        raise ValueError(
            f"task.tokenizer={name!r}: no file {missing[0]}; expected bytes, bpe, a tokenizers JSON, a folder with "
            f"tokenizer.json, or one with {' and '.join(GPT2_FILES)} (GPT-2's are at {GPT2_ADDRESS})"
        )
    return files


def read_bpe(files: Sequence[Path]) -> str:
    """The tokenizer in `tokenizer_files` as JSON.

    Raises:
        ValueError: the files hold no tokenizer.
    """
    import tokenizers
    from tokenizers.models import BPE

    try:
        if len(files) == 1:
            return tokenizers.Tokenizer.from_file(str(files[0])).to_str()
        vocabulary, merges = BPE.read_file(*map(str, files))
        return tokenizers.ByteLevelBPETokenizer(vocabulary, merges, add_prefix_space=False).to_str()
    except Exception as error:  # the library has no more specific exception
        raise ValueError(f"{files[0]}: not a tokenizer ({error})") from None
