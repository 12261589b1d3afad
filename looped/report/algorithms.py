"""The part of a report on learning in context beside algorithms for linear functions."""

import math

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from looped.report.blocks import Chart, Section, Table
from looped.report.comparison import Estimate, Problem, Variant
from looped.report.figures import SERIES, RenderedFigure, plottable, render, score_axis, shorten
from looped.report.number_format import interval, number
from looped.run_folder import AlgorithmRow

ByLoop = dict[int, list[AlgorithmRow]]


def nearest_algorithms(problem: Problem, slug: str) -> Section | None:
    """The algorithm that each variant's first seed is nearest to, after each loop; None without such rows."""
    shown = [(variant, rows) for variant in problem.variants if (rows := _by_loop(problem, variant))]
    if not shown:
        return None
    cells = []
    for variant, by_loop in shown:
        for loops, rows in by_loop.items():
            near = min(rows, key=_distance)
            distance = interval(Estimate(near.prediction_difference, near.low, near.high, seeds=1))
            cells.append([variant.name, str(loops), _name(near), distance, number(near.weight_difference)])
    variant, by_loop = max(shown, key=lambda pair: pair[0].trained_loops)
    loops = min(by_loop, key=lambda loops: abs(loops - variant.trained_loops))
    near = min(by_loop[loops], key=_distance)
    distance = number(near.prediction_difference)
    takeaway = (
        f"With {loops} loops {variant.name} is nearest to {_name(near)}, at a mean squared difference of {distance}."
    )
    columns = ["variant", "loops", "nearest algorithm", "prediction difference", "weight difference"]
    caption = (
        "The first seed of each variant, on fresh queries of the same prompts. Prediction difference: mean of (model - "
        "algorithm)², with its 95% interval over prompts. Weight difference: squared distance of the linear weights "
        "that fit the model's predictions from those of the algorithm."
    )
    drawn = (
        "Prediction difference by loop. Algorithms with steps have the number of steps that is nearest after the loop."
    )
    figure = _figure(shown, f"{slug}_nearest_algorithms")
    return Section("Nearest algorithm by loop", takeaway, [Chart(figure, drawn), Table(columns, cells, caption)])


def _by_loop(problem: Problem, variant: Variant) -> ByLoop:
    found: ByLoop = {}
    for row in variant.runs[0].algorithms:
        if row.split == "test" and row.group in problem.groups[:1]:
            found.setdefault(row.num_loops, []).append(row)
    return dict(sorted(found.items()))


def _distance(row: AlgorithmRow) -> float:
    return math.inf if math.isnan(row.prediction_difference) else row.prediction_difference


def _name(row: AlgorithmRow) -> str:
    return row.algorithm if row.steps is None else f"{row.algorithm}, {row.steps} step{'s' * (row.steps != 1)}"


def _figure(shown: list[tuple[Variant, ByLoop]], name: str) -> RenderedFigure:
    algorithms = list(dict.fromkeys(row.algorithm for _, by_loop in shown for rows in by_loop.values() for row in rows))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        drawn = {}
        for axes, (variant, by_loop) in zip(panels, shown, strict=True):
            seen: list[float] = []
            for algorithm, (color, marker, dash) in zip(algorithms, SERIES, strict=False):
                points = [
                    (loops, min((_distance(row) for row in rows if row.algorithm == algorithm), default=math.inf))
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
        figure.legend(list(drawn.values()), list(drawn), loc="outside lower left", ncols=2, columnspacing=1.2)

    return render(name, draw, 1.3 + 2.1 * len(shown))
