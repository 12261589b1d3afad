"""Printing of tables, and files that the user names."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import rich.table
from rich.console import Console, JustifyMethod
from rich.text import Text

from looped.files import replacing
from looped.printing import printable


class Table(rich.table.Table):
    """A table that shows its texts as they are: no markup, no control characters."""

    def __init__(self, *headers: str, title: str = "", caption: str = "") -> None:
        super().__init__(title=_plain(title) if title else None, caption=_plain(caption) if caption else None)
        for header in headers:
            self.add_column(header)

    def add_column(self, header: str, *, justify: JustifyMethod = "left") -> None:  # type: ignore[override]
        super().add_column(_plain(header), justify=justify)

    def add_row(self, *cells: str) -> None:  # type: ignore[override]
        super().add_row(*map(_plain, cells))


def _plain(text: str) -> Text:
    return Text(printable(text, keep="\n"))


def say(text: object) -> None:
    """Print a line without control characters."""
    print(printable(str(text)))


def print_text(text: str, end: str = "") -> None:
    """Print what a model wrote, at once. A terminal gets no control characters but tabs and line feeds."""
    print(printable(text, keep="\n\t") if sys.stdout.isatty() else text, end=end, flush=True)


def print_table(table: Table) -> None:
    console = Console()
    # If the output is not a terminal, rows are not wrapped.
    (console if console.is_terminal else Console(width=200)).print(table)


@contextlib.contextmanager
def output(path: Path | None) -> Iterator[Callable[[str], object]]:
    """A function that writes the text of a file, or prints it without a path.

    The file is opened first, because work whose result cannot be written should not begin. It is written whole or not
    at all. A device or a pipe is written directly, because it must not be replaced by a file.
    """
    if path is None:
        yield print_text
    elif path.exists() and not path.is_file() and not path.is_dir():
        yield functools.partial(_write_directly, path)
    else:
        with replacing(path) as temporary:
            yield lambda text: temporary.write_bytes(text.encode())


def _write_directly(path: Path, text: str) -> None:
    try:
        path.write_bytes(text.encode())
    except OSError as error:
        error.filename = str(path)  # an error of a full device has no name
        raise
