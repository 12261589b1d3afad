"""A corpus: text files or a data set, prepared once as memory-mapped token files.

The folder of a prepared corpus holds `train.npy`, `validation.npy` and `test.npy`: one axis of uint16 or uint32 ids,
with an end of text first and after every document. It also holds `tokenizer.json` (not for bytes) and
`manifest.json`: the settings, the sha256 of each source and of the tokenizer, and the counts of each split.

Text goes from the sources to the token files in pieces, and is never in memory as a whole. Only a long document whose
content decides its split is.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt

from looped.files import new_folder
from looped.reading import read_text
from looped.strict import check
from looped.tasks.base import SPLITS, Split
from looped.tasks.continuation import Tokenizer, as_tokenizer
from looped.tasks.text.config import TextConfig
from looped.tasks.text.encoding import COUNTS, encode, id_type, pieces
from looped.tasks.text.sources import (
    SplitPart,
    named,
    read_documents,
    resolved,
    sha256_of,
    source_hashes,
    split_by_content,
)
from looped.tasks.text.tokenizer import (
    BPETokenizer,
    ByteTokenizer,
    checked_json,
    read_bpe,
    tokenizer_files,
    trained_bpe,
)

MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"


class Corpus(NamedTuple):
    """The tokens of each split, their tokenizer, and counts."""

    folder: Path | None
    """The prepared folder; None if the corpus is only in memory."""
    tokenizer: Tokenizer
    tokens: dict[str, UInt[np.ndarray, " tokens"]]
    counts: dict[str, dict[str, int]]
    """Counts by split: tokens (without the first), documents, words (between white space) and bytes (of UTF-8)."""
    lost: int = 0
    """Characters that the tokens do not give back, because the tokenizer changes or drops them."""
    sources: Mapping[str, str] = {}
    """The sha256 of each source of text, by its name in the settings."""

    def __reduce__(self) -> tuple[Callable[..., "Corpus"], tuple[Any, ...]]:
        # Another process maps the token files itself. Copies of the maps would fill its memory.
        if self.folder is None:
            return Corpus, tuple(self)
        return _mapped_corpus, (self.folder, self.tokenizer, self.counts, self.lost, self.sources)


def _mapped_corpus(
    folder: Path, tokenizer: Tokenizer, counts: dict[str, dict[str, int]], lost: int, sources: Mapping[str, str]
) -> Corpus:
    tokens = {split: np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False) for split in SPLITS}
    return Corpus(folder, tokenizer, tokens, counts, lost, sources)


def open_corpus(config: TextConfig) -> Corpus:
    """The corpus of these settings. It is prepared in `config.cache` when it is first opened.

    Raises:
        ValueError: the text is missing, empty or shorter than a window; the tokenizer cannot be read; or the prepared
            folder is damaged or does not match its sources. One line.
    """
    if not config.has_data:
        raise ValueError("task.train_files=(): expected files or folders of text, or a --task.dataset")
    settings = {
        "train_files": resolved(config.train_files),
        "validation_files": resolved(config.validation_files),
        "test_files": resolved(config.test_files),
        "text_field": config.text_field,
        "dataset": config.dataset,
        "tokenizer": config.tokenizer if config.tokenizer in ("bytes", "bpe") else resolved([config.tokenizer])[0],
        "bpe_size": config.bpe_size,
        "end_token": config.end_token,
        "document": config.document,
        "version": config.version,
    }
    folder = Path(config.cache).expanduser() / f"text-{sha256_of(json.dumps(settings))[:16]}"
    sources = source_hashes(config, prepared=folder.exists())
    if not folder.exists():
        _prepare(config, settings, sources, folder)
    return _load(config, sources, folder)


def corpus_in_memory(config: TextConfig, texts: Mapping[str, Iterable[str]] | Iterable[str], tokenizer: Any) -> Corpus:
    """A corpus of documents in memory. It writes no files.

    Args:
        texts: documents by split (train, validation, test); or all documents, whose content decides their splits.
        tokenizer: an object (see `as_tokenizer`); None is the tokenizer of the settings.

    Raises:
        ValueError: the settings name a text, there is too little text, or the object is not a tokenizer.
    """
    if config.has_data:
        raise ValueError(f"task.train_files, task.dataset: {named(config)}; expected none beside documents in memory")
    parts: list[SplitPart]
    if isinstance(texts, Mapping):
        parts = [(split, text, True) for split in SPLITS for text in texts.get(split, ())]
    else:
        parts = list(split_by_content((text, True) for text in texts))
    if tokenizer is not None:
        tokenizer = as_tokenizer(tokenizer, config.end_token)
    else:
        tokenizer, _ = _tokenizer(config, lambda: parts)
    tokens: dict[Split, list[np.ndarray]] = {split: [] for split in SPLITS}
    counts, lost = encode(parts, tokenizer, lambda split, ids: tokens[split].append(ids), "documents")
    _check_counts(counts, config.context, "documents")
    return Corpus(None, tokenizer, {split: np.concatenate(ids) for split, ids in tokens.items()}, counts, lost)


def without_text(config: TextConfig) -> Corpus:
    """The tokenizer of the settings, without a text.

    Raises:
        ValueError: it cannot be read, or it is trained on the text.
    """
    check(config.tokenizer != "bpe", "task.tokenizer", config.tokenizer, "another one: it is trained on the text")
    tokenizer, _ = _tokenizer(config, lambda: ())
    return Corpus(None, tokenizer, tokens={}, counts={})


def _located(hashes: dict[str, str]) -> dict[str, str]:
    """The same hashes, by absolute paths."""
    return {str(Path(name).resolve()) if Path(name).exists() else name: digest for name, digest in hashes.items()}


# Preparation


def _prepare(config: TextConfig, settings: dict[str, Any], sources: dict[str, dict[str, str]], folder: Path) -> None:
    """Write the prepared folder, whole or not at all."""
    tokenizer, inner = _tokenizer(config, lambda: read_documents(config))
    with _unless_another_was_faster(folder), new_folder(folder) as temporary:
        with contextlib.ExitStack() as stack:
            files = {
                split: stack.enter_context(TokenFile(temporary / f"{split}.npy", id_type(tokenizer)))
                for split in SPLITS
            }
            counts, lost = encode(
                read_documents(config), tokenizer, lambda split, ids: files[split].write(ids), named(config)
            )
        _check_counts(counts, config.context, named(config))
        manifest = {
            "settings": settings,
            "sources": {part: _located(hashes) for part, hashes in sources.items()},
            "tokenizer": inner and sha256_of(inner),
            "vocab_size": tokenizer.vocab_size,
            "splits": counts,
            "lost": lost,
        }
        if inner is not None:
            (temporary / TOKENIZER).write_text(inner, encoding="utf-8")
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _unless_another_was_faster(folder: Path) -> Iterator[None]:
    """Two processes may prepare the same text. The folder of the first is kept."""
    try:
        yield
    except OSError:
        if not folder.exists():
            raise


def _tokenizer(config: TextConfig, documents: Callable[[], Iterable[SplitPart]]) -> tuple[Tokenizer, str | None]:
    """The tokenizer of the settings, and its JSON (None for bytes)."""
    if config.tokenizer == "bytes":
        return ByteTokenizer(), None
    if config.tokenizer == "bpe":
        train = (text for split, text, _ in pieces(documents()) if split == "train")
        inner = trained_bpe(train, config.bpe_size)
    else:
        inner = read_bpe(tokenizer_files(config.tokenizer))
    return BPETokenizer(inner, config.end_token, config.tokenizer), inner


class TokenFile:
    """A .npy file of one axis that grows."""

    def __init__(self, path: Path, kind: type[np.unsignedinteger]) -> None:
        self.length, self.kind, self.file = 0, kind, path.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        """Write the header for the present length. Its size does not depend on the length."""
        described = np.lib.format.dtype_to_descr(np.dtype(self.kind))
        np.lib.format.write_array_header_1_0(
            self.file, {"shape": (self.length,), "fortran_order": False, "descr": described}
        )

    def write(self, ids: np.ndarray) -> None:
        self.length += len(ids)
        self.file.write(ids.tobytes())

    def __enter__(self) -> "TokenFile":
        return self

    def __exit__(self, *_: object) -> None:
        with self.file:
            self.file.seek(0)
            self._write_header()


def _check_counts(counts: dict[str, dict[str, int]], context: int, name: str) -> None:
    for split, count in counts.items():
        if not count["bytes"]:
            total = sum(count["documents"] for count in counts.values())
            raise ValueError(
                f"{name}: no text in the {split} split; expected more than {total} documents, a smaller "
                "task.document, or task.validation_files and task.test_files"
            )
    for split, count in counts.items():
        if count["tokens"] < context:
            raise ValueError(
                f"{name}: {count['tokens']} tokens in the {split} split; expected at least task.context={context}, a "
                "window"
            )


# Opening


def _load(config: TextConfig, sources: dict[str, dict[str, str]], folder: Path) -> Corpus:
    again = f"delete {folder} to prepare it again"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        prepared = {part: dict(hashes) for part, hashes in manifest["sources"].items()}
        counts = {split: {name: int(manifest["splits"][split][name]) for name in COUNTS} for split in SPLITS}
        vocab_size, lost, digest = int(manifest["vocab_size"]), int(manifest["lost"]), manifest["tokenizer"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ValueError(f"{folder / MANIFEST}: damaged; expected the manifest of a prepared text; {again}") from None
    if config.dataset and "dataset" not in sources:  # without a connection a change cannot be noticed
        known = prepared.get("dataset", {})
        sources |= {"dataset": {name: known[name] for name in known if name.startswith(f"{config.dataset} (")}}
    for part in prepared.keys() | sources.keys():
        before, now = prepared.get(part, {}), _located(sources.get(part, {}))
        for path in sorted(before.keys() | now.keys()):
            if before.get(path) != now.get(path):
                raise ValueError(f"{path}: changed since {folder} was prepared from it; restore it, or {again}")
    tokenizer: Tokenizer = ByteTokenizer()
    if digest is not None:
        path = folder / TOKENIZER
        inner = read_text(path)
        if sha256_of(inner) != digest:
            raise ValueError(f"{path}: not the tokenizer that made these tokens (another sha256); {again}")
        tokenizer = BPETokenizer(checked_json([inner], str(path)), config.end_token, str(path))
    if tokenizer.vocab_size != vocab_size:
        raise ValueError(f"{folder / MANIFEST}: {vocab_size} tokens; expected the tokenizer's {tokenizer.vocab_size}")
    _check_counts(counts, config.context, named(config))
    for split in SPLITS:
        _check_tokens(folder / f"{split}.npy", 1 + counts[split]["tokens"], vocab_size, again)
    names = {name: digest for part in (*SPLITS, "dataset") for name, digest in sources.get(part, {}).items()}
    return _mapped_corpus(folder, tokenizer, counts, lost, names)


def _check_tokens(path: Path, length: int, vocab_size: int, again: str) -> None:
    """Raise ValueError unless a file holds so many tokens, all of them in the vocabulary."""
    try:
        tokens = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # numpy's reader of the header has many, without a common base
        tokens = np.zeros(0)
    if tokens.shape != (length,) or tokens.dtype not in (np.uint16, np.uint32):
        raise ValueError(f"{path}: damaged or cut short; expected {length} tokens; {again}")
    some = np.empty(1 << 17, tokens.dtype)
    with path.open("rb") as file:  # what is read through a map would stay in memory
        file.seek(tokens.offset)  # pyright: ignore[reportAttributeAccessIssue]
        while size := file.readinto(some.data):
            if (largest := int(some[: size // some.itemsize].max())) >= vocab_size:
                raise ValueError(f"{path}: token {largest} is out of range; expected ids below {vocab_size}; {again}")
