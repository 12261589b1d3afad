"""Files and folders that are written whole or not at all, also if the process is killed while it writes."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) whole or not at all.

    Raises:
        OSError: it cannot be written; names `path`, whose old content is intact.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`. On success it is synced to the disk and renamed to `path`.

    Raises:
        OSError: it cannot be written; names `path`, whose old content is intact.
    """
    temporary = temporary_name(path)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(temporary):  # otherwise another file is at fault
            error.filename = str(path)
            del error.filename2  # None would be printed
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`. On success its files are synced to the disk and it is renamed to `path`.

    Raises:
        OSError: it cannot be written, or `path` exists and is not empty.
    """
    temporary = temporary_name(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for part in (*temporary.iterdir(), temporary):
            sync(part)
        temporary.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """A new name beside `path`. Another writer, or a symbolic link in a folder from elsewhere, cannot have it.

    A process that is killed leaves such a file or folder. In a locked folder the next writer removes it
    (`locks.locked`).
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def open_to_append(path: Path) -> BinaryIO:
    """Open a file to append bytes. A symbolic link in its place, as in a folder from elsewhere, is not followed.

    Raises:
        OSError: it cannot be opened, or is a link.
    """
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


def sha256(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal digits.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: there is no such file, or no JSON object in it; names the file and the line.
    """
    return parse_object("\n".join(read_lines(path)), path)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        ValueError: there is no such file, or it is not UTF-8; names the file.
    """
    try:
        text = path.read_bytes().decode().removesuffix("\n")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from None
    return text.split("\n") if text else []


def parse_object(text: str, path: Path, line: int | None = None) -> dict[str, Any]:
    """The object in JSON text, which is the file `path` or its line `line`.

    Raises:
        ValueError: the text is not a JSON object; names file and line.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{line or error.lineno}: not JSON, is the file cut short? ({error.msg})") from None
    except (ValueError, RecursionError):  # an integer of thousands of digits, or thousands of brackets
        raise ValueError(f"{path}:{line or 1}: a number too long or nested too deeply; not a file of looped") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path}:{line or 1}: expected an object, not {type(data).__name__}")
    return data


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
