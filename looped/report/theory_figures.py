"""Figures of the theory, in the style of the report. Each function returns the content of an SVG file."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from looped.report.figures import INK, SERIES, STYLE
from looped.report.svg_figures import one_panel, plain_numbers, svg_bytes

Row = Mapping[str, Any]
# The same colour and dash for a kind of memory, or an arithmetic, in all figures.
STYLES = {
    name: dict(zip(("color", "marker", "ls"), style, strict=True))
    for names in (("plain", "tuned", "radix", "modulated"), ("exact", "float64", "float32"))
    for name, style in zip(names, SERIES, strict=False)
}


def error_by_loops(rows: Sequence[Row]) -> bytes:
    """Measured error against loops for every kind, with both bounds for plain looping."""

    def draw(axes: Axes) -> None:
        plain = [row for row in rows if "bound" in row and row["kind"] == "plain"]
        for key, label, dash in (("theorem", "Theorem 3.6 (leading terms)", "--"), ("bound", "bound here", ":")):
            if plain:
                axes.plot([r["loops"] for r in plain], [r[key] for r in plain], dash, color=INK, alpha=0.6, label=label)
        for kind in dict.fromkeys(row["kind"] for row in rows):
            points = [(row["loops"], row["error"]) for row in rows if row["kind"] == kind]
            axes.plot(*zip(*points, strict=True), **STYLES[kind], label=kind)
        axes.set(xscale="log", yscale="log", xlabel="loops", ylabel="error")
        plain_numbers(axes.xaxis, (1,))
        plain_numbers(axes.yaxis)

    return one_panel(draw, columns=2)


def precision(rows: Sequence[Row]) -> bytes:
    """Share of labels recalled correctly against their number, in each arithmetic."""

    def draw(axes: Axes) -> None:
        for dtype in ("exact", "float64", "float32"):
            points = [(row["count"], row[dtype]) for row in rows]
            axes.plot(*zip(*points, strict=True), **STYLES[dtype], label=dtype)
        axes.set(xscale="log", xlabel="labels in the code", ylabel="labels recalled correctly", ylim=(-0.03, 1.03))
        plain_numbers(axes.xaxis)

    return one_panel(draw, columns=3)


def stall(rows: Sequence[Row]) -> bytes:
    """Error against the roughness of the function, at a fixed number of cells."""

    def draw(axes: Axes) -> None:
        for kind in ("plain", "tuned", "radix", "modulated"):
            axes.plot([r["roughness"] for r in rows], [r[kind] for r in rows], **STYLES[kind], label=kind)
        axes.set(yscale="log", xlabel="roughness of the function", ylabel="error")
        plain_numbers(axes.yaxis)

    return one_panel(draw, columns=2)


def life(names: Sequence[str], states: np.ndarray, borders: Sequence[int]) -> bytes:
    """Every register of one token against the loop. Dotted lines mark the start of the second and third stage.

    `states` is (loops + 1, registers). The scale of loops is linear up to the last border, so the short first stages
    are visible beside the long last one.
    """
    columns = 3
    rows = -(-len(names) // columns)
    height = 1.0 * rows + 0.4
    style: dict[Any, Any] = {**STYLE, "font.size": 8, "axes.titlesize": 8, "lines.linewidth": 1.1}
    style["figure.constrained_layout.use"] = False  # slow with many panels
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(6.5, height))
        figure.subplots_adjust(0.06, 0.5 / height, 0.98, 1 - 0.2 / height, wspace=0.25, hspace=0.5)
        panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for panel, name, values in zip(panels, names, states.T, strict=False):
            panel.step(np.arange(len(values)), values, where="post", color=SERIES[0][0])
            panel.set_title(name, loc="left")
            panel.set_xscale("symlog", linthresh=max(2 * borders[-1], 2))
            panel.xaxis.set_major_locator(FixedLocator([0, borders[-1], len(values) - 1]))
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_major_locator(MaxNLocator(3, integer=bool((values == values.round()).all())))
            for border in borders:
                panel.axvline(border, color=INK, ls=":", lw=0.8, alpha=0.6)
        for panel in panels[len(names) :]:
            panel.set_axis_off()
        figure.supxlabel("loop", fontsize=8)
        return svg_bytes(figure)
