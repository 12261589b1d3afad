"""A corpus: text files or a data set, prepared once as memory-mapped token files.

The folder of a prepared corpus holds `train.npy`, `validation.npy` and `test.npy`: one axis of uint16 or uint32 ids,
with an end of text first and after every document. It also holds `tokenizer.json` (not for bytes) and
`manifest.json`: the settings, the sha256 of each source and of the tokenizer, and the counts of each split.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt

from looped.files import read_text, sync
from looped.tasks.base import SPLITS, Tokenizer
from looped.tasks.text.config import TextConfig
from looped.tasks.text.sources import by_content, check_splits, named, read_documents, resolved, sha256, source_hashes
from looped.tasks.text.tokenizer import (
    BPETokenizer,
    ByteTokenizer,
    as_tokenizer,
    read_bpe,
    tokenizer_files,
    trained_bpe,
)

MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"
PIECE = 1 << 16  # characters that are encoded at a time
PIECES = 256  # pieces that the processor's cores encode together
# Long documents are cut between a word and white space, as tokenizers of GPT-2 and its successors end a word there too.
CUT = re.compile(r"(?<=[^\W_])\s")


class Corpus(NamedTuple):
    """The tokens of each split, their tokenizer, and counts."""

    folder: Path | None
    """The prepared folder; None if the corpus is only in memory."""
    tokenizer: Tokenizer
    tokens: dict[str, UInt[np.ndarray, " tokens"]]
    counts: dict[str, dict[str, int]]
    """Counts by split: tokens (without the first), documents, words (between white space) and bytes (of UTF-8)."""


def open_corpus(config: TextConfig) -> Corpus:
    """The corpus of these settings. It is prepared in `config.cache` when it is first opened.

    Raises:
        ValueError: the text is missing, empty or shorter than a window; the tokenizer cannot be read; or the prepared
            folder is damaged or does not match its sources. One line.
    """
    if not (config.train_files or config.dataset):
        raise ValueError("task.train_files=(): expected files or folders of text, or a --task.dataset")
    sources = source_hashes(config)
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
    folder = Path(config.cache).expanduser() / f"text-{sha256(json.dumps(settings).encode())[:16]}"
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
    if config.train_files or config.dataset:
        raise ValueError(f"task.train_files, task.dataset: {named(config)}; expected none beside documents in memory")
    if isinstance(texts, Mapping):
        found = {split: list(texts.get(split, ())) for split in SPLITS}
    else:
        found = by_content(list(texts))
    check_splits(found, "documents")
    if tokenizer is not None:
        tokenizer = as_tokenizer(tokenizer, config.end_token)
    elif (inner := _tokenizer_json(config, found["train"])) is None:
        tokenizer = ByteTokenizer()
    else:
        tokenizer = BPETokenizer(inner, config.end_token, config.tokenizer)
    return Corpus(None, tokenizer, *_encoded(found, tokenizer, config.context, "documents"))


# Preparation


def _prepare(config: TextConfig, settings: dict[str, Any], sources: dict[str, dict[str, str]], folder: Path) -> None:
    """Write the prepared folder, whole or not at all."""
    texts = read_documents(config)
    inner = _tokenizer_json(config, texts["train"])
    tokenizer = ByteTokenizer() if inner is None else BPETokenizer(inner, config.end_token, config.tokenizer)
    tokens, counts = _encoded(texts, tokenizer, config.context, named(config))
    manifest = {
        "settings": settings,
        "sources": sources,
        "tokenizer": {"sha256": inner and sha256(inner.encode()), "vocab_size": tokenizer.vocab_size},
        "splits": counts,
    }
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for split, ids in tokens.items():
            np.save(temporary / f"{split}.npy", ids, allow_pickle=False)
        if inner is not None:
            (temporary / TOKENIZER).write_text(inner, encoding="utf-8")
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for file in (*temporary.iterdir(), temporary):
            sync(file)
        with contextlib.suppress(OSError) if folder.exists() else contextlib.nullcontext():
            temporary.replace(folder)  # unless another process was faster
        sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _tokenizer_json(config: TextConfig, train: Sequence[str]) -> str | None:
    """The tokenizer as JSON; None for bytes."""
    if config.tokenizer == "bytes":
        return None
    if config.tokenizer == "bpe":
        return trained_bpe((piece for text in train for piece, _ in _pieces(text)), config.bpe_size)
    return read_bpe(tokenizer_files(config.tokenizer))


def _encoded(
    texts: dict[str, list[str]], tokenizer: Tokenizer, context: int, name: str
) -> tuple[dict[str, UInt[np.ndarray, " tokens"]], dict[str, dict[str, int]]]:
    """The tokens and the counts of each split (see `Corpus`)."""
    tokens = {split: encode(texts[split], tokenizer) for split in SPLITS}
    _check_lengths({split: len(ids) for split, ids in tokens.items()}, context, name)
    counts = {
        split: {
            "tokens": len(tokens[split]) - 1,
            "documents": len(texts[split]),
            "words": sum(len(text.split()) for text in texts[split]),
            "bytes": sum(len(text.encode()) for text in texts[split]),
        }
        for split in SPLITS
    }
    return tokens, counts


def encode(texts: Sequence[str], tokenizer: Tokenizer) -> UInt[np.ndarray, " tokens"]:
    """An end of text, then each document followed by an end of text."""
    kind = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    parts = [np.array([tokenizer.end], kind)]
    pieces = (piece for text in texts for piece in _pieces(text))
    while batch := list(islice(pieces, PIECES)):
        ids: list[int] = []
        for encoded, (_, last) in zip(tokenizer.encode([text for text, _ in batch]), batch, strict=True):
            ids += encoded
            ids += [tokenizer.end] * last
        parts.append(np.array(ids, kind))
    return np.concatenate(parts)


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """The pieces of a document, each with a flag that marks the last one."""
    start = 0
    while cut := CUT.search(text, start + PIECE):
        yield text[start : cut.start()], False
        start = cut.start()
    yield text[start:], True


def _check_lengths(lengths: dict[str, int], context: int, name: str) -> None:
    for split, length in lengths.items():
        if length <= context:
            raise ValueError(
                f"{name}: {length - 1} tokens in the {split} split; expected at least task.context={context}, a window"
            )


# Opening


def _load(config: TextConfig, sources: dict[str, dict[str, str]], folder: Path) -> Corpus:
    again = f"delete {folder} to prepare it again"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        prepared, counts, made_by = (manifest[key] for key in ("sources", "splits", "tokenizer"))
        lengths = {split: counts[split]["tokens"] + 1 for split in SPLITS}
        vocab_size, digest = made_by["vocab_size"], made_by["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{folder / MANIFEST}: damaged; expected the manifest of a prepared text; {again}") from None
    for part in prepared.keys() | sources.keys():
        before, now = prepared.get(part, {}), sources.get(part, {})
        for path in sorted(before.keys() | now.keys()):
            if before.get(path) != now.get(path):
                raise ValueError(f"{path}: changed since {folder} was prepared from it; restore it, or {again}")
    tokenizer: Tokenizer = ByteTokenizer()
    if digest is not None:
        path = folder / TOKENIZER
        inner = read_text(path)
        if sha256(inner.encode()) != digest:
            raise ValueError(f"{path}: not the tokenizer that made these tokens (another sha256); {again}")
        tokenizer = BPETokenizer(inner, config.end_token, str(path))
    if tokenizer.vocab_size != vocab_size:
        raise ValueError(f"{folder / MANIFEST}: {vocab_size} tokens; expected the tokenizer's {tokenizer.vocab_size}")
    _check_lengths(lengths, config.context, named(config))
    tokens = {split: _mapped(folder / f"{split}.npy", lengths[split], vocab_size, again) for split in SPLITS}
    return Corpus(folder, tokenizer, tokens, counts)


def _mapped(path: Path, length: int, vocab_size: int, again: str) -> UInt[np.ndarray, " tokens"]:
    """The tokens of a file, memory-mapped and checked."""
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        tokens = np.zeros(0)
    if tokens.shape != (length,) or tokens.dtype not in (np.uint16, np.uint32):
        raise ValueError(f"{path}: damaged or cut short; expected {length} tokens; {again}")
    if (largest := int(tokens.max())) >= vocab_size:
        raise ValueError(f"{path}: token {largest} is out of range; expected ids below {vocab_size}; {again}")
    return tokens
