"""Figures of graph algorithms loop by loop, and of the largest weights. Each function returns an SVG file."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from looped.printing import printable
from looped.report.figures import INK, SERIES, STYLE
from looped.report.svg_figures import svg_bytes

COLORS = ("#dfe3e6", SERIES[1][0], SERIES[0][0], SERIES[2][0])
STAGES = {
    "bfs": ("not reached", "reached"),
    "dijkstra": ("not reached", "reached", "done"),
    "bellman-ford": ("not reached", "reached", "distance final"),
    "dfs": ("untouched", "on the stack", "finished"),
    "scc": ("untouched", "on the stack", "finished", "knows its component"),
}
"""The stages of a node in each algorithm, in the order of `COLORS`."""


def timeline(names: Sequence[str], stages: np.ndarray, labels: Sequence[str]) -> bytes:
    """The stage of every node (row) after every loop (column); `stages` is (nodes, loops)."""
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(6.5, 0.19 * len(names) + 1.1))
        axes = figure.add_subplot()
        for row, line in enumerate(stages.astype(int)):
            starts = [0, *np.flatnonzero(np.diff(line)) + 1, len(line)]
            runs = [(start + 0.5, end - start) for start, end in itertools.pairwise(starts)]
            axes.broken_barh(runs, (row - 0.44, 0.88), facecolors=[COLORS[line[start]] for start in starts[:-1]])
        axes.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="loop", xlim=(0.5, stages.shape[1] + 0.5), ylim=(len(names) - 0.5, -0.5))
        _legend(figure, labels, "s")
        return svg_bytes(figure)


def loops(
    names: Sequence[str], places: np.ndarray, edges: Sequence[tuple[int, int]], stages: np.ndarray,
    labels: Sequence[str],
) -> bytes:  # fmt: skip
    """The drawn graph after six loops, with a colour for the stage of each node; `places` is (nodes, 2)."""
    count = stages.shape[1]
    shown = sorted({round(x) for x in np.linspace(2, count, 6)} if count > 6 else range(1, count + 1))
    rows = -(-len(shown) // 3)
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "axes.titlesize": 9}):
        figure = Figure(figsize=(6.5, 2.2 * rows + 0.3))
        panels = figure.subplots(rows, 3, squeeze=False).ravel()
        for panel, loop in zip(panels, shown, strict=False):
            panel.set_title(f"after loop {loop}", loc="left")
            _draw(panel, names, places, edges, stages[:, loop - 1])
        for panel in panels:
            panel.set_axis_off()
        _legend(figure, labels, "o")
        return svg_bytes(figure)


def limits(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The largest exact weight against the number of nodes, for each algorithm and arithmetic."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.6))
        axes = figure.add_subplot()
        kinds = list(dict.fromkeys((row["algorithm"], row["dtype"]) for row in rows))
        for (algorithm, dtype), (color, marker, dash) in zip(kinds, SERIES, strict=False):
            points = [
                (row["nodes"], row["weight"]) for row in rows if (row["algorithm"], row["dtype"]) == (algorithm, dtype)
            ]
            nodes, weights = zip(*[point for point in points if point[1]], strict=True)
            axes.plot(nodes, weights, color=color, marker=marker, ls=dash, label=f"{algorithm}, {dtype}")
        axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel="largest exact weight")
        shown = sorted({row["nodes"] for row in rows})[::3]
        axes.xaxis.set(major_locator=FixedLocator(shown), major_formatter=FuncFormatter(lambda x, _: f"{x:,.0f}"))
        powers = FuncFormatter(lambda y, _: f"10^{np.log10(y):.0f}")
        axes.yaxis.set(major_locator=FixedLocator([10.0**k for k in range(0, 16, 3)]), major_formatter=powers)
        axes.minorticks_off()
        figure.legend(loc="outside lower left", ncols=2, columnspacing=1.2)
        return svg_bytes(figure)


def _draw(
    axes: Axes, names: Sequence[str], places: np.ndarray, edges: Sequence[tuple[int, int]], stages: np.ndarray
) -> None:
    lines = [(places[u], places[v]) for u, v in edges if u != v]
    axes.add_collection(LineCollection(lines, colors=INK, alpha=0.25, lw=0.7, zorder=0))
    axes.scatter(*places.T, s=95, c=[COLORS[stage] for stage in stages.astype(int)], ec=INK, lw=0.4)
    for place, name, stage in zip(places, names, stages.astype(int), strict=True):
        inside = max(map(len, names)) < 3
        axes.annotate(
            _short(name), place, (0, 0 if inside else 5), textcoords="offset points", ha="center",
            va="center_baseline" if inside else "bottom", fontsize=6.5 if inside else 5.5,
            color="white" if inside and stage else INK,
        )  # fmt: skip
    axes.margins(0.12)


def _legend(figure: Figure, labels: Sequence[str], marker: str) -> None:
    handles = [
        Line2D([], [], ls="", marker=marker, ms=8, mfc=color, mec=INK, mew=0.4, label=label)
        for color, label in zip(COLORS, labels, strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), columnspacing=1.2, handlelength=1.2)


def _short(name: str) -> str:
    text = printable(name)
    return text if len(text) <= 14 else f"{text[:13]}…"
