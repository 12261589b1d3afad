"""Figures of the computers in one looped layer. Each function returns the content of an SVG file."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from looped.report.figures import SERIES, STYLE
from looped.report.theory_figures import svg_bytes

MOST_COLUMNS = 1500
"""Of the picture of a memory; longer runs show every second instruction, every third, and so on."""
MOST_NAMES = 24


def memory(cells: np.ndarray, names: Sequence[str], counters: Sequence[int], loops: int) -> bytes:
    """All cells over the instructions (instructions, cells), and the counter before each of them.

    Args:
        loops: for one instruction.
    """
    every = -(-len(cells) // MOST_COLUMNS)
    last = len(cells) * loops
    with matplotlib.rc_context({**STYLE, "font.size": 8, "axes.labelsize": 8, "axes.grid": False}):
        figure = Figure(figsize=(6.5, 1.6 + min(3.4, 0.14 * len(names) + 0.8)))
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(min(3.0, 0.1 * len(names) + 0.8), 1))
        largest = max(1, int(np.abs(cells).max()))
        image = top.imshow(
            cells[::every].T, aspect="auto", interpolation="nearest", cmap="RdBu_r",
            norm=SymLogNorm(1, vmin=-largest, vmax=largest), extent=(0, last, len(names) - 0.5, -0.5),
        )  # fmt: skip
        step = -(-len(names) // MOST_NAMES)
        top.yaxis.set_major_locator(FixedLocator(range(0, len(names), step)))
        top.set_yticklabels(names[::step], fontsize=6)
        top.set_ylabel("cell")
        figure.colorbar(image, ax=top, label="number in the cell", pad=0.01)
        bottom.step(np.arange(len(counters)) * loops, counters, where="post", color=SERIES[0][0], lw=0.8)
        bottom.invert_yaxis()
        bottom.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        bottom.set(xlabel="loop", ylabel="counter", xlim=(0, last))
        return svg_bytes(figure)
