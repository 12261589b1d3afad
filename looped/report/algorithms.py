"""The part of a report on learning in context beside algorithms for linear functions."""

from looped.report.algorithm_figures import ByLoop, differences_by_loop, distance
from looped.report.blocks import Chart, Section, Table
from looped.report.comparison import Estimate, Problem, Variant
from looped.report.number_format import interval, number
from looped.run_folder import AlgorithmRow


def nearest_algorithms(problem: Problem, slug: str) -> Section | None:
    """The algorithm that each variant's first seed is nearest to, after each loop; None without such rows."""
    shown = [(variant, rows) for variant in problem.variants if (rows := _by_loop(problem, variant))]
    if not shown:
        return None
    cells = []
    for variant, by_loop in shown:
        for loops, rows in by_loop.items():
            near = min(rows, key=distance)
            difference = interval(Estimate(near.prediction_difference, near.low, near.high, seeds=1))
            cells.append([variant.name, str(loops), _name(near), difference, number(near.weight_difference)])
    variant, by_loop = max(shown, key=lambda pair: pair[0].trained_loops)
    loops = min(by_loop, key=lambda loops: abs(loops - variant.trained_loops))
    near = min(by_loop[loops], key=distance)
    size = number(near.prediction_difference)
    takeaway = f"With {loops} loops {variant.name} is nearest to {_name(near)}, at a mean squared difference of {size}."
    columns = ["variant", "loops", "nearest algorithm", "prediction difference", "weight difference"]
    caption = (
        "The first seed of each variant, on fresh queries of the same prompts. Prediction difference: mean of (model - "
        "algorithm)², with its 95% interval over prompts. Weight difference: squared distance of the linear weights "
        "that fit the model's predictions from those of the algorithm."
    )
    drawn = (
        "Prediction difference by loop. Algorithms with steps have the number of steps that is nearest after the loop."
    )
    figure = differences_by_loop(shown, f"{slug}_nearest_algorithms")
    return Section("Nearest algorithm by loop", takeaway, [Chart(figure, drawn), Table(columns, cells, caption)])


def _by_loop(problem: Problem, variant: Variant) -> ByLoop:
    found: ByLoop = {}
    for row in variant.runs[0].algorithms:
        if row.split == "test" and row.group in problem.groups[:1]:
            found.setdefault(row.num_loops, []).append(row)
    return dict(sorted(found.items()))


def _name(row: AlgorithmRow) -> str:
    return row.algorithm if row.steps is None else f"{row.algorithm}, {row.steps} step{'s' * (row.steps != 1)}"
