"""Conversion of text to token ids and back: UTF-8 bytes, or any tokenizer of the `tokenizers` library."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from looped.files import write_atomic
from looped.reading import read_text
from looped.tasks.continuation import Tokenizer
from looped.tasks.text.words import Words

END_TOKEN = "<|endoftext|>"
GPT2_FILES = "encoder.json", "vocab.bpe"
GPT2_ADDRESS = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
LARGEST_ID = 1 << 24  # ten times the largest vocabulary in use; a model has a row of weights for each id
SECONDS = 60  # for a process that reads a tokenizer; its processor time has a limit of its own, see LOADER

SAMPLE = 128 << 20  # bytes of text from which a BPE is trained, at most
# Without this setting the library warns about every worker process that is forked after it encoded text in parallel.
# The workers encode no text.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def id_type(tokenizer: Tokenizer) -> type[np.unsignedinteger]:
    """The smaller of two types that holds all ids."""
    return np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32


class ByteTokenizer:
    """The 256 bytes of UTF-8 and an end of text.

    >>> ByteTokenizer().encode(["Aé"])
    [[65, 195, 169]]
    """

    vocab_size = 257
    end = 256
    end_token = END_TOKEN
    lossless = True

    @property
    def json(self) -> str:
        """The same tokens as a tokenizer of the `tokenizers` library: a byte-level BPE without merges."""
        import tokenizers

        # The library writes a byte as a character that can be seen: its own, or one beyond the 256 bytes.
        seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in seen]
        characters = dict(zip([*seen, *others], [*seen, *range(256, 256 + len(others))], strict=True))
        made = tokenizers.Tokenizer(tokenizers.models.BPE({chr(characters[byte]): byte for byte in range(256)}, []))
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = tokenizers.decoders.ByteLevel()
        made.add_special_tokens([END_TOKEN])
        return made.to_str()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    def packed(self, texts: Sequence[str]) -> list[bytes]:
        """The ids of each text, as the bytes of an array of `id_type`."""
        return [np.frombuffer(text.encode(), np.uint8).astype(id_type(self)).tobytes() for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids. Bytes that are not UTF-8 become U+FFFD."""
        end = END_TOKEN.encode()
        return b"".join(end if i == self.end else bytes([i]) for i in ids).decode(errors="replace")


class BPETokenizer:
    """A tokenizer of the `tokenizers` library, from its JSON text: byte-pair encoding or another model.

    Settings that are for the inputs of models and lose text (truncation, padding, dropout) are switched off.

    Raises:
        ValueError: the text is not a tokenizer, or it has no `end_token`; names `source`.
    """

    def __init__(self, text: str, end_token: str, source: str) -> None:
        import tokenizers  # takes a moment, which the list of tasks should not spend

        self.json, self.end_token, self.source = text, end_token, source
        with _library_errors(f"{source}: not a tokenizer of the tokenizers library"):
            settings = json.loads(text)
            settings["model"].pop("dropout", None)
            for token in settings["added_tokens"]:
                token["special"] |= token["content"] == end_token
            self._inner = tokenizers.Tokenizer.from_str(json.dumps(settings))
            self.lossless = _is_lossless(settings)
            """Whether it is known that `decode` gives back every text. False: it depends on the text."""
            by_words = self.lossless and _has_words(settings)
        end = self._inner.token_to_id(end_token)
        if end is None:
            raise ValueError(f"{source}: no token {end_token!r}; expected the task.end_token of this vocabulary")
        self._inner.no_truncation()
        self._inner.no_padding()
        self._inner.encode_special_tokens = True  # the name of a special token in a text is ordinary text
        self.end = end
        self.vocab_size = 1 + max(self._inner.get_vocab().values())
        if self.vocab_size > LARGEST_ID:
            raise ValueError(f"{source}: token id {self.vocab_size - 1}; expected at most {LARGEST_ID}")
        self._words = None
        if by_words:
            lengths = np.zeros(self.vocab_size, np.int64)
            for token, number in self._inner.get_vocab().items():
                lengths[number] = len(token)  # the library writes each byte as a character
            self._words = Words(self.encode, lengths, id_type(self))

    def __reduce__(self) -> tuple[type["BPETokenizer"], tuple[str, str, str]]:
        return BPETokenizer, (self.json, self.end_token, self.source)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text.

        Raises:
            ValueError: the tokenizer has no token for a part of a text, or makes it an end of text.
        """
        with _library_errors(f"{self.source}: cannot encode this text"):
            found = [encoding.ids for encoding in self._inner.encode_batch_fast(texts, add_special_tokens=False)]
        if any(self.end in ids for ids in found):
            raise ValueError(
                f"{self.source}: encodes a part of the text as its end of text {self.end_token!r}; expected a "
                "tokenizer that never does, or another task.end_token"
            )
        return found

    def packed(self, texts: Sequence[str]) -> list[bytes]:
        """The ids of each text, as the bytes of an array of `id_type`.

        Raises:
            ValueError: as `encode`.
        """
        if self._words:
            return self._words.packed(texts)
        return [np.array(ids, id_type(self)).tobytes() for ids in self.encode(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._inner.decode(ids, skip_special_tokens=False)

    @property
    def start(self) -> list[int]:
        """The tokens that a pretrained tokenizer puts before each text, such as Llama's; [] for most and for ours."""
        encoding = self._inner.encode("a")
        return encoding.ids[: [*encoding.special_tokens_mask, 0].index(0)]


