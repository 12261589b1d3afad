"""Figures of the memories. Each function returns the content of an SVG file."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from looped.report.figures import INK, SERIES, STYLE
from looped.report.svg_figures import one_panel, plain_numbers, svg_bytes
from looped.report.theory_figures import Row

STYLES: dict[str, dict[str, Any]] = {
    kind: dict(zip(("color", "marker", "ls"), style, strict=True))
    for kind, style in zip(("wide", "deep", "modulated", "digits", "grouped"), SERIES, strict=False)
}
STYLES["deep"] |= {"markersize": 10, "markerfacecolor": "none"}  # often at the same place as modulated
DEPTH = "depth (layers, counted in every loop)"


def trade(rows: Sequence[Row], bits: int) -> bytes:
    """Numbers that depend on the labels against depth, for labels that have `bits` bits together."""

    def draw(axes: Axes) -> None:
        depth = np.array([1, max(row["depth"] for row in rows)])
        axes.plot(depth, bits / depth, ":", color=INK, alpha=0.6, label=f"numbers x depth = {bits:,}")
        _lines(axes, rows, "depth", "numbers")
        axes.set(xlabel=DEPTH, ylabel="numbers", ylim=(0.7, None))

    return one_panel(draw, columns=2)


def error_by_cost(rows: Sequence[Row]) -> bytes:
    """The error of a function against depth and numbers that each memory needs for it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.6))
        left, right = figure.subplots(1, 2, sharey=True)
        _lines(left, rows, "depth", "error")
        _lines(right, rows, "numbers", "error")
        left.set(xlabel=DEPTH, ylabel="error")
        right.set(xlabel="numbers that depend on the function")
        plain_numbers(left.yaxis)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=5, columnspacing=1.2)
        return svg_bytes(figure)


def _lines(axes: Axes, rows: Sequence[Row], x: str, y: str) -> None:
    for kind, style in STYLES.items():
        points = sorted((row[x], row[y]) for row in rows if row["kind"] == kind)
        axes.plot(*zip(*points, strict=True), **style, label=kind)
    axes.set(xscale="log", yscale="log")
    plain_numbers(axes.xaxis, (1,))
    plain_numbers(axes.yaxis, (1,))
