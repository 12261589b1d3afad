"""Sources of text: files of text or JSON lines, and data sets, as documents by split.

Texts are streamed. A document comes as parts, each with a flag that marks the last one; the parts of a long document
are about a million characters.
"""

import hashlib
import json
import re
import reprlib
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from looped.files import sha256
from looped.reading import stream_lines, stream_text
from looped.tasks.base import SPLITS, Split, split_of_hash
from looped.tasks.text.config import TextConfig
from looped.tasks.text.tokenizer import tokenizer_files

COMPRESSED = ("", ".xz", ".gz", ".zst")
JSON_LINES = ".jsonl"
LINES = re.compile(r"[^\n]*\n|[^\n]+")  # only a line feed ends a line
SETTLED = 2 * 10**9  # ns; coarser than the clock of any file system
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


class Hashes:
    """The sha256 of files. It is remembered with the size and the times of a file, and computed again when they differ.

    A user can set the time of the last change of the content, but not that of the last change of the file (ctime). A
    file that just changed is not remembered, because it may change again within the same tick of the clock.

    Args:
        known: what `stamps` and the hashes were, by absolute path.
    """

    def __init__(self, known: Mapping[str, tuple[list[int], str]]) -> None:
        self.known = known
        self.stamps: dict[str, list[int]] = {}
        """Size, mtime and ctime (ns) of each file that was not just changed, by absolute path."""

    def __call__(self, file: Path) -> str:
        """The sha256 of a file.

        Raises:
            ValueError: it cannot be read.
        """
        try:
            path, status = str(file.resolve()), file.stat()
        except OSError as error:
            raise ValueError(f"{file}: {error.strerror or error}") from None
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        if time.time_ns() - max(stamp[1:]) > SETTLED:
            self.stamps[path] = stamp
        before, digest = self.known.get(path, ([], ""))
        return digest if stamp == before and path in self.stamps else sha256(file)


def file_hashes(config: TextConfig, hashes: Hashes) -> dict[str, dict[str, str]]:
    """The sha256 of each file that the tokens depend on, by part (a split, tokenizer) and name.

    Raises:
        ValueError: a file does not exist, or belongs to two splits.
    """
    found: dict[str, dict[str, str]] = {}
    owner: dict[str, str] = {}
    for split, files in _split_files(config).items():
        found[split] = {str(file): hashes(file) for file in files}
        for path, digest in found[split].items():
            if owner.setdefault(digest, split) != split:
                raise ValueError(f"task.{split}_files: {path} is also among the {owner[digest]} files")
    if config.tokenizer not in ("bytes", "bpe"):
        found["tokenizer"] = {str(file): hashes(file) for file in tokenizer_files(config.tokenizer)}
    return found


def size_of_files(config: TextConfig) -> int:
    """The bytes of all files."""
    return sum(file.stat().st_size for files in _split_files(config).values() for file in files)


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


def file_documents(config: TextConfig, progress: Callable[[int], object]) -> dict[Split, Iterator[Part]]:
    """The documents of the settings' files by split; all in `train` unless each split has files.

    Args:
        progress: is called with the number of bytes that were read.

    Raises:
        ValueError: `text_field` has no effect; or, when the place is reached, a file is damaged.
    """
    files = _split_files(config)
    if config.text_field is not None and not any(is_json_lines(file) for some in files.values() for file in some):
        raise ValueError(f"task.text_field={config.text_field!r}: has no effect without a .jsonl file or a dataset")

    def read(some: Sequence[Path]) -> Iterator[Part]:
        texts = (text for file in some for text in texts_in(file, config.text_field, progress))
        return (part for text in texts for part in documents(text, config))

    return {split: read(some) for split, some in files.items() if some}


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


# JSON lines


def is_json_lines(file: Path) -> bool:
    """Whether the file name ends with .jsonl, perhaps compressed."""
    return any(file.name.endswith(f"{JSON_LINES}{packed}") for packed in COMPRESSED)


def texts_in(file: Path, field: str | None, progress: Callable[[int], object]) -> Iterator[Iterable[str]]:
    """The text of a file in parts; for JSON lines, the text in a field of each object.

    Raises:
        ValueError: JSON lines without a field name, or a line without text in that field; names file and line.
    """
    if not is_json_lines(file):
        yield stream_text(file, progress=progress)
        return
    if field is None:
        raise ValueError(
            f"{file}: JSON lines; expected the name of the field that holds the text, such as --task.text-field text"
        )
    for number, line in enumerate(stream_lines(file, progress), start=1):
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
