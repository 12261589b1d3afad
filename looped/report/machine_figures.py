"""Figures of the computers in one looped layer. Each function returns the content of an SVG file."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from looped.report.figures import SERIES, STYLE
from looped.report.svg_figures import svg_bytes

MOST_NAMES = 24


def memory(cells: np.ndarray, names: Sequence[str], counters: Sequence[int], loops: int) -> bytes:
    """All cells over time (times, cells), and the counter before each instruction, which takes `loops` loops."""
    last = len(counters) * loops
    with matplotlib.rc_context({**STYLE, "font.size": 8, "axes.labelsize": 8, "axes.grid": False}):
        figure = Figure(figsize=(6.5, 1.6 + min(3.4, 0.14 * len(names) + 0.8)))
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(min(3.0, 0.1 * len(names) + 0.8), 1))
        largest = max(1, int(np.abs(cells).max()))
        image = top.imshow(
            cells.T, aspect="auto", interpolation="nearest", cmap="RdBu_r",
            norm=SymLogNorm(1, vmin=-largest, vmax=largest), extent=(0, last, len(names) - 0.5, -0.5),
        )  # fmt: skip
        step = -(-len(names) // MOST_NAMES)
        top.yaxis.set_major_locator(FixedLocator(range(0, len(names), step)))
        top.set_yticklabels(names[::step], fontsize=6)
        top.set_ylabel("cell")
        bar = figure.colorbar(image, ax=top, label="number in the cell", pad=0.01)
        ticks = [10**k for k in range(0, len(str(largest)), max(1, len(str(largest)) // 4))]
        bar.ax.yaxis.set_major_locator(FixedLocator([*(-t for t in ticks), 0, *ticks]))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        bottom.step(np.arange(len(counters)) * loops, counters, where="post", color=SERIES[0][0], lw=0.8)
        bottom.invert_yaxis()
        bottom.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        bottom.set(xlabel="loop", ylabel="counter", xlim=(0, last))
        return svg_bytes(figure)


def pointers(rows: Sequence[Mapping[str, Any]], limits: Sequence[Mapping[str, Any]]) -> bytes:
    """The inverse temperature that each encoding needs, and the largest number of positions in each format."""
    names = list(dict.fromkeys(row["encoding"] for row in rows))
    formats = [name for name in limits[0] if name != "encoding"]
    with matplotlib.rc_context({**STYLE, "font.size": 9, "axes.labelsize": 9}):
        figure = Figure(figsize=(6.5, 3.4))
        left, right = figure.subplots(1, 2)
        for name, (color, marker, dash) in zip(names, SERIES, strict=False):
            points = [(row["n"], row["inverse_temperature"]) for row in rows if row["encoding"] == name]
            left.plot(*zip(*points, strict=True), color=color, marker=marker, ls=dash, label=name)
            (limit,) = (row for row in limits if row["encoding"] == name)
            right.plot(formats, [limit[kind] for kind in formats], color=color, marker=marker, ls=dash)
        left.set(xscale="log", yscale="log", xlabel="positions", ylabel="inverse temperature needed")
        right.set(yscale="log", ylabel="largest number of positions (of 4,096)")
        right.margins(x=0.15)
        powers = FixedLocator([4**k for k in range(1, 7)])
        for axis, locator in ((left.xaxis, powers), (left.yaxis, LogLocator()), (right.yaxis, powers)):
            axis.set_major_locator(locator)
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axis.set_minor_locator(NullLocator())
        figure.legend(loc="outside lower left", ncols=4)
        return svg_bytes(figure)
