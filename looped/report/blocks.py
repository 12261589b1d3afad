"""The blocks of a report: sentences, tables, figures, and sections of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from looped.report.figures import RenderedFigure


@dataclass(frozen=True)
class Table:
    """Cells are plain text. Text after a line break in a cell is secondary."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure with its caption."""

    figure: RenderedFigure
    caption: str


@dataclass(frozen=True)
class Sentences:
    """Sentences as a list, or a single sentence as a paragraph."""

    items: Sequence[str]


@dataclass(frozen=True)
class Html:
    """Finished HTML with escaped texts, shown only on the HTML page."""

    html: str


Block = Table | Chart | Sentences | Html


@dataclass(frozen=True)
class Section:
    """A part of the report: a title, one sentence, then blocks and sections within it."""

    title: str
    takeaway: str
    """One sentence, computed from the data."""
    blocks: Sequence[Block] = ()
    parts: Sequence["Section"] = field(default_factory=tuple)
