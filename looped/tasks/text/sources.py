"""Sources of text: files of text or JSON lines, and data sets, as documents by split."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from looped.files import read_text
from looped.tasks.base import SPLITS, split_of
from looped.tasks.text.config import TextConfig
from looped.tasks.text.tokenizer import tokenizer_files

COMPRESSED = ("", ".xz", ".gz", ".zst")
JSON_LINES = ".jsonl"
SAVED = ("dataset_dict.json", "state.json")  # one of them is in every folder that `save_to_disk` of datasets writes


def resolved(names: Sequence[str]) -> list[str]:
    return [str(Path(name).expanduser().resolve()) for name in names]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _files(field: str, names: Sequence[str]) -> list[Path]:
    """The named files, and the text files in the named folders."""
    files = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            kinds = [f"*{kind}{packed}" for kind in (".txt", JSON_LINES) for packed in COMPRESSED]
            inside = [file for kind in kinds for file in path.rglob(kind) if file.is_file()]
            if not inside:
                raise ValueError(
                    f"task.{field}: no *.txt or *.jsonl file (or .xz, .gz, .zst of one) in the folder {name}"
                )
            files += sorted(inside)
        elif path.is_file():
            files.append(path)
        else:
            raise ValueError(f"task.{field}: no such file or folder: {name}")
    return files


def source_hashes(config: TextConfig) -> dict[str, dict[str, str]]:
    """The sha256 of each file that the tokens depend on, by split and path."""
    parts = {split: _files(f"{split}_files", getattr(config, f"{split}_files")) for split in SPLITS}
    found = {
        split: {str(file.resolve()): sha256(file.read_bytes()) for file in files} for split, files in parts.items()
    }
    owner: dict[str, str] = {}
    for split in SPLITS:
        for path, digest in found[split].items():
            if owner.setdefault(digest, split) != split:
                raise ValueError(f"task.{split}_files: {path} is also among the {owner[digest]} files")
    if config.tokenizer not in ("bytes", "bpe"):
        files = tokenizer_files(config.tokenizer)
        found["tokenizer"] = {str(file.resolve()): sha256(file.read_bytes()) for file in files}
    return found


def documents(lines: Sequence[str], config: TextConfig) -> Iterator[str]:
    """The documents in the lines (with their ends) of one file, or in the rows of a data set.

    In the published version every line is a document, and blank lines are empty documents, like the rows of the public
    data set.
    """
    if config.version == "published":
        yield from (line if line.strip() else "" for line in lines)
    elif config.document == "line":
        yield from (line for line in lines if line.strip())
    else:
        text = "".join(lines)
        parts = [text] if config.document == "file" else re.split(r"\n(?:[^\S\n]*\n)+", text.strip("\n"))
        yield from (part for part in parts if part.strip())


def read_documents(config: TextConfig) -> dict[str, list[str]]:
    """The documents of each split."""
    if config.dataset:
        rows = _rows(config.dataset, config.text_field or "text")
        if config.version == "corrected":
            rows = {split: [row.removesuffix("\n") + "\n" for row in found] for split, found in rows.items()}
        texts = {split: [found] for split, found in rows.items()}
    else:
        names = {split: _files(f"{split}_files", getattr(config, f"{split}_files")) for split in SPLITS}
        if config.text_field is not None and not any(is_json_lines(file) for files in names.values() for file in files):
            raise ValueError(f"task.text_field={config.text_field!r}: has no effect without a .jsonl file or a dataset")
        texts = {
            split: [lines_of(text) for file in files for text in texts_in(file, config.text_field)]
            for split, files in names.items()
            if files
        }
    found = {split: [d for lines in files for d in documents(lines, config)] for split, files in texts.items()}
    if "validation" not in found:
        found = by_content(found["train"])
    check_splits(found, named(config))
    return found


def named(config: TextConfig) -> str:
    return config.dataset or ", ".join(config.train_files)


def _rows(name: str, field: str) -> dict[str, list[str]]:
    """The texts of a Hugging Face data set by split; all in `train` unless it has the three splits."""
    path, _, configuration = name.partition(":")
    try:
        import datasets  # pyright: ignore[reportMissingImports]: an extra
    except ImportError:
        raise ValueError(f"task.dataset={name!r}: needs the package datasets: pip install 'looped[datasets]'") from None
    try:
        if any((Path(name).expanduser() / file).is_file() for file in SAVED):
            loaded = datasets.load_from_disk(str(Path(name).expanduser()))
            loaded = {"train": loaded} if isinstance(loaded, datasets.Dataset) else loaded
        else:
            loaded = datasets.load_dataset(path, configuration or None)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"task.dataset={name!r}: cannot be loaded ({' '.join(str(error).split())}); download its text from "
            f"https://huggingface.co/datasets/{path} on a machine with a connection, and give the files as "
            "--task.train-files, --task.validation-files and --task.test-files"
        ) from None
    wanted: tuple[str, ...] = SPLITS if {"validation", "test"} <= set(loaded) else ("train",)
    found: dict[str, list[str]] = {}
    for split in wanted:
        if split not in loaded or field not in loaded[split].column_names:
            raise ValueError(
                f"task.dataset={name!r}: no column {field} in a split {split}; expected one, named by --task.text-field"
            )
        found[split] = list(loaded[split][field])
        for number, row in enumerate(found[split]):
            if not isinstance(row, str):
                raise ValueError(f"task.dataset={name!r}: row {number} of {split}: {field}={row!r}: expected a text")
    return found


def is_json_lines(file: Path) -> bool:
    """Whether the file name ends with .jsonl, perhaps compressed."""
    return any(file.name.endswith(f"{JSON_LINES}{packed}") for packed in COMPRESSED)


def texts_in(file: Path, field: str | None) -> Iterator[str]:
    """The text of a file; for JSON lines, the text in a field of each object.

    Raises:
        ValueError: JSON lines without a field name, or a line without text in that field; names file and line.
    """
    if not is_json_lines(file):
        yield read_text(file)
        return
    if field is None:
        raise ValueError(
            f"{file}: JSON lines; expected the name of the field that holds the text, such as --task.text-field text"
        )
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, line {number}: not JSON ({error.msg})") from None
        if not isinstance(row, dict) or field not in row:
            found = f"fields {', '.join(row)}" if isinstance(row, dict) else type(row).__name__
            raise ValueError(f"{file}, line {number}: {found}; expected an object with the text in {field!r}")
        if not isinstance(row[field], str):
            raise ValueError(f"{file}, line {number}: {field}={row[field]!r}: expected a text")
        yield row[field]


def lines_of(text: str) -> list[str]:
    """Lines with their ends. Unlike splitlines, only a line feed ends a line."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def by_content(documents: Sequence[str]) -> dict[str, list[str]]:
    """Documents by split; the content of each decides its split."""
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for document in documents:
        found[split_of(document.encode())].append(document)
    return found


def check_splits(found: dict[str, list[str]], name: str) -> None:
    """Raise ValueError if a split has no text."""
    for split in SPLITS:
        if not any(found[split]):
            total = sum(map(len, found.values()))
            raise ValueError(
                f"{name}: no text in the {split} split; expected more than {total} documents, a smaller "
                "task.document, or task.validation_files and task.test_files"
            )
