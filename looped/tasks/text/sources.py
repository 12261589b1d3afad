"""Sources of text: files of text or JSON lines, and data sets, as documents by split.

Texts are streamed. A document comes as parts, each with a flag that marks the last one; the parts of a long document
are about a million characters.
"""

import hashlib
import json
import re
import reprlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from looped.files import sha256
from looped.reading import stream_lines, stream_text
from looped.tasks.base import SPLITS, Split, split_of_hash
from looped.tasks.text.config import TextConfig
from looped.tasks.text.tokenizer import tokenizer_files

COMPRESSED = ("", ".xz", ".gz", ".zst")
JSON_LINES = ".jsonl"
SAVED = ("dataset_dict.json", "state.json")  # one of them is in every folder that `save_to_disk` of datasets writes
LINES = re.compile(r"[^\n]*\n|[^\n]+")  # only a line feed ends a line
BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")

Part = tuple[str, bool]
"""A part of a document, and whether the document ends with it."""
SplitPart = tuple[Split, str, bool]
"""The split of a document, a part of it, and whether the document ends with it."""


def resolved(names: Sequence[str]) -> list[str]:
    return [str(Path(name).expanduser().resolve()) for name in names]


def sha256_of(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


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


def _split_files(config: TextConfig) -> dict[Split, list[Path]]:
    return {split: _files(f"{split}_files", getattr(config, f"{split}_files")) for split in SPLITS}


def source_hashes(config: TextConfig, *, prepared: bool) -> dict[str, dict[str, str]]:
    """The sha256 of each file that the tokens depend on, by part (a split, dataset, tokenizer) and name.

    Args:
        prepared: whether the part `dataset` may be absent, if the data set cannot be loaded without a connection.

    Raises:
        ValueError: a file does not exist, or belongs to two splits; or the data set cannot be loaded.
    """
    found: dict[str, dict[str, str]] = {}
    owner: dict[str, str] = {}
    for split, files in _split_files(config).items():
        found[split] = {str(file): sha256(file) for file in files}
        for path, digest in found[split].items():
            if owner.setdefault(digest, split) != split:
                raise ValueError(f"task.{split}_files: {path} is also among the {owner[digest]} files")
    if config.dataset:
        try:
            found["dataset"] = _dataset_hashes(config.dataset)
        except ValueError:
            if not prepared:
                raise
    if config.tokenizer not in ("bytes", "bpe"):
        found["tokenizer"] = {str(file): sha256(file) for file in tokenizer_files(config.tokenizer)}
    return found


# Documents


def documents(text: Iterable[str], config: TextConfig) -> Iterator[Part]:
    """The documents of one file, whose text comes in parts of any length. Blank documents are left out.

    In the published version every line is a document, and blank lines are empty documents, like the rows of the public
    data set.
    """
    if config.version == "published" or config.document == "line":
        return _lines(text, keep_blank=config.version == "published")
    return _whole(text) if config.document == "file" else _paragraphs(text)


def _whole(text: Iterable[str]) -> Iterator[Part]:
    blank = ""  # the beginning, while it is blank
    begun = False
    for part in text:
        if begun or part.strip():
            yield blank + part, False
            blank, begun = "", True
        else:
            blank += part
    if begun:
        yield "", True


def _lines(text: Iterable[str], keep_blank: bool) -> Iterator[Part]:
    blank = ""  # the beginning of a line, while it is blank
    begun = False
    for part in text:
        for line in LINES.findall(part):
            ends = line[-1] == "\n"
            if begun or not line.isspace():
                yield blank + line, ends
                blank, begun = "", not ends
            elif not ends:
                blank += line
            else:
                blank = ""
                if keep_blank:
                    yield "", True
    if begun or (blank and keep_blank):
        yield "", True


def _paragraphs(text: Iterable[str]) -> Iterator[Part]:
    """The parts between blank lines, without line feeds around the whole text."""
    white = ""  # white space after the last word, which may belong to a separator
    begun = False
    for part in text:
        part = white + part if begun else (white + part).lstrip("\n")
        body = part.rstrip()
        white = part[len(body) :]
        if not body:
            continue
        first, *others = BLANK_LINES.split(body)
        if others:
            if begun or first.strip():
                yield first, True
            yield from ((other, True) for other in others[:-1])
            first = others[-1]
        yield first, False
        begun = True
    if begun:
        yield BLANK_LINES.split(white.rstrip("\n"))[0], True


def read_documents(config: TextConfig) -> Iterator[SplitPart]:
    """The documents of the settings' files or data set.

    Raises:
        ValueError: a file is damaged, or a row holds no text; names both.
    """
    found: dict[Split, Iterator[Part]]
    if config.dataset:
        found = _dataset_documents(config.dataset, config)
    else:
        files = _split_files(config)
        if config.text_field is not None and not any(is_json_lines(file) for some in files.values() for file in some):
            raise ValueError(f"task.text_field={config.text_field!r}: has no effect without a .jsonl file or a dataset")
        found = {split: _file_documents(some, config) for split, some in files.items() if some}
    if "validation" not in found:
        return split_by_content(found["train"])
    return ((split, *part) for split, parts in found.items() for part in parts)


def _file_documents(files: Sequence[Path], config: TextConfig) -> Iterator[Part]:
    return (part for file in files for text in texts_in(file, config.text_field) for part in documents(text, config))


def split_by_content(parts: Iterable[Part]) -> Iterator[SplitPart]:
    """The same parts; the content of each document decides its split.

    Raises:
        ValueError: a text has half a surrogate pair.
    """
    held: list[bytes] = []  # the beginning of a document, in the form that needs least memory
    crc = 0
    for text, last in parts:
        content = utf8(text)
        crc = zlib.crc32(content, crc)
        if not last:
            held.append(content)
            continue
        split = split_of_hash(crc)
        for part in held:
            yield split, part.decode(), False
        yield split, text, True
        held, crc = [], 0


def utf8(text: str) -> bytes:
    """The text in UTF-8.

    Raises:
        ValueError: the text has half a surrogate pair, which no encoding of Unicode can express.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"not Unicode text: half a surrogate pair (character {error.start})") from None


def named(config: TextConfig) -> str:
    return config.dataset or ", ".join(config.train_files)


# Data sets of Hugging Face


def _load_dataset(name: str) -> Any:
    """The splits of a data set, a mapping from their names.

    Raises:
        ValueError: it cannot be loaded.
    """
    path, _, configuration = name.partition(":")
    try:
        import datasets  # pyright: ignore[reportMissingImports]: an extra
    except ImportError:
        raise ValueError(f"task.dataset={name!r}: needs the package datasets: pip install 'looped[datasets]'") from None
    try:
        if any((Path(name).expanduser() / file).is_file() for file in SAVED):
            loaded = datasets.load_from_disk(str(Path(name).expanduser()))
            return {"train": loaded} if isinstance(loaded, datasets.Dataset) else loaded
        return datasets.load_dataset(path, configuration or None)
    except Exception as error:  # the library has many, without a common base
        raise ValueError(
            f"task.dataset={name!r}: cannot be loaded ({' '.join(str(error).split())}); download its text from "
            f"https://huggingface.co/datasets/{path} on a machine with a connection, and give the files as "
            "--task.train-files, --task.validation-files and --task.test-files"
        ) from None


def _dataset_hashes(name: str) -> dict[str, str]:
    """The sha256 of each file of a data set in a local folder, or else of each split's fingerprint.

    A fingerprint changes with the revision of the data set, and needs no reading of its rows.

    Raises:
        ValueError: the data set cannot be loaded.
    """
    folder = Path(name.partition(":")[0]).expanduser()
    if folder.is_dir():
        return {str(file): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    return {f"{name} ({split})": sha256_of(rows._fingerprint) for split, rows in _load_dataset(name).items()}


def _dataset_documents(name: str, config: TextConfig) -> dict[Split, Iterator[Part]]:
    """Documents by split; all in `train` unless the data set has the three splits."""
    loaded = _load_dataset(name)
    field = config.text_field or "text"
    wanted: tuple[Split, ...] = SPLITS if {"validation", "test"} <= set(loaded) else ("train",)
    for split in wanted:
        if split not in loaded or field not in loaded[split].column_names:
            raise ValueError(
                f"task.dataset={name!r}: no column {field} in a split {split}; expected one, named by --task.text-field"
            )
    return {split: _row_documents(_rows(name, split, loaded[split], field), config) for split in wanted}


def _rows(name: str, split: Split, rows: Any, field: str) -> Iterator[list[str]]:
    """The texts of a split, a thousand at a time."""
    number = 0
    for batch in rows.select_columns([field]).iter(batch_size=1000):
        for row in batch[field]:
            if not isinstance(row, str):
                raise ValueError(
                    f"task.dataset={name!r}: row {number} of {split}: {field}={reprlib.repr(row)}: expected a text"
                )
            number += 1
        yield batch[field]


def _row_documents(batches: Iterable[list[str]], config: TextConfig) -> Iterator[Part]:
    """The documents in rows, each of which counts as a line."""
    if config.version == "published":
        return ((row if row.strip() else "", True) for batch in batches for row in batch)
    batches = ([row.removesuffix("\n") + "\n" for row in batch] for batch in batches)
    if config.document == "line":
        return ((row, True) for batch in batches for row in batch if row.strip())
    return documents(("".join(batch) for batch in batches), config)


# JSON lines


def is_json_lines(file: Path) -> bool:
    """Whether the file name ends with .jsonl, perhaps compressed."""
    return any(file.name.endswith(f"{JSON_LINES}{packed}") for packed in COMPRESSED)


def texts_in(file: Path, field: str | None) -> Iterator[Iterable[str]]:
    """The text of a file in parts; for JSON lines, the text in a field of each object.

    Raises:
        ValueError: JSON lines without a field name, or a line without text in that field; names file and line.
    """
    if not is_json_lines(file):
        yield stream_text(file)
        return
    if field is None:
        raise ValueError(
            f"{file}: JSON lines; expected the name of the field that holds the text, such as --task.text-field text"
        )
    for number, line in enumerate(stream_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise ValueError(f"{file}, line {number}: not JSON ({reason})") from None
        if not isinstance(row, dict) or field not in row:
            found = f"fields {', '.join(row)}" if isinstance(row, dict) else type(row).__name__
            raise ValueError(f"{file}, line {number}: {found}; expected an object with the text in {field!r}")
        if not isinstance(row[field], str):
            raise ValueError(f"{file}, line {number}: {field}={reprlib.repr(row[field])}: expected a text")
        try:
            utf8(row[field])
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {field}: {error}") from None
        yield [row[field]]
