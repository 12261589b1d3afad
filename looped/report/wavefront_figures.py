"""The table of edit distance while a looped block fills it. Returns the content of an SVG file."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from looped.report.figures import SERIES, STYLE
from looped.report.svg_figures import svg_bytes

COLORS = ListedColormap(["#ffffff", "#dbe9f4", SERIES[0][0]])  # empty, computed earlier, computed in this loop


def wavefront(first: str, second: str, cells: Sequence[tuple[int, int, int, float]], loops: Sequence[int]) -> bytes:
    """A panel for each of `loops` with the cells (loop, i, j, value) known by then. Those of the loop are dark."""
    rows, columns = len(first) + 1, len(second) + 1
    across = min(3, len(loops))
    down = -(-len(loops) // across)
    with matplotlib.rc_context({**STYLE, "font.size": 7, "axes.titlesize": 8, "axes.grid": False}):
        width = 2.2 * across
        figure = Figure(figsize=(width, down * (2.2 * rows / columns + 0.35)))
        for panel, loop in zip(figure.subplots(down, across, squeeze=False).ravel(), loops, strict=False):
            kind = np.zeros((rows, columns))
            for at, i, j, value in cells:
                if at <= loop:
                    kind[i, j] = 2 if at == loop else 1
                    color = "white" if at == loop else "black"
                    panel.text(j, i, f"{value:g}", ha="center", va="center", color=color)
            panel.imshow(kind, cmap=COLORS, vmin=0, vmax=2, aspect="equal")
            panel.set_xticks(range(columns), ["", *second])
            panel.set_yticks(range(rows), ["", *first])
            panel.tick_params(length=0, labeltop=True, labelbottom=False)
            panel.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
            panel.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
            panel.grid(which="minor", color="#c9d2d9", alpha=1, lw=0.5)
            panel.tick_params(which="minor", length=0)
            panel.spines[:].set_visible(False)
            panel.set_xlabel(f"after loop {loop}")
        return svg_bytes(figure)
