"""Figures of loops as serial steps. Each function returns the content of an SVG file."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from looped.report.figures import SERIES, STYLE
from looped.report.svg_figures import plain_numbers, svg_bytes


def prefixes(panels: Mapping[str, np.ndarray]) -> bytes:
    """The share of right prefixes by prefix length and number of loops; a panel for each circuit.

    Each panel is (loops, n + 1), from loop 1 and the empty prefix.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 2.9))
        image = None
        for axes, (name, shares) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            loops, columns = shares.shape
            image = axes.imshow(
                shares, aspect="auto", origin="lower", cmap="Blues", vmin=0, vmax=1, interpolation="nearest",
                extent=(-0.5, columns - 0.5, 0.5, loops + 0.5),
            )  # fmt: skip
            axes.set(xlabel="letters of the prefix", ylabel="loops", title=name)
            axes.grid(visible=False)
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        assert image is not None
        figure.colorbar(image, ax=figure.axes, label="right")
        return svg_bytes(figure)


def loops(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Left: the loops needed against n. Right: the share of right answers with fewer loops, at the largest n."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 3.4))
        left, right = figure.subplots(1, 2)
        for (color, marker, dash), name in zip(SERIES, dict.fromkeys(row["problem"] for row in rows), strict=False):
            mine = [row for row in rows if row["problem"] == name]
            style = {"color": color, "marker": marker, "ls": dash}
            left.plot([r["n"] for r in mine], [r["needed"] for r in mine], **style, label=name)
            shares = mine[-1]["right"]
            style["marker"] = marker if len(shares) < 12 else ""
            right.plot(np.arange(1, len(shares) + 1) / len(shares), shares, **style)
        left.set(xscale="log", yscale="log", xlabel="n", ylabel="loops needed")
        left.xaxis.set_major_locator(FixedLocator(sorted({row["n"] for row in rows})))
        left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        left.xaxis.set_minor_locator(NullLocator())
        plain_numbers(left.yaxis)
        right.set(
            xlabel=f"loops / loops of the circuit, n = {rows[-1]['n']}", ylabel="right answers", ylim=(-0.03, 1.03)
        )
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2, columnspacing=1.2)
        return svg_bytes(figure)


def squares(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The largest error of x^2 against loops, and against the nonzero weights of the tied and the untied network."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 3.2))
        left, right = figure.subplots(1, 2, sharey=True)
        for (color, marker, dash), key in zip(SERIES, ("exact", "float64", "float32"), strict=False):
            points = [(row["loops"], row[key]) for row in rows]
            left.plot(*zip(*points, strict=True), color=color, marker=marker, ls=dash, label=key)
        for (color, marker, dash), key in zip(SERIES[3:], ("tied", "untied"), strict=False):
            points = [(row[key], row["exact"]) for row in rows]
            right.plot(*zip(*points, strict=True), color=color, marker=marker, ls=dash, label=f"exact, {key}")
        left.set(yscale="log", xlabel="loops", ylabel="largest error of x^2")
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        left.yaxis.set_minor_locator(NullLocator())
        right.set(xlabel="nonzero weights")
        figure.legend(loc="outside lower left", ncols=3, columnspacing=1.2)
        return svg_bytes(figure)


def lipschitz(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The largest error against loops, and against the numbers that store the labels, for d = 1 and d = 2."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 3.2))
        left, right = figure.subplots(1, 2, sharey=True)
        kinds = list(dict.fromkeys(row["kind"] for row in rows))
        for i, kind in enumerate(kinds):
            mine = [row for row in rows if row["kind"] == kind]
            errors = [row["error"] for row in mine]
            digits, table = (dict(zip(("color", "marker", "ls"), SERIES[j], strict=True)) for j in (i, i + len(kinds)))
            left.plot([row["loops"] for row in mine], errors, **digits, label=f"digits, {kind}")
            right.plot([1] * len(mine), errors, **digits)
            numbers = [row["table_numbers"] for row in mine]
            right.plot(numbers, [row["table_error"] for row in mine], **table, label=f"table, {kind}")
        left.set(xscale="log", yscale="log", xlabel="loops", ylabel="largest error")
        right.set(xscale="log", xlabel="numbers that store labels")
        for axis in (left.xaxis, right.xaxis):
            plain_numbers(axis, (1,))
        plain_numbers(left.yaxis)
        figure.legend(loc="outside lower left", ncols=2, columnspacing=1.2)
        return svg_bytes(figure)