def _is_lossless(settings: dict[str, Any]) -> bool:
    """Whether the settings are those of a byte-level BPE that knows all bytes and changes no text."""
    import tokenizers

    model, before = settings["model"], settings["pre_tokenizer"] or {}
    return (
        model.get("type") == "BPE"
        and not (model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))
        and set(tokenizers.pre_tokenizers.ByteLevel.alphabet()) <= model["vocab"].keys()
        and settings["normalizer"] is None
        and before.get("type") == "ByteLevel"
        and not before["add_prefix_space"]
        and (settings["decoder"] or {}).get("type") == "ByteLevel"
        and all(token["special"] or not (token["lstrip"] or token["rstrip"]) for token in settings["added_tokens"])
    )


def _has_words(settings: dict[str, Any]) -> bool:
    """Whether a byte-level BPE cuts text into words by GPT-2's pattern, and has no other tokens that span words."""
    return settings["pre_tokenizer"].get("use_regex", True) and all(t["special"] for t in settings["added_tokens"])


@contextlib.contextmanager
def _library_errors(message: str) -> Iterator[None]:
    """Turn each error of the tokenizers library into a ValueError. Its panics derive from BaseException."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise ValueError(f"{message} ({error})") from None


def trained_bpe(texts: Iterable[str], size: int) -> str:
    """A byte-level BPE of at most `size` tokens for these texts, as JSON. Equal texts give equal JSON.

    It learns from at most SAMPLE bytes of them, because its memory grows with the number of different words.
    """
    import tokenizers

    bpe = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator(spread(texts, SAMPLE), size, special_tokens=[END_TOKEN], show_progress=False)
    return bpe.to_str()


def spread(texts: Iterable[str], most: int) -> Iterator[str]:
    """All texts, or every second, every fourth, and so on, if they have more than `most` bytes in UTF-8."""
    kept: list[bytes] = []
    size, step = 0, 1
    for number, text in enumerate(texts):
        if number % step == 0:
            kept.append(text.encode())
            size += len(kept[-1])
        while size > most and len(kept) > 1:
            kept, step = kept[::2], 2 * step
            size = sum(map(len, kept))
    return (text.decode() for text in kept)


# Files


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
    """The tokenizer in `tokenizer_files` as JSON. A file may also be that of a run, which `write_tokenizer` wrote.

    Raises:
        ValueError: the files hold no tokenizer.
    """
    texts = [read_text(file) for file in files]
    with contextlib.suppress(ValueError, RecursionError):  # damaged: the library says how
        if len(texts) == 1 and isinstance(data := json.loads(texts[0]), dict) and data.keys() == {"end", "tokenizer"}:
            texts = [json.dumps(data["tokenizer"])]
    return checked_json(texts, str(files[0]))


# The library may never return from a damaged file, or end the process. The limit on processor time is in seconds.
LOADER = """
import json, resource, sys, tokenizers
used = resource.getrusage(resource.RUSAGE_SELF)
limit = int(used.ru_utime + used.ru_stime) + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
try:
    texts = json.load(sys.stdin)
    if len(texts) == 1:
        tokenizer = tokenizers.Tokenizer.from_str(texts[0])
    else:
        merges = [tuple(line.split()) for line in texts[1].split("\\n") if line and not line.startswith("#version")]
        tokenizer = tokenizers.ByteLevelBPETokenizer(json.loads(texts[0]), merges, add_prefix_space=False)
    json.dump(tokenizer.to_str(), sys.stdout)
except Exception as error:
    sys.exit(str(error))
"""


def checked_json(texts: Sequence[str], source: str) -> str:
    """The JSON of a tokenizer that another process could read. Damage may hang the library or end its process.

    Args:
        texts: the content of one tokenizers JSON, or of the two files of GPT-2.

    Raises:
        ValueError: the texts are not a tokenizer, or take too long; names `source`.
    """
    seconds = 3 + sum(map(len, texts)) // 1_000_000
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", LOADER, str(seconds)],
            input=json.dumps(texts), capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ValueError(f"{source}: not a tokenizer (the tokenizers library does not finish to read it)") from None
    if done.returncode < 0:
        raise ValueError(f"{source}: not a tokenizer (the tokenizers library fails on it, signal {-done.returncode})")
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise ValueError(f"{source}: not a tokenizer of the tokenizers library ({reason})")
    return texts[0] if len(texts) == 1 else json.loads(done.stdout)


def write_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    """Write a tokenizer and its end of text.

    Raises:
        ValueError: it is an object of the user, which has no JSON form.
    """
    if not isinstance(tokenizer, BPETokenizer):
        raise ValueError(f"tokenizer: a {type(tokenizer).__name__} cannot be saved; expected one of tokenizers")
    end = {"id": tokenizer.end, "token": tokenizer.end_token}
    write_atomic(path, json.dumps({"end": end, "tokenizer": json.loads(tokenizer.json)}, ensure_ascii=False))


def read_tokenizer(path: Path) -> BPETokenizer:
    """The tokenizer that `write_tokenizer` wrote.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    try:
        data = json.loads(read_text(path))
        (end, token), inner = (data["end"][key] for key in ("id", "token")), data["tokenizer"]
        tokenizer = BPETokenizer(checked_json([json.dumps(inner)], str(path)), token, str(path))
    except (json.JSONDecodeError, RecursionError, KeyError, TypeError):
        raise ValueError(f"{path}: damaged; expected the tokenizer of a run") from None
    if tokenizer.end != end:
        raise ValueError(f"{path}: {token!r} has the id {tokenizer.end}; expected {end!r}")
    return tokenizer
