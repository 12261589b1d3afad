"""A figure of answers that are generated several times and verified."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from looped.report.figures import SERIES, STYLE
from looped.report.svg_figures import plain_numbers, svg_bytes


def solved_by_attempts(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Share of solved problems against attempts, the mean over runs, a line for each number of loops (an SVG file)."""
    loops = sorted({row["num_loops"] for row in rows})
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(loops)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4))
        axes = figure.add_subplot()
        for i, (count, color) in enumerate(zip(loops, colors, strict=True)):
            mine = [row for row in rows if row["num_loops"] == count]
            attempts = sorted({row["attempts"] for row in mine})
            shares = [fmean(row["value"] for row in mine if row["attempts"] == most) for most in attempts]
            axes.plot(attempts, shares, color=color, marker=SERIES[i % len(SERIES)][1], ms=4, label=f"{count} loops")
        axes.set(xscale="log", xlabel="attempts", ylabel="problems solved", ylim=(-0.03, 1.03))
        plain_numbers(axes.xaxis)
        figure.legend(loc="outside lower left", ncols=5, columnspacing=1.2)
        return svg_bytes(figure)
