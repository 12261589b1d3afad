"""A corpus, prepared once: text files or a data set into memory-mapped token files.

The folder of a prepared corpus holds `train.npy`, `validation.npy` and `test.npy` (one axis of uint16 or uint32 ids;
an end of text first, and one after every document), `tokenizer.json` (not for bytes) and `manifest.json`: the
settings, the sha256 of each source and of the tokenizer, and what each split counts.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt

from looped.files import read_text, sync
from looped.task_config import TextConfig
from looped.tasks.base import SPLITS, split_of
from looped.tasks.text.tokenizer import BPETokenizer, ByteTokenizer, Tokenizer, read_bpe, tokenizer_files, trained_bpe

MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"
SUFFIXES = ("", ".xz", ".gz", ".zst")
PIECE = 1 << 16  # characters that are encoded at a time
PIECES = 256  # of which so many go to the processor's cores together
# Long documents are cut between a word and white space, where GPT-2's tokenizer and its successors end a word anyway.
CUT = re.compile(r"(?<=[^\W_])\s")


class Corpus(NamedTuple):
    """Tokens of each split, and what they stand for."""

    folder: Path
    tokenizer: Tokenizer
    tokens: dict[str, UInt[np.ndarray, " tokens"]]
    counts: dict[str, dict[str, int]]
    """In each split: tokens (without the first), documents, words (between white space) and bytes (of UTF-8)."""


def open_corpus(config: TextConfig) -> Corpus:
    """The corpus of these settings, prepared in `config.cache` when it is first opened.

    Raises:
        ValueError: one line, for text that is missing, empty or shorter than a window, a tokenizer that cannot be
            read, and a prepared folder that is damaged or that its sources no longer fit.
    """
    if not (config.train_files or config.dataset):
        raise ValueError("task.train_files=(): expected files or folders of text, or a --task.dataset")
    sources = _sources(config)
    settings = {
        "train_files": _resolved(config.train_files),
        "validation_files": _resolved(config.validation_files),
        "test_files": _resolved(config.test_files),
        "dataset": config.dataset,
        "tokenizer": config.tokenizer if config.tokenizer in ("bytes", "bpe") else _resolved([config.tokenizer])[0],
        "bpe_size": config.bpe_size,
        "end_token": config.end_token,
        "document": config.document,
        "version": config.version,
    }
    folder = Path(config.cache).expanduser() / f"text-{_sha256(json.dumps(settings).encode())[:16]}"
    if not folder.exists():
        _prepare(config, settings, sources, folder)
    return _load(config, sources, folder)


# Sources


def _resolved(names: Sequence[str]) -> list[str]:
    return [str(Path(name).expanduser().resolve()) for name in names]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _files(field: str, names: Sequence[str]) -> list[Path]:
    """The files that are named, and the text files in the folders that are."""
    files = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = [file for end in SUFFIXES for file in path.rglob(f"*.txt{end}") if file.is_file()]
            if not inside:
                raise ValueError(f"task.{field}: no *.txt file (or .xz, .gz, .zst of one) in the folder {name}")
            files += sorted(inside)
        elif path.is_file():
            files.append(path)
        else:
            raise ValueError(f"task.{field}: no such file or folder: {name}")
    return files


def _sources(config: TextConfig) -> dict[str, dict[str, str]]:
    """The sha256 of each file that the tokens depend on, by split and path."""
    parts = {split: _files(f"{split}_files", getattr(config, f"{split}_files")) for split in SPLITS}
    found = {
        split: {str(file.resolve()): _sha256(file.read_bytes()) for file in files} for split, files in parts.items()
    }
    owner: dict[str, str] = {}
    for split in SPLITS:
        for path, digest in found[split].items():
            if owner.setdefault(digest, split) != split:
                raise ValueError(f"task.{split}_files: {path} is also among the {owner[digest]} files")
    if config.tokenizer not in ("bytes", "bpe"):
        files = tokenizer_files(config.tokenizer)
        found["tokenizer"] = {str(file.resolve()): _sha256(file.read_bytes()) for file in files}
    return found


def documents(lines: Sequence[str], config: TextConfig) -> Iterator[str]:
    """The documents in the lines (with their ends) of one file, or in the rows of a data set.

    Published: every line is one, and a blank one is empty, as the rows of the public data set are.
    """
    if config.version == "published":
        yield from (line if line.strip() else "" for line in lines)
    elif config.document == "line":
        yield from (line for line in lines if line.strip())
    else:
        text = "".join(lines)
        parts = [text] if config.document == "file" else re.split(r"\n(?:[^\S\n]*\n)+", text.strip("\n"))
        yield from (part for part in parts if part.strip())


def _documents(config: TextConfig) -> dict[str, list[str]]:
    """The documents of each split."""
    if config.dataset:
        texts = {split: [rows] for split, rows in _rows(config.dataset, config.version == "published").items()}
    else:
        names = {split: _files(f"{split}_files", getattr(config, f"{split}_files")) for split in SPLITS}
        # Not splitlines: a line ends at a line feed and nowhere else.
        texts = {
            s: [re.findall(r"[^\n]*\n|[^\n]+", read_text(f)) for f in files] for s, files in names.items() if files
        }
    found = {split: [d for lines in files for d in documents(lines, config)] for split, files in texts.items()}
    if "validation" not in found:
        every, found = found["train"], {split: [] for split in SPLITS}
        for document in every:
            found[split_of(document.encode())].append(document)
    for split in SPLITS:
        if not any(found[split]):
            total = sum(map(len, found.values()))
            raise ValueError(
                f"{_named(config)}: no text in the {split} split; expected more than {total} documents, a smaller "
                "task.document, or task.validation_files and task.test_files"
            )
    return found


def _named(config: TextConfig) -> str:
    return config.dataset or ", ".join(config.train_files)


def _rows(name: str, as_they_are: bool) -> dict[str, list[str]]:
    """The rows of a Hugging Face data set by split; all in `train` unless it has the three splits."""
    path, _, configuration = name.partition(":")
    try:
        import datasets  # pyright: ignore[reportMissingImports]: an extra
    except ImportError:
        raise ValueError(f"task.dataset={name!r}: needs the package datasets: pip install 'looped[datasets]'") from None
    try:
        loaded = datasets.load_dataset(path, configuration or None)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"task.dataset={name!r}: cannot be loaded ({' '.join(str(error).split())}); download its text from "
            f"https://huggingface.co/datasets/{path} where there is a connection, and name the files with "
            "--task.train-files, --task.validation-files and --task.test-files"
        ) from None
    wanted: tuple[str, ...] = SPLITS if {"validation", "test"} <= set(loaded) else ("train",)
    found: dict[str, list[str]] = {}
    for split in wanted:
        if split not in loaded or "text" not in loaded[split].column_names:
            raise ValueError(f"task.dataset={name!r}: no column text in a split {split}; expected one")
        rows = list(map(str, loaded[split]["text"]))
        found[split] = rows if as_they_are else [row if row.endswith("\n") else f"{row}\n" for row in rows]
    return found


# Preparation


def _prepare(config: TextConfig, settings: dict[str, Any], sources: dict[str, dict[str, str]], folder: Path) -> None:
    """Write the prepared folder, whole or not at all."""
    texts = _documents(config)
    inner = None
    if config.tokenizer == "bpe":
        inner = trained_bpe((piece for text in texts["train"] for piece, _ in _pieces(text)), config.bpe_size)
    elif config.tokenizer != "bytes":
        inner = read_bpe(tokenizer_files(config.tokenizer))
    tokenizer = ByteTokenizer() if inner is None else BPETokenizer(inner, config.end_token, config.tokenizer)
    tokens = {split: encode(texts[split], tokenizer) for split in SPLITS}
    _check_lengths({split: len(ids) for split, ids in tokens.items()}, config)
    manifest = {
        "settings": settings,
        "sources": sources,
        "tokenizer": {"sha256": inner and _sha256(inner.encode()), "vocab_size": tokenizer.vocab_size},
        "splits": {
            split: {
                "tokens": len(tokens[split]) - 1,
                "documents": len(texts[split]),
                "words": sum(len(text.split()) for text in texts[split]),
                "bytes": sum(len(text.encode()) for text in texts[split]),
            }
            for split in SPLITS
        },
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


def encode(texts: Sequence[str], tokenizer: Tokenizer) -> UInt[np.ndarray, " tokens"]:
    """An end of text, then each document and an end of text."""
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
    """A document in pieces, and whether it ends with this one."""
    start = 0
    while cut := CUT.search(text, start + PIECE):
        yield text[start : cut.start()], False
        start = cut.start()
    yield text[start:], True


def _check_lengths(lengths: dict[str, int], config: TextConfig) -> None:
    for split, length in lengths.items():
        if length <= config.context:
            raise ValueError(
                f"{_named(config)}: {length - 1} tokens in the {split} split; expected at least "
                f"task.context={config.context}, one window"
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
        if _sha256(inner.encode()) != digest:
            raise ValueError(f"{path}: not the tokenizer that made these tokens (another sha256); {again}")
        tokenizer = BPETokenizer(inner, config.end_token, str(path))
    if tokenizer.vocab_size != vocab_size:
        raise ValueError(f"{folder / MANIFEST}: {vocab_size} tokens; expected the tokenizer's {tokenizer.vocab_size}")
    _check_lengths(lengths, config)
    tokens = {split: _mapped(folder / f"{split}.npy", lengths[split], vocab_size, again) for split in SPLITS}
    return Corpus(folder, tokenizer, tokens, counts)


def _mapped(path: Path, length: int, vocab_size: int, again: str) -> UInt[np.ndarray, " tokens"]:
    """The tokens in a file, which stay there."""
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        tokens = np.zeros(0)
    if tokens.shape != (length,) or tokens.dtype not in (np.uint16, np.uint32):
        raise ValueError(f"{path}: damaged or cut short; expected {length} tokens; {again}")
    if (largest := int(tokens.max())) >= vocab_size:
        raise ValueError(f"{path}: token {largest} is out of range; expected ids below {vocab_size}; {again}")
    return tokens
