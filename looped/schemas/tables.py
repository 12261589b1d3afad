"""A table of the paper or of another work: its runs, its claims and the published numbers."""

from typing import ClassVar

from looped.schemas.content import Content, InFile
from looped.strict import frozen


@frozen
class TableRow(Content):
    """The runs of a row in a table, by the names of their folders."""

    task: str
    model: str
    groups: tuple[str, ...] = ()
    """The groups that are scored; () is all."""
    paper: str | None
    published: tuple[str, ...]
    corrected: tuple[str, ...]


@frozen
class TableClaim(Content):
    """The claim that the runs `second` are better than the runs `first`."""

    task: str
    says: str
    groups: tuple[str, ...] = ()
    """The groups that are scored; () is all."""
    first: tuple[str, ...]
    second: tuple[str, ...]
    goal: tuple[str, ...] = ()
    """The runs that `second` should equal; () is none."""


@frozen
class PublishedTable(Content):
    """Published numbers without runs here."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@frozen
class RunTable(InFile):
    """A table of the paper or of another work. Its file is in the folder that contains the run folders."""

    file: ClassVar[str] = "table.json"
    title: str
    source: str = ""
    scale: str
    command: str
    rows: tuple[TableRow, ...]
    claims: tuple[TableClaim, ...]
    differs: tuple[str, ...]
    published: tuple[PublishedTable, ...] = ()
