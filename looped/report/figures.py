"""The report's figures, readable on light and dark pages and on screens 360 pixels wide."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from looped.printing import printable
from looped.report.comparison import Problem, Variant
from looped.report.read import Run

# Okabe and Ito's colours, which colour-blind readers can distinguish. The light ones are darkened until all have a
# contrast of about 3 or more on white and on the dark page. Markers and dashes carry the same information.
SERIES = (
    ("#0b79bf", "o", "-"), ("#d55e00", "s", "--"), ("#009e73", "D", "-."), ("#b57f00", "^", ":"),
    ("#c4699a", "v", "-"), ("#7e67b5", "P", "--"), ("#6f7c85", "X", "-."),
)  # fmt: skip
INK = "#010203"  # stands for the colour of the surrounding text
WIDTH = 4.5  # inches: with 10 pt text, letters are 10 pixels high on a screen 360 pixels wide
STYLE: dict[Any, Any] = {
    "font.size": 10, "axes.labelsize": 10, "legend.fontsize": 9.5, "lines.linewidth": 1.8, "lines.markersize": 5,
    "svg.fonttype": "none", "svg.hashsalt": "looped", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "axes.linewidth": 0.7, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": INK, "grid.alpha": 0.13, "grid.linewidth": 0.7,
    "legend.frameon": False, "legend.handlelength": 2.6, "legend.labelspacing": 0.35, "text.parse_math": False,
    "figure.constrained_layout.use": True,
}  # fmt: skip


@dataclass(frozen=True)
class RenderedFigure:
    """One figure: `svg` and `png` as files (white background), `inline` for a page (the page's text colour)."""

    name: str
    svg: bytes
    png: bytes
    inline: str


def plottable(values: Any) -> np.ndarray:
    """Numbers as floats, with NaN for None and for all that no axis can hold: infinities and sizes above 1e100."""
    found = np.array(values, float)
    return np.where(np.abs(found) <= 1e100, found, np.nan)


def series(problem: Problem) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and dash of each variant, equal in all figures."""
    styles = {}
    for i, variant in enumerate(problem.variants):
        color = SERIES[i % len(SERIES)][0]
        _, marker, dash = SERIES[(i + i // len(SERIES)) % len(SERIES)]  # colours repeat with other markers
        styles[variant.name] = (color, marker, dash)
    return styles


def score_by_loops(problem: Problem, name: str) -> RenderedFigure | None:
    """Test score against the number of loops; a ring marks the loops in training.

    Beside looped variants, one that was trained without a loop is a single point.
    """
    looped = any(variant.trained_loops > 1 for variant in problem.variants)

    def draw(axes: Axes) -> None:
        scores: list[float] = []
        counts = sorted({loops for variant in problem.variants for loops in problem.loops(variant)})
        for variant in problem.variants:
            tried = [1] if looped and variant.trained_loops == 1 else problem.loops(variant)
            points = [(n, e) for n in tried if (e := problem.estimate(variant, problem.metric, n))]
            color, marker, dash = series(problem)[variant.name]
            x = [n for n, _ in points]
            value, low, high = (plottable([getattr(e, key) for _, e in points]) for key in ("value", "low", "high"))
            axes.plot(x, value, color=color, marker=marker, ls=dash, label=_label(variant.name))
            axes.fill_between(x, low, high, color=color, alpha=0.13, lw=0)
            scores.extend([*value, *low, *high])
            for n, v in zip(x, value, strict=True):
                if n == variant.trained_loops and np.isfinite(v):  # a ring without a place would leave no room
                    axes.plot(n, v, "o", ms=12, mfc="none", mec=color, mew=1.4, clip_on=False)
        axes.set(xlabel="number of loops", ylabel=f"test {spaced(problem.metric)}")
        axes.set_xscale("log", base=2)
        _plain_ticks(axes.xaxis, _thin(counts), lambda value, _: f"{value:.0f}")
        _score_axis(axes, "y", scores, unit=not problem.lower_is_better)
        ring = Line2D([], [], ls="", marker="o", ms=10, mfc="none", mec=INK, mew=1.2, label="ring: loops in training")
        _legend(axes, problem, ring)

    return _render_axes(name, draw, problem) if any(problem.headline(v) for v in problem.variants) else None


def validation_curves(problem: Problem, name: str) -> RenderedFigure | None:
    """Validation score against the step: mean over seeds, band from the lowest to the highest seed."""

    def values(run: Run) -> dict[int, float]:
        rows = [row for row in run.validations if problem.metric in row.scores]
        trained = [row for row in rows if row.num_loops == run.trained_loops]
        return {row.step: row.scores[problem.metric] for row in trained or rows}

    return _curves(problem, name, values, f"validation {spaced(problem.metric)}", unit=not problem.lower_is_better)


def loss_curves(problem: Problem, name: str) -> RenderedFigure | None:
    """Training loss against the step: mean over seeds, band from the lowest to the highest seed."""

    def values(run: Run) -> dict[int, float]:
        return {row.step: row.loss for row in run.training}

    return _curves(problem, name, values, "training loss", unit=False)


def score_by_group(problem: Problem, name: str) -> RenderedFigure | None:
    """Test score on each group at the loops in training, with 95% intervals; None for a single group."""
    groups = problem.all_groups
    if len(groups) > 2 and all(map(str.isdecimal, groups)):
        return _score_by_length(problem, name, sorted(groups, key=int))

    def draw(axes: Axes) -> None:
        scores: list[float] = []
        for i, variant in enumerate(problem.variants):
            color, marker, _ = series(problem)[variant.name]
            found = [
                (row, estimate)
                for row, group in enumerate(groups)
                if (estimate := problem.estimate(variant, problem.metric, variant.trained_loops, groups=[group]))
            ]
            shift = 0.6 * ((i + 0.5) / len(problem.variants) - 0.5)
            y = [row + shift for row, _ in found]
            value, low, high = (plottable([getattr(e, key) for _, e in found]) for key in ("value", "low", "high"))
            axes.hlines(y, low, high, color=color, lw=1.6)
            axes.plot(value, y, marker, color=color, label=_label(variant.name))
            scores.extend([*value, *low, *high])
        axes.set_yticks(range(len(groups)), [shorten(str(group), 20) for group in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        for edge in range(1, len(groups)):
            axes.axhline(edge - 0.5, color=INK, alpha=0.13, lw=0.7)
        axes.set(xlabel=f"test {spaced(problem.metric)}")
        _score_axis(axes, "x", scores, unit=not problem.lower_is_better)
        _legend(axes, problem)

    height = 0.9 + len(groups) * (0.2 + 0.13 * len(problem.variants))
    return _render_axes(name, draw, problem, height) if len(groups) > 1 else None


def _score_by_length(problem: Problem, name: str, lengths: Sequence[str]) -> RenderedFigure:
    """The same if the groups are lengths: lines over the length. A dotted line marks the length in training."""

    def draw(axes: Axes) -> None:
        scores: list[float] = []
        for variant in problem.variants:
            loops = variant.trained_loops
            found = [(n, problem.estimate(variant, problem.metric, loops, groups=[n])) for n in lengths]
            points = [(int(n), e.value, e.low, e.high) for n, e in found if e]
            x, value, low, high = plottable(points).reshape(-1, 4).T
            color, marker, dash = series(problem)[variant.name]
            axes.plot(x, value, color=color, marker=marker, ls=dash, label=_label(variant.name))
            axes.fill_between(x, low, high, color=color, alpha=0.13, lw=0)
            scores.extend([*value, *low, *high])
        axes.set(xlabel="length", ylabel=f"test {spaced(problem.metric)}")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
        _score_axis(axes, "y", scores, unit=not problem.lower_is_better)
        if trained := getattr(problem.variants[0].runs[0].config.task, "length", None):
            axes.axvline(trained, color=INK, ls=":", lw=1)
            _legend(axes, problem, Line2D([], [], color=INK, ls=":", lw=1, label="length in training"))
        else:
            _legend(axes, problem)

    return _render_axes(name, draw, problem)


def score_by_context(problem: Problem, name: str) -> RenderedFigure | None:
    """Test score against the number of points in context at the loops in training, with the baselines beside it."""
    curves = problem.context_curves
    styles = series(problem)
    baselines = [method for method in curves if method not in styles]

    def draw(axes: Axes) -> None:
        for method, points in curves.items():
            counts, values, low, high = plottable(points).T
            if method in styles:
                color, _, dash = styles[method]
                axes.fill_between(counts, low, high, color=color, alpha=0.13, lw=0)
                axes.plot(counts, values, color=color, ls=dash, label=_label(method))
            else:
                marker = "o^vsDPX*"[baselines.index(method) % 8]
                axes.plot(counts, values, color=INK, lw=0.8, marker=marker, ms=4, alpha=0.6, label=_label(method))
        axes.set(xlabel="points in context", ylabel=f"test {spaced(problem.metric)}")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        values = plottable([point[1] for points in curves.values() for point in points])
        values = values[np.isfinite(values)]
        floor = values.max(initial=0) / 1e4  # least squares can be exact up to rounding; such errors are not shown
        _score_axis(axes, "y", np.clip(values, floor, None).tolist(), unit=not problem.lower_is_better)
        if values.min(initial=floor) < floor:
            axes.set_ylim(bottom=floor)
        _legend(axes, problem)

    return _render_axes(name, draw, problem, 3.1 + 0.1 * len(curves)) if curves else None


def _curves(
    problem: Problem, name: str, values: Callable[[Run], dict[int, float]], label: str, unit: bool
) -> RenderedFigure | None:
    curves: list[tuple[Variant, list[int], np.ndarray]] = []
    for variant in problem.variants:
        by_run = [values(run) for run in variant.runs]
        # Only steps that all seeds reached: a mean over the remaining seeds would jump.
        steps = sorted(set.intersection(*(set(points) for points in by_run)))
        if steps:
            curves.append((variant, steps, plottable([[points[step] for step in steps] for points in by_run])))

    def draw(axes: Axes) -> None:
        for variant, steps, scores in curves:
            color, marker, dash = series(problem)[variant.name]
            every = max(1, len(steps) // 8)
            axes.plot(
                steps,
                scores.mean(0),
                color=color,
                ls=dash,
                marker=marker,
                ms=4,
                markevery=every,
                label=_label(variant.name),
            )
            axes.fill_between(steps, scores.min(0), scores.max(0), color=color, alpha=0.13, lw=0)
        axes.set(xlabel="step", ylabel=label)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        _score_axis(axes, "y", [score for c in curves for score in c[2].ravel()], unit=unit)
        _legend(axes, problem)

    return _render_axes(name, draw, problem) if curves else None


def spaced(name: str) -> str:
    return name.replace("_", " ")


def shorten(text: str, most: int) -> str:
    """`text` of at most `most` printable characters; the middle of a longer text is left out."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - most // 2 + 1 :]}"


def _label(name: str) -> str:
    """A name in a legend. matplotlib leaves out labels that begin with an underscore, unless a space is before it."""
    return shorten(f" {name}" if name.startswith("_") else name, 50)


def _score_axis(axes: Axes, along: Literal["x", "y"], values: Sequence[float], *, unit: bool) -> None:
    """Scores: from 0 to 1. Errors and losses: from 0, or logarithmic if they span more than a decade."""
    found = np.array(values)
    found = found[np.isfinite(found)]
    low, high = found.min(initial=np.inf), found.max(initial=0)
    set_limits = getattr(axes, f"set_{along}lim")
    if unit:
        set_limits(-0.03, 1.03)
    elif 0 < low < high / 10:
        getattr(axes, f"set_{along}scale")("log")
        digits = (1, 2, 5) if high < 300 * low else (1,)
        ticks = [d * 10.0**e for e in range(-100, 101) for d in digits if low / 2 <= d * 10.0**e <= high * 1.5]
        _plain_ticks(getattr(axes, f"{along}axis"), _thin(ticks, 8), lambda value, _: f"{value:g}")
    else:
        set_limits(0)


def _thin(values: Sequence[Any], most: int = 9) -> Sequence[Any]:
    """At most `most` tick values: powers of two if there are too many."""
    if len(values) <= most:
        return values
    powers = [value for value in values if float(value).is_integer() and int(value) & (int(value) - 1) == 0]
    return powers if 2 <= len(powers) <= most else values[:: -(-len(values) // most)]


def _plain_ticks(axis: Any, ticks: Sequence[Any], formatter: Callable[[float, Any], str]) -> None:
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_major_formatter(FuncFormatter(formatter))
    axis.set_minor_locator(NullLocator())


def _legend(axes: Axes, problem: Problem, *extra: Line2D) -> None:
    handles = [*axes.get_legend_handles_labels()[0], *extra]
    longest = max(len(str(handle.get_label())) for handle in handles)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.legend(handles=handles, loc="outside lower left", ncols=2 if longest <= 24 else 1, columnspacing=1.2)


def _render_axes(name: str, draw: Callable[[Axes], None], problem: Problem, height: float = 2.7) -> RenderedFigure:
    longest = max(len(variant.name) for variant in problem.variants)
    entries = len(problem.variants) + 1
    rows = -(-entries // 2) if longest <= 24 else entries
    return render(name, lambda figure: draw(figure.add_subplot()), height + 0.2 * rows)


def render(name: str, draw: Callable[[Figure], None], height: float) -> RenderedFigure:
    """The drawing of `draw` on a figure of the report's width and `height` inches."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        figure = Figure(figsize=(WIDTH, height))  # no pyplot: nothing global, no window
        draw(figure)
        files = {}
        for kind in ("svg", "png"):
            buffer = io.BytesIO()
            metadata = {"Date": None, "Creator": None} if kind == "svg" else {}
            figure.savefig(buffer, format=kind, dpi=200, facecolor="white", metadata=metadata)
            files[kind] = buffer.getvalue()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return RenderedFigure(name, files["svg"], files["png"], _inline(buffer.getvalue().decode(), name))


def _inline(svg: str, name: str) -> str:
    """The drawing as part of a page: with the page's text colour and font, and with unique ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'^<svg[^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg, count=1)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg).replace("xlink:href", "href")
    return svg.replace(INK, "currentColor")
