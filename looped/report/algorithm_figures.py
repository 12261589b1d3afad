"""The figure of a model's distance from algorithms by number of loops."""

import math

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from looped.report.comparison import Variant
from looped.report.figures import SERIES, RenderedFigure, plottable, render, score_axis, shorten
from looped.run_folder import AlgorithmRow

ByLoop = dict[int, list[AlgorithmRow]]


def distance(row: AlgorithmRow) -> float:
    """The prediction difference; infinite if the model diverged."""
    return math.inf if math.isnan(row.prediction_difference) else row.prediction_difference


def differences_by_loop(shown: list[tuple[Variant, ByLoop]], name: str) -> RenderedFigure:
    """Prediction difference by loop, a panel for each variant, a line for each algorithm at its nearest steps."""
    algorithms = list(dict.fromkeys(row.algorithm for _, by_loop in shown for rows in by_loop.values() for row in rows))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        drawn = {}
        for axes, (variant, by_loop) in zip(panels, shown, strict=True):
            seen: list[float] = []
            for algorithm, (color, marker, dash) in zip(algorithms, SERIES, strict=False):
                points = [
                    (loops, min((distance(row) for row in rows if row.algorithm == algorithm), default=math.inf))
                    for loops, rows in by_loop.items()
                ]
                counts, values = plottable(points).T
                (drawn[algorithm],) = axes.plot(counts, values, color=color, marker=marker, ms=4, ls=dash)
                seen += values.tolist()
            score_axis(axes, "y", seen, unit=False)
            axes.set_title(shorten(variant.name, 50), loc="left", fontsize=10)
            axes.set_ylabel("prediction difference")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panels[-1].set_xlabel("number of loops")
        names = [shorten(algorithm, 24) for algorithm in drawn]
        figure.legend(list(drawn.values()), names, loc="outside lower left", ncols=2, columnspacing=1.2)

    return render(name, draw, 1.3 + 2.1 * len(shown))
