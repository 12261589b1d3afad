"""Reading of files that other people made: text, plain or compressed, checked to its end and bounded in size."""

import codecs
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

LIMIT = "LOOPED_MAX_TEXT"
"""Environment variable: the largest number of bytes of text that is read from one file."""
MIB = 1 << 20
CHUNK = MIB  # bytes that are decoded at a time
FEED = 1 << 10  # compressed bytes that are decompressed at a time, to at most 32 MiB
RATIO = 100  # Text is compressed to a tenth. Above 256 MiB, what is compressed better than this is no text.
LINE = 128 * MIB
WINDOW = 128 * MIB  # memory of a decompressor; `xz -9` needs 65 MiB, `zstd --ultra -22` 128 MiB


class Compression(NamedTuple):
    """A compressed format. A file holds one or more frames (streams, members), and may pad them with zeros."""

    is_start: Callable[[bytes], bool]
    """Whether a file of this format begins so."""
    frame: Callable[[], Any]
    """A new decompressor of one frame."""
    padding: int
    """The number of zeros after a frame is a multiple of this; 0 allows none."""


def _is_zstandard(start: bytes) -> bool:
    skippable = start[:1] and start[0] >> 4 == 5 and start[1:4] == b"*M\x18"  # a frame without text, as pzstd writes
    return start.startswith(b"\x28\xb5\x2f\xfd") or bool(skippable)


COMPRESSIONS = {
    ".xz": Compression(
        lambda start: start.startswith(b"\xfd7zXZ\0"),
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2 * WINDOW),
        4,
    ),
    ".gz": Compression(lambda start: start.startswith(b"\x1f\x8b"), lambda: zlib.decompressobj(31), 1),
    ".zst": Compression(_is_zstandard, lambda: zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj(), 0),
}


def read_text(path: Path) -> str:
    """The text of a file. Compression by xz, gzip or Zstandard is detected from the content.

    Raises:
        ValueError: one line, for a file that cannot be read, is damaged, empty, not UTF-8, or too large.
    """
    return "".join(stream_text(path, most=1024 * MIB))


def stream_text(path: Path, most: int | None = None, progress: Callable[[int], object] | None = None) -> Iterator[str]:
    """The text of a file in parts of about a million characters. A byte order mark at the beginning is left out.

    Args:
        most: the largest number of bytes of text; None is 256 MiB, or 100 times the size of the file. The environment
            variable LOOPED_MAX_TEXT replaces both limits.
        progress: called with the number of bytes of the file that each part was read from.

    Raises:
        ValueError: as `read_text`, when the place is reached.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    position, first, blank = 0, True, True
    for content in chain(_chunks(path, most, progress), [b""]):
        held = len(decoder.getstate()[0])
        try:
            text = decoder.decode(content, final=not content)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text (byte {position - held + error.start})") from None
        position += len(content)
        text = text.removeprefix("\ufeff") if first else text
        first, blank = False, blank and not text.strip()
        if text:
            yield text
    if blank:
        raise ValueError(f"{path}: empty file")


def stream_lines(path: Path, progress: Callable[[int], object] | None = None) -> Iterator[str]:
    """The lines of a file without their ends. A line ends at a line feed and nowhere else.

    Raises:
        ValueError: as `stream_text`, and for a line of more than 128 MiB (or LOOPED_MAX_TEXT).
    """
    parts: list[str] = []
    for text in stream_text(path, progress=progress):
        before, *lines = text.split("\n")
        parts.append(before)
        if sum(map(len, parts)) > _limit(LINE):
            raise ValueError(f"{path}: a line of more than {_limit(LINE)} characters; {LIMIT}=N allows N")
        if lines:
            yield "".join(parts)
            yield from lines[:-1]
            parts = [lines[-1]]
    yield "".join(parts)


def _limit(default: int) -> int:
    value = os.environ.get(LIMIT, str(default))
    if not (value.isascii() and value.isdecimal() and len(value) < 20 and int(value)):
        raise ValueError(f"{LIMIT}={value!r}: expected a number of bytes")
    return int(value)


def _chunks(path: Path, most: int | None, progress: Callable[[int], object] | None) -> Iterator[bytes]:
    """The decompressed content of a file in parts of at least CHUNK bytes, except the last."""
    try:
        with path.open("rb") as file:
            limit = _limit(min(max(256 * MIB, RATIO * os.fstat(file.fileno()).st_size), most or 1 << 62))
            total, place, part = 0, 0, bytearray()
            for piece in _decompressed(file, path.suffix):
                total += len(piece)
                if total > limit:
                    raise ValueError(
                        f"{path}: more than {limit} bytes of text; if you trust the file, {LIMIT}=N reads up to N bytes"
                    )
                part += piece
                if len(part) >= CHUNK:
                    if progress:
                        progress(file.tell() - place)
                    place = file.tell()
                    yield bytes(part)
                    part.clear()
            yield bytes(part)
    except (EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
        if "memory" in str(error).lower():
            raise ValueError(f"{path}: decompressing it needs more than {WINDOW // MIB} MiB of memory") from None
        raise ValueError(f"{path}: the compressed file is damaged or cut short") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None


def _decompressed(file: Any, suffix: str) -> Iterator[bytes]:
    """The content of a file, whose name ends with `suffix`.

    Raises:
        EOFError: the last frame is cut short, or the file is not compressed though its name says so.
        LZMAError, zlib.error, ZstdError: a frame is damaged, or it is followed by something else.
    """
    start = file.peek(8)
    kind = next((kind for kind in COMPRESSIONS.values() if kind.is_start(start)), None)
    if kind is None:
        if start and suffix in COMPRESSIONS:
            raise EOFError
        while content := file.read(CHUNK):
            yield content
        return
    frame, zeros, rest = kind.frame(), 0, b""
    while data := rest or file.read(FEED):
        rest = b""
        if frame is None:
            content = data.lstrip(b"\0") if kind.padding else data
            zeros += len(data) - len(content)
            if not content:
                continue
            _check_padding(zeros, kind)
            frame, zeros, data = kind.frame(), 0, content
        yield frame.decompress(data)
        if frame.eof:
            rest, frame = frame.unused_data, None
    _check_padding(zeros, kind)
    if frame is not None:
        raise EOFError


def _check_padding(zeros: int, kind: Compression) -> None:
    if zeros and zeros % kind.padding:
        raise EOFError
