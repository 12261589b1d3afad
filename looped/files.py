"""Files that are written whole or not at all, also if the process is killed while it writes."""

import contextlib
import gzip
import json
import lzma
import os
import secrets
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard


def read_text(path: Path) -> str:
    """The text of a file. Compression by xz, gzip or Zstandard is detected from the content.

    Raises:
        ValueError: one line, for a file that cannot be read, is damaged, empty, or not UTF-8.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\xfd7zXZ\0"):
            content = lzma.decompress(content)
        elif content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        elif content.startswith(b"\x28\xb5\x2f\xfd"):
            with zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True) as reader:
                content = reader.read()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError):
        raise ValueError(f"{path}: the compressed file is damaged or cut short") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    if not text.strip():
        raise ValueError(f"{path}: empty file")
    return text


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

    Its name is new and random. Another writer, or a symbolic link in a folder from elsewhere, cannot be in its place.

    Raises:
        OSError: it cannot be written; names `path`, whose old content is intact.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


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


def write_json(path: Path, data: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(data, indent=2) + "\n")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
