"""Figures of the memories. Each function returns the content of an SVG file."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from looped.report.figures import INK, SERIES
from looped.report.theory_figures import Row, plain_numbers, svg

STYLES = {
    kind: dict(zip(("color", "marker", "ls"), style, strict=True))
    for kind, style in zip(("wide", "deep", "modulated", "digits", "grouped"), SERIES, strict=False)
}


def trade(rows: Sequence[Row], bits: int) -> bytes:
    """Numbers that depend on the labels against depth, at equal labels of together `bits` bits."""

    def draw(axes: Axes) -> None:
        depth = np.array([1, max(row["depth"] for row in rows)])
        axes.plot(depth, bits / depth, ":", color=INK, alpha=0.6, label=f"numbers x depth = {bits:,}")
        for kind, style in STYLES.items():
            points = sorted((row["depth"], row["numbers"]) for row in rows if row["kind"] == kind)
            axes.plot(*zip(*points, strict=True), **style, label=kind)
        axes.set(xscale="log", yscale="log", xlabel="depth (layers, counted in every loop)", ylabel="numbers")
        axes.set_ylim(bottom=0.7)
        plain_numbers(axes.xaxis, (1,))
        plain_numbers(axes.yaxis, (1,))

    return svg(draw, columns=2)


def error_by_depth(rows: Sequence[Row]) -> bytes:
    """The error of a function against the depth that each memory needs for it."""

    def draw(axes: Axes) -> None:
        for kind, style in STYLES.items():
            points = sorted((row["depth"], row["error"]) for row in rows if row["kind"] == kind)
            axes.plot(*zip(*points, strict=True), **style, label=kind)
        axes.set(xscale="log", yscale="log", xlabel="depth (layers, counted in every loop)", ylabel="error")
        plain_numbers(axes.xaxis, (1,))
        plain_numbers(axes.yaxis)

    return svg(draw, columns=3)
