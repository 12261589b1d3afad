"""A corpus: text files or a data set, prepared once as memory-mapped token files.

The folder of a prepared corpus holds the files of `tokens.py`: uint16 or uint32 ids of each split, with an end of text
first and after every document. It also holds `tokenizer.json` (not for bytes) and `manifest.json`: the settings, the
sha256 of each source and of the tokenizer, the counts of each split and the lengths of its files.

Text goes from the sources to the token files in pieces, and is never in memory as a whole. Only a long document whose
content decides its split is.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from looped.files import new_folder, write_atomic
from looped.locks import locked
from looped.reading import read_text
from looped.strict import check
from looped.tasks.base import SPLITS, Split
from looped.tasks.continuation import Tokenizer, as_tokenizer
from looped.tasks.text.config import TextConfig
from looped.tasks.text.data_sets import dataset_documents, dataset_hashes
from looped.tasks.text.encoding import COUNTS, encode, pieces
from looped.tasks.text.progress import Progress
from looped.tasks.text.sources import (
    Hashes,
    SplitPart,
    file_documents,
    file_hashes,
    named,
    resolved,
    sha256_of,
    size_of_files,
    split_by_content,
)
from looped.tasks.text.tokenizer import (
    BPETokenizer,
    ByteTokenizer,
    checked_json,
    id_type,
    read_bpe,
    tokenizer_files,
    trained_bpe,
)
from looped.tasks.text.tokens import Tokens, TokenWriter, mapped_tokens
from looped.tasks.text.workers import cores

MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"


class Corpus(NamedTuple):
    """The tokens of each split, their tokenizer, and counts."""

    folder: Path | None
    """The prepared folder; None if the corpus is only in memory."""
    tokenizer: Tokenizer
    tokens: dict[str, Tokens]
    counts: dict[str, dict[str, int]]
    """Counts by split: tokens (without the first), documents, words (between white space) and bytes (of UTF-8)."""
    lost: int = 0
    """Characters that the tokens do not give back, because the tokenizer changes or drops them."""
    sources: Mapping[str, str] = {}
    """The sha256 of each source of text, by its name in the settings."""


def open_corpus(config: TextConfig) -> Corpus:
    """The corpus of these settings. It is prepared in `config.cache` when it is first opened, by one process.

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
    if not folder.exists():
        sources, hashes = _source_hashes(config, {}, prepared=False)
        with locked(folder.parent, wait=True):
            if not folder.exists():
                _prepare(config, settings, sources, hashes, folder)
    return _load(config, folder)


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
    return Corpus(
        None, tokenizer, {split: Tokens([np.concatenate(ids)]) for split, ids in tokens.items()}, counts, lost
    )


def without_text(config: TextConfig) -> Corpus:
    """The tokenizer of the settings, without a text.

    Raises:
        ValueError: it cannot be read, or it is trained on the text.
    """
    check(config.tokenizer != "bpe", "task.tokenizer", config.tokenizer, "another one: it is trained on the text")
    tokenizer, _ = _tokenizer(config, lambda: ())
    return Corpus(None, tokenizer, tokens={}, counts={})


# Sources


def _source_hashes(
    config: TextConfig, known: Mapping[str, tuple[list[int], str]], *, prepared: bool
) -> tuple[dict[str, dict[str, str]], Hashes]:
    """The sha256 of each source, by part (a split, tokenizer, dataset) and name, and what to remember of them.

    Args:
        known: see `Hashes`.
        prepared: whether the part `dataset` may be absent, if the data set cannot be loaded without a connection.

    Raises:
        ValueError: a file does not exist, or belongs to two splits; or the data set cannot be loaded.
    """
    hashes = Hashes(known)
    found = file_hashes(config, hashes)
    if config.dataset:
        try:
            found["dataset"] = dataset_hashes(config.dataset, hashes)
        except ValueError:
            if not prepared:
                raise
    return found, hashes


def _located(hashes: dict[str, str]) -> dict[str, str]:
    """The same hashes, by absolute paths."""
    return {str(Path(name).resolve()) if Path(name).exists() else name: digest for name, digest in hashes.items()}


