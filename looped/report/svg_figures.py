"""Figures of `looped theory` as SVG files."""

import io
import warnings
from collections.abc import Callable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from looped.report.figures import INK, STYLE


def one_panel(draw: Callable[[Axes], None], *, columns: int) -> bytes:
    """A figure with one panel and its legend below, in so many columns."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.6))
        axes = figure.add_subplot()
        draw(axes)
        figure.legend(loc="outside lower left", ncols=columns, columnspacing=1.2)
        return svg_bytes(figure)


def plain_numbers(axis: Axis, steps: Sequence[int] = (1, 2, 5)) -> None:
    """Ticks of a logarithmic axis as plain numbers instead of powers."""
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def svg_bytes(figure: Figure) -> bytes:
    """A figure as a file without date or version, the same for the same content."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return buffer.getvalue().replace(INK.encode(), b"#1b2127")
