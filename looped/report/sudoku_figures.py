"""Figures of the block that solves Sudoku. Each function returns the content of an SVG file."""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from looped.report.figures import INK, SERIES, STYLE
from looped.report.svg_figures import plain_numbers, svg_bytes

PANELS = 6


def loops_by_class(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The loops of every puzzle, a line of dots for each class; a bar marks the median."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 0.6 + 0.27 * len(rows)))
        axes = figure.add_subplot()
        for y, row in enumerate(rows):
            spread = np.linspace(-0.25, 0.25, 7)[np.arange(len(row["loops"])) % 7]
            axes.plot(row["loops"], y + spread, "o", ms=2.5, mew=0, alpha=0.6, color=SERIES[0][0])
            axes.plot([row["median"]] * 2, [y - 0.4, y + 0.4], color=SERIES[1][0], lw=2)
        axes.set(xscale="log", xlabel="loops; the bar is the median", ylim=(len(rows) - 0.4, -0.6))
        axes.set_yticks(range(len(rows)), list(map(_name, rows)))
        axes.grid(visible=False, axis="y")
        plain_numbers(axes.xaxis, (1, 3))
        return svg_bytes(figure)


def candidates(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Candidates in all cells after each loop, a line for each puzzle; the more loops it takes, the brighter."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 3.6 + 0.06 * len(lines)))
        axes = figure.add_subplot()
        colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(lines)))
        for line, color in zip(sorted(lines, key=lambda line: len(line["left"])), colors, strict=True):
            axes.step(np.arange(len(line["left"])), line["left"], where="post", color=color, lw=1.2, label=_name(line))
        axes.set_xscale("symlog", linthresh=10)
        loops = max(len(line["left"]) for line in lines)
        axes.set(xlabel="loop", ylabel="candidates in all cells", xlim=(0, loops))
        axes.set_xticks([n for n in (0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if n < loops])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.minorticks_off()
        figure.legend(loc="outside lower left", ncols=3, fontsize=7.5, columnspacing=1.2)
        return svg_bytes(figure)


def beside_trained(rows: Sequence[Mapping[str, Any]], trained: Mapping[str, Sequence[tuple[int, float]]]) -> bytes:
    """Share of solved boards against loops: the circuit, and the scores of a trained model; a panel for each class."""
    shown = [row for row in rows if row["class"] in trained]
    with matplotlib.rc_context({**STYLE, "font.size": 9}):
        figure = Figure(figsize=(6.5, 0.5 + 1.5 * -(-len(shown) // 3)))
        panels = figure.subplots(-(-len(shown) // 3), 3, sharex=True, sharey=True, squeeze=False).ravel()
        most = max(max(row["loops"]) for row in shown)
        for panel, row in zip(panels, shown, strict=False):
            needed = [1, *row["loops"], most]
            share = [*np.linspace(0, 1, len(row["loops"]) + 1), 1]
            color, _, _ = SERIES[0]
            panel.step(needed, share, where="post", color=color, label="constructed")
            color, marker, dash = SERIES[1]
            panel.plot(*zip(*trained[row["class"]], strict=True), color=color, marker=marker, ls=dash, label="trained")
            panel.set_title(row["class"], loc="left", fontsize=9)
            panel.set(xscale="log", ylim=(-0.04, 1.04))
            plain_numbers(panel.xaxis, (1,))
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        figure.supxlabel("loops", fontsize=9)
        figure.supylabel("boards solved", fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
        return svg_bytes(figure)


def share_by_minutes(rows: Sequence[Mapping[str, Any]], loops: int) -> bytes:
    """Share of solved boards after so many loops against minutes of training, a line for each band."""
    shown = [row for row in rows if row["num_loops"] == loops and row["metric"] == "board"]
    bands = list(dict.fromkeys(row["group"] for row in shown))
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(bands)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4.2))
        axes = figure.add_subplot()
        for i, (band, color) in enumerate(zip(bands, colors, strict=True)):
            points = sorted((row["minutes"], row["value"]) for row in shown if row["group"] == band)
            axes.plot(*zip(*points, strict=True), color=color, marker=SERIES[i % len(SERIES)][1], ms=4, label=band)
        axes.set(
            xscale="log", xlabel="minutes of one thread", ylabel=f"boards solved, {loops} loops", ylim=(-0.03, 1.03)
        )
        plain_numbers(axes.xaxis)
        figure.legend(loc="outside lower left", ncols=5, columnspacing=1.2)
        return svg_bytes(figure)


def levels(depth: np.ndarray) -> bytes:
    """The number of decisions in force after each loop (loops + 1,)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 2.2))
        axes = figure.add_subplot()
        axes.fill_between(np.arange(len(depth)), depth, step="post", color=SERIES[0][0], lw=0, alpha=0.85)
        axes.set(xlabel="loop", ylabel="decisions in force", xlim=(0, len(depth) - 1))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        return svg_bytes(figure)


def grid(possible: np.ndarray, given: np.ndarray) -> bytes:
    """The candidates of every cell at six of the loops; digit k of a cell is a square at place k, as on paper.

    Args:
        possible: (loops + 1, cells, digits).
        given: (cells,) the clues, 0 = blank.
    """
    side = isqrt(len(given))
    box = isqrt(side)
    last = len(possible) - 1
    times = np.geomspace(1, max(last, 1), PANELS - 1).round().astype(int).tolist()
    shown = sorted({0, *times} & set(range(last + 1)))
    # 0 is excluded, 1 a candidate, 2 the only candidate, 3 a clue.
    state = possible * (1 + (possible.sum(-1, keepdims=True) == 1)) + possible * (given > 0)[:, None]
    colors = ListedColormap(["#ffffff", "#9fc9e6", "#0b79bf", "#4a545c"])
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(6.5, 4.6))
        for axes, loop in zip(figure.subplots(2, PANELS // 2).ravel(), shown, strict=False):
            squares = state[loop].reshape(side, side, box, box).transpose(0, 2, 1, 3).reshape(side * box, side * box)
            axes.imshow(squares, cmap=colors, vmin=0, vmax=3, interpolation="nearest")
            for at in range(side + 1):
                width = 1.0 if at % box == 0 else 0.3
                axes.axhline(at * box - 0.5, color=INK, lw=width)
                axes.axvline(at * box - 0.5, color=INK, lw=width)
            axes.set_title(f"loop {loop}" if loop else "before the loop", fontsize=9)
            axes.set_axis_off()
        return svg_bytes(figure)


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['file'].partition('.')[0]} {row['class']}"
