"""The works that the library reproduces: tables of runs, and the published numbers beside them."""

from dataclasses import dataclass

Words = tuple[str, ...]
"""A recipe and its options: the arguments of `looped train`."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model on one problem."""

    task: str
    """The heading under which the row stands."""
    model: str
    words: Words
    """The run on this machine."""
    loops: tuple[int, ...] = ()
    """Loop counts for the evaluation; () is the evaluation's default."""
    groups: tuple[str, ...] = ()
    """The groups of the task that are scored; () is all."""
    paper: str | None = None
    """The published number, as text; a fraction where the metric is one."""
    published: Words | None = None
    """The run with the published settings."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`second` is better than `first`."""

    task: str
    says: str
    first: Words
    second: Words
    goal: Words | None = None
    """A model that `second` should equal. The report then says how much of the gap from `first` to it is covered."""
    groups: tuple[str, ...] = ()
    """The groups of the task that are scored; () is all."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A table of published numbers without runs here."""

    caption: str
    """Names the source."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Work:
    """The runs that show the claims of one publication."""

    title: str
    source: str
    """Authors, title and year."""
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    differs: tuple[str, ...]
    """Differences from the publication."""
    published: tuple[Published, ...] = ()
    examples: int | None = None
    """Test examples of each group; None is the default of `looped evaluate`."""
