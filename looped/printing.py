"""Text from files and users, made harmless for terminals, Markdown and spreadsheets."""

import contextlib
import csv
import io
import os
import re
import signal
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Controls, marks that turn the direction of text, halves of characters, and the two separators of lines.
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class Messages:
    """Standard error (None if closed), for which no work ends: after a failed write, messages are dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115  open until the process ends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:  # a full disk, or a pipe without a reader
            with contextlib.suppress(OSError), open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), self._stream.fileno())
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def printable(text: str, keep: str = "") -> str:
    """The text with control characters as escapes such as \\x1b. On a terminal they could do anything.

    Args:
        keep: characters that stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c) not in HIDDEN else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """The text as one line for a terminal."""
    return printable(" ".join(text.split()))


def escape_markdown(text: str) -> str:
    """`text` on one line, with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", printable(text.replace("\n", " ")))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a header and one line for each row. Keys that are not in `columns` are left out."""
    return _line(columns) + "".join(_line([row.get(column, "") for column in columns]) for row in rows)


def _line(cells: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(map(_no_formula, cells))  # its line ends, \r\n, make it quote both characters in cells
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _no_formula(cell: Any) -> Any:
    """The cell; text that a spreadsheet would run as a formula gets an apostrophe in front. Numbers stay numbers."""
    if not isinstance(cell, str) or not cell.lstrip().startswith(("=", "+", "-", "@")) or _numbers(cell):
        return cell
    return f"'{cell}"


def _numbers(text: str) -> bool:
    try:
        return bool([float(word) for word in text.split()])
    except ValueError:
        return False


def gigabytes(size: int | float) -> str:
    """A number of bytes as text."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def duration(seconds: float) -> str:
    """A time as text."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def ending(code: int | None) -> str:
    """How a process with this exit code ended too early, in words; a negative code is the signal that killed it."""
    if code is not None and code < 0:
        return f"was killed by signal {-code} ({signal.Signals(-code).name}), perhaps for lack of memory"
    return f"ended with code {code or 0}, perhaps for lack of memory"
