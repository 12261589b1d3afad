"""Figures of `looped inspect`, from the numbers of inspect.json."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from looped.report.figures import INK, SERIES, RenderedFigure, plottable, render

Row = dict[str, Any]
"""A part of inspect.json."""

# From transparent to blue: the page's background shows through, light or dark.
SHADES = LinearSegmentedColormap.from_list("shades", [(*[11 / 255, 121 / 255, 191 / 255], a) for a in (0.0, 1.0)])
MOST_LAYERS = 7
"""The most lines in one figure; of more layers, evenly spaced ones are drawn."""


def lines_by_loop(
    name: str,
    numbers: Row,
    lines: dict[str, Row],
    label: str,
    *,
    loops: Sequence[int] | None = None,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    level: float | None = None,
    unit: Literal["loop", "layer"] = "loop",
) -> RenderedFigure:
    """Lines over loops, each {"middle"} or, with a band, {"middle", "low", "high"}; dashed: the loops of training.

    Args:
        loops: the loops of the values; None is 1, 2, ...
        level: a value to mark.
        unit: of the axis; layers have no loops to mark.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        positive = False
        for (text, line), (color, marker, dash) in zip(lines.items(), SERIES, strict=False):
            x = list(loops or range(1, len(line["middle"]) + 1))
            middle, low, high = (plottable(line.get(k, line["middle"])) for k in ("middle", "low", "high"))
            axes.plot(x, middle, color=color, ls=dash, marker=marker, ms=4, markevery=max(1, len(x) // 12), label=text)
            axes.fill_between(x, low, high, color=color, alpha=0.13, lw=0)
            positive |= bool((middle > 0).any())  # False for NaN
        if log and positive:
            axes.set_yscale("log")
            _log_ticks(axes)
        if limits:
            axes.set_ylim(*limits)
        if level is not None:
            axes.axhline(level, color=INK, lw=0.8)
        axes.set_ylabel(label)
        if unit == "loop":
            loop_axis(axes, numbers)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            axes.set_xlabel(unit)
        _legend(figure, axes, dashed=unit == "loop")

    return render(name, draw, 2.7 + 0.2 * (len(lines) + 1))


def loop_axis(axes: Axes, numbers: Row) -> None:
    """A linear axis, or a logarithmic one for many loops, with the loops of training marked."""
    last, trained = numbers["loops"], numbers["trained_loops"]
    if last > 16:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator([2**i for i in range(last.bit_length()) if 2**i <= last]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlim(0.6, last + 0.4)
    if trained <= last:
        axes.axvline(trained, color=INK, ls=(0, (4, 3)), lw=1)
    axes.set_xlabel("loop")


def paths(name: str, numbers: Row) -> RenderedFigure:
    """States in the plane of the first two components: a dot at the start, a ring after the loops of training."""
    found = numbers["components"]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for path, (color, marker, _) in zip(found["paths"], SERIES, strict=False):
            points = plottable(path["points"])
            text = f"example {path['example']}, position {path['position']}"
            axes.plot(*points.T, color=color, lw=1.2, marker=marker, ms=3, label=text)
            axes.plot(*points[0], marker="o", ms=7, color=color)
            if numbers["trained_loops"] <= numbers["loops"]:
                axes.plot(*points[numbers["trained_loops"]], "o", ms=12, mfc="none", mec=color, mew=1.4)
        first, second = (f"component {i}: {share or 0:.0%}" for i, share in enumerate(found["explained"], 1))
        axes.set(xlabel=first, ylabel=second)
        dot, ring = (Line2D([], [], ls="", marker="o", color=INK, ms=ms, mfc=fill, label=text) for ms, fill, text in (
            (6, INK, "dot: before loop 1"), (10, "none", "ring: loops in training"),
        ))  # fmt: skip
        handles = [*axes.get_legend_handles_labels()[0], dot, ring]
        figure.legend(handles=handles, loc="outside lower left", ncols=2, columnspacing=1.2)

    return render(name, draw, 3.4 + 0.2 * (len(found["paths"]) // 2 + 2))


def attention(name: str, numbers: Row) -> RenderedFigure:
    """Attention maps of one example: queries down, keys across, a column for each loop shown."""
    found = numbers["attention"]
    maps = np.nan_to_num(plottable(found["maps"]))  # loops, rows, queries, keys
    columns, rows = maps.shape[:2]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for i in range(rows):
            most = np.abs(maps[:, i]).max() or 1.0
            for j in range(columns):
                axes = panels[i, j]
                scale = PowerNorm(0.5, vmin=0, vmax=most)
                axes.imshow(np.abs(maps[j, i]), cmap=SHADES, norm=scale, interpolation="nearest")
                axes.grid(visible=False)
                axes.spines[["top", "right"]].set_visible(True)
                axes.set(xticks=[], yticks=[])
                if i == 0:
                    trained = " (trained)" if found["shown"][j] == numbers["trained_loops"] else ""
                    axes.set_title(f"loop {found['shown'][j]}{trained}", fontsize=9)
            panels[i, 0].set_ylabel(found["rows"][i], fontsize=9)

    return render(name, draw, 0.3 + rows * 4.3 / max(columns, 2))


def modulation(name: str, numbers: Row) -> RenderedFigure:
    """Scales, gates and shifts over loops: one panel each, one line for each layer, bands over the channels."""
    found = numbers["modulation"]
    count = len(next(iter(found.values())))
    layers = np.unique(np.linspace(0, count - 1, min(count, MOST_LAYERS)).round().astype(int)).tolist()
    rows = -(-len(found) // 2)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(rows, 2, sharex=True, squeeze=False).ravel()
        for panel, (quantity, by_layer) in zip(panels, found.items(), strict=False):
            for layer, (color, marker, dash) in zip(layers, SERIES, strict=False):
                line = {key: plottable(by_layer[layer][key]) for key in ("low", "middle", "high")}
                x = range(1, len(line["middle"]) + 1)
                every = max(1, len(line["middle"]) // 8)
                panel.plot(x, line["middle"], color=color, ls=dash, marker=marker, ms=3.5, markevery=every,
                           label=f"layer {layer + 1}")  # fmt: skip
                panel.fill_between(x, line["low"], line["high"], color=color, alpha=0.13, lw=0)
            panel.set_title(quantity.replace("_", " "), fontsize=10, loc="left")
            panel.yaxis.set_major_locator(MaxNLocator(4))
            loop_axis(panel, numbers)
        for panel in panels[:-2]:
            panel.set_xlabel("")
        for panel in panels[len(found) :]:
            panel.set_axis_off()
        _legend(figure, panels[0])

    return render(name, draw, 0.6 + 1.6 * rows + 0.2 * (len(layers) // 2 + 1))


def _log_ticks(axes: Axes) -> None:
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if np.diff(np.log10(axes.get_ylim()))[0] < 2.5 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _legend(figure: Figure, axes: Axes, *, dashed: bool = True) -> None:
    line = Line2D([], [], color=INK, ls=(0, (4, 3)), lw=1, label="dashed: loops in training")
    handles = axes.get_legend_handles_labels()[0] + [line] * dashed
    longest = max(len(str(handle.get_label())) for handle in handles)
    figure.legend(handles=handles, loc="outside lower left", ncols=2 if longest <= 26 else 1, columnspacing=1.2)
