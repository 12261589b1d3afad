"""Data sets of Hugging Face: of the hub, in a folder of files, or in a folder that `save_to_disk` wrote.

Rows are streamed. Only the tokens are written to the disk, and of the hub's files only what a row needs is read.
"""

import contextlib
import json
import reprlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from looped.extras import need
from looped.printing import one_line
from looped.tasks.base import SPLITS, Split
from looped.tasks.text.config import TextConfig
from looped.tasks.text.sources import Hashes, Part, documents, sha256_of

SAVED = ("dataset_dict.json", "state.json")  # one of them is in every folder that `save_to_disk` writes
ROWS = 100  # rows that are read at a time


def dataset_hashes(name: str, hashes: Hashes) -> dict[str, str]:
    """The sha256 of each file of a data set in a local folder, or else of the revision of each split's files.

    The hub gives a commit for its files, which needs no reading of the rows.

    Raises:
        ValueError: the data set cannot be loaded.
    """
    folder = Path(name.partition(":")[0]).expanduser()
    if folder.is_dir():
        return {str(file): hashes(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    files = _opened(name, _files)
    return {f"{name} ({split})": sha256_of(json.dumps(revision)) for split, revision in files.items()}


def _files(datasets: Any, path: str, configuration: str | None) -> dict[str, Any]:
    """The files of each split, with their commit or another mark of their version."""
    files = datasets.load_dataset_builder(path, configuration).config.data_files
    return {str(split): [list(some), some.origin_metadata] for split, some in files.items()}


def _streams(datasets: Any, path: str, configuration: str | None) -> dict[str, Any]:
    """The rows of each split."""
    folder = Path(path).expanduser()
    if any((folder / file).is_file() for file in SAVED):
        saved = datasets.load_from_disk(str(folder))  # mapped into memory
        return {"train": saved} if isinstance(saved, datasets.Dataset) else saved
    return datasets.load_dataset(path, configuration, streaming=True)


def _opened(name: str, function: Callable[[Any, str, str | None], dict[str, Any]]) -> dict[str, Any]:
    """`function(datasets, path, configuration)`.

    Raises:
        ValueError: the library is not installed, or the data set cannot be loaded.
    """
    path, _, configuration = name.partition(":")
    datasets = need("datasets", f"task.dataset={name!r}")
    try:
        return function(datasets, path, configuration or None)
    except Exception as error:  # the library has many, without a common base
        raise ValueError(
            f"task.dataset={name!r}: cannot be loaded ({_line(error)}); download its text from "
            f"https://huggingface.co/datasets/{path} on a machine with a connection, and give the files as "
            "--task.train-files, --task.validation-files and --task.test-files"
        ) from None


def _line(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__


def dataset_documents(name: str, config: TextConfig, progress: Callable[[int], object]) -> dict[Split, Iterator[Part]]:
    """Documents by split; all in `train` unless the data set has the three splits.

    Args:
        progress: is called with the number of characters that were read.

    Raises:
        ValueError: the data set cannot be loaded or has no such column; or, when the place is reached, it cannot be
            read, or a row holds no text.
    """
    loaded = _opened(name, _streams)
    field = config.text_field or "text"
    wanted: tuple[Split, ...] = SPLITS if {"validation", "test"} <= set(loaded) else ("train",)
    for split in wanted:
        if split not in loaded or field not in _columns(name, split, loaded[split]):
            raise ValueError(
                f"task.dataset={name!r}: no column {field} in a split {split}; expected one, named by --task.text-field"
            )
    return {split: _row_documents(_rows(name, split, loaded[split], field, progress), config) for split in wanted}


def _columns(name: str, split: Split, rows: Any) -> Iterable[str]:
    if rows.column_names is not None:
        return rows.column_names
    with _read_errors(name, split, 0):  # a stream may know its columns only after its first row
        return next(iter(rows), {})


def _rows(name: str, split: Split, rows: Any, field: str, progress: Callable[[int], object]) -> Iterator[list[str]]:
    """The texts of a split, a few at a time."""
    number = 0
    tables = iter(rows.select_columns([field]).with_format("arrow").iter(batch_size=ROWS))
    while True:
        with _read_errors(name, split, number):
            if (table := next(tables, None)) is None:
                return
            texts = table[field].to_pylist()
        for row in texts:
            if not isinstance(row, str):
                raise ValueError(
                    f"task.dataset={name!r}: row {number} of {split}: {field}={reprlib.repr(row)}: expected a text"
                )
            number += 1
        progress(sum(map(len, texts)))
        yield texts


@contextlib.contextmanager
def _read_errors(name: str, split: Split, row: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the library has many, without a common base
        raise ValueError(
            f"task.dataset={name!r}: cannot be read from row {row} of {split} on ({_line(error)})"
        ) from None


def _row_documents(batches: Iterable[list[str]], config: TextConfig) -> Iterator[Part]:
    """The documents in rows, each of which counts as a line."""
    if config.version == "published":
        return ((row if row.strip() else "", True) for batch in batches for row in batch)
    batches = ([row.removesuffix("\n") + "\n" for row in batch] for batch in batches)
    if config.document == "line":
        return ((row, True) for batch in batches for row in batch if row.strip())
    return documents(("".join(batch) for batch in batches), config)