def read_documents(config: TextConfig, what: str) -> Iterator[SplitPart]:
    """The documents of the settings' files or data set. Lines on standard error say how far this is; they begin with
    `what`.

    Raises:
        ValueError: a file is damaged, or a row holds no text; names both.
    """
    progress = Progress(what, size_of_files(config) or None)
    found = dataset_documents(config.dataset, config, progress) if config.dataset else file_documents(config, progress)
    if "validation" not in found:
        return split_by_content(found["train"])
    return ((split, *part) for split, parts in found.items() for part in parts)


# Preparation


def _prepare(
    config: TextConfig, settings: dict[str, Any], sources: dict[str, dict[str, str]], hashes: Hashes, folder: Path
) -> None:
    """Write the prepared folder, whole or not at all."""
    tokenizer, inner = _tokenizer(config, lambda: read_documents(config, "reading text for a BPE"))
    with _unless_another_was_faster(folder), new_folder(folder) as temporary:
        files = {split: TokenWriter(temporary, split, id_type(tokenizer)) for split in SPLITS}
        with contextlib.ExitStack() as stack:
            for file in files.values():
                stack.callback(file.close)
            documents = read_documents(config, "encoding text")
            counts, lost = encode(documents, tokenizer, lambda s, ids: files[s].write(ids), named(config), cores())
        _check_counts(counts, config.context, named(config))
        manifest = {
            "settings": settings,
            "sources": {part: _located(found) for part, found in sources.items()},
            "stamps": hashes.stamps,
            "tokenizer": inner and sha256_of(inner),
            "vocab_size": tokenizer.vocab_size,
            "splits": counts,
            "files": {split: file.lengths for split, file in files.items()},
            "lost": lost,
        }
        if inner is not None:
            (temporary / TOKENIZER).write_text(inner, encoding="utf-8")
        _write_manifest(temporary, manifest)


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


@contextlib.contextmanager
def _unless_another_was_faster(folder: Path) -> Iterator[None]:
    """On a file system without locks two processes may prepare the same text. The folder of the first is kept."""
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


def _load(config: TextConfig, folder: Path) -> Corpus:
    again = f"delete {folder} to prepare it again"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        prepared = {part: dict(hashes) for part, hashes in manifest["sources"].items()}
        stamps = {path: list(map(int, stamp)) for path, stamp in manifest["stamps"].items()}
        counts = {split: {name: int(manifest["splits"][split][name]) for name in COUNTS} for split in SPLITS}
        lengths = {split: [int(length) for length in manifest["files"][split]] for split in SPLITS}
        vocab_size, lost, digest = int(manifest["vocab_size"]), int(manifest["lost"]), manifest["tokenizer"]
        if any(sum(lengths[split]) != 1 + counts[split]["tokens"] for split in SPLITS):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ValueError(f"{folder / MANIFEST}: damaged; expected the manifest of a prepared text; {again}") from None
    digests = {path: digest for hashes in prepared.values() for path, digest in hashes.items()}
    known = {path: (stamp, digests[path]) for path, stamp in stamps.items() if path in digests}
    sources, hashes = _source_hashes(config, known, prepared=True)
    if config.dataset and "dataset" not in sources:  # without a connection a change cannot be noticed
        known = prepared.get("dataset", {})
        sources |= {"dataset": {name: known[name] for name in known if name.startswith(f"{config.dataset} (")}}
    for part in prepared.keys() | sources.keys():
        before, now = prepared.get(part, {}), _located(sources.get(part, {}))
        for path in sorted(before.keys() | now.keys()):
            if before.get(path) != now.get(path):
                raise ValueError(f"{path}: changed since {folder} was prepared from it; restore it, or {again}")
    if hashes.stamps != stamps:
        with contextlib.suppress(OSError):  # the folder may be one that only others write
            _write_manifest(folder, manifest | {"stamps": hashes.stamps})
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
    try:
        tokens = {split: mapped_tokens(folder, split, lengths[split]) for split in SPLITS}
    except ValueError as error:
        raise ValueError(f"{error}; {again}") from None
    names = {name: digest for part in (*SPLITS, "dataset") for name, digest in sources.get(part, {}).items()}
    return Corpus(folder, tokenizer, tokens, counts, lost, names)
