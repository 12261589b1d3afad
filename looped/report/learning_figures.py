"""Figures of the learners in context, as SVG files in the style of the report."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from looped.report.figures import INK, SERIES, STYLE
from looped.report.svg_figures import svg_bytes

Row = Mapping[str, Any]


def eigenvalues(rows: Sequence[Row]) -> bytes:
    """Eigenvalues of the learned A in the complex plane, one panel for each n, one colour for each number of loops.

    Rings are the exact optimum among normal matrices, dots are what training found.
    """
    sizes = list(dict.fromkeys(row["n"] for row in rows))
    loops = sorted({row["loops"] for row in rows})
    colours = {
        count: matplotlib.colormaps["viridis"](0.9 * i / max(1, len(loops) - 1)) for i, count in enumerate(loops)
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * len(sizes) + 1, 3.6))
        panels = figure.subplots(1, len(sizes), sharex=True, sharey=True, squeeze=False)[0]
        for axes, n in zip(panels, sizes, strict=True):
            axes.axhline(0, color=INK, lw=0.7, alpha=0.5)
            for row in (row for row in rows if row["n"] == n):
                colour = colours[row["loops"]]
                if "best_normal" in row:
                    points = zip(*row["best_normal"]["eigenvalues"], strict=True)
                    axes.plot(*points, "o", ms=9, mfc="none", mec=colour, mew=1.2)
                if "trained" in row:
                    axes.plot(*zip(*row["trained"]["free"]["eigenvalues"], strict=True), "o", ms=4, color=colour)
            axes.set(title=f"n = {n}", xlabel="real part")
        panels[0].set_ylabel("imaginary part")
        for count, colour in colours.items():
            panels[-1].plot([], [], "o", ms=5, color=colour, label=f"{count} loop{'s' * (count > 1)}")
        panels[-1].plot([], [], "o", ms=9, mfc="none", mec=INK, label="best, exactly")
        if any("trained" in row for row in rows):
            panels[-1].plot([], [], "o", ms=4, color=INK, label="trained")
        figure.legend(loc="outside right upper")
        return svg_bytes(figure)


def descent(rows: Sequence[Row]) -> bytes:
    """Relative error of the weights against loops, with the bounds as thin lines."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.6))
        axes = figure.add_subplot()
        loops = [row["loops"] for row in rows]
        for kind, (colour, marker, dash) in zip(("tied", "momentum", "Chebyshev"), SERIES, strict=False):
            label = {"tied": "tied, one step size", "Chebyshev": "Chebyshev steps as eta(t)"}.get(kind, kind)
            axes.plot(loops, [row[kind] for row in rows], color=colour, marker=marker, ls=dash, label=label)
            if f"{kind}_bound" in rows[0]:
                bound = [row[f"{kind}_bound"] for row in rows]
                axes.plot(loops, bound, color=colour, lw=0.9, alpha=0.7, label=f"bound, {kind}")
        axes.set(xscale="log", yscale="log", xlabel="loops", ylabel="relative error of w")
        axes.xaxis.set_major_locator(FixedLocator(loops))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        figure.legend(loc="outside lower left", ncols=2, columnspacing=1.2)
        return svg_bytes(figure)
