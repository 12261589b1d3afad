"""Printing of tables, and files that the user names."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from looped.files import replacing


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
        yield lambda text: print(text, end="")
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
