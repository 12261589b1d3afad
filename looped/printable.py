"""Text from files and users, made harmless for terminals and spreadsheets."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def printable(text: str) -> str:
    """`text` with every character that is not printable as an escape, such as \\x1b.

    Control characters could change what a terminal shows, and marks of writing direction the order of letters.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a header and one line for each row. Keys that are not in `columns` are left out."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([[_no_formula(column) for column in columns]])
    writer.writerows([_no_formula(row.get(column, "")) for column in columns] for row in rows)
    return buffer.getvalue()


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
