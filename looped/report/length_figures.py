"""The figure of scores by length and number of loops."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from looped.report.comparison import Problem, Variant, mean_loops
from looped.report.figures import RenderedFigure, render, shorten, spaced


def score_by_length_and_loops(problem: Problem, name: str) -> RenderedFigure | None:
    """Test score by length and loops, a heat map for each variant (Fan et al., 2024, show this diagonal).

    A line marks the loops that the task says, and a cross those that are most confident over a length in one seed.
    None unless the groups are several lengths, and the scores have no error's scale.
    """
    lengths = sorted((group for group in problem.all_groups if group.isdecimal()), key=int)
    shown = [v for v in problem.variants if any(run.policy_rows for run in v.runs)]
    if len(lengths) < 2 or len(lengths) < len(problem.all_groups) or problem.lower_is_better or not shown:
        return None

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        meshes = []
        for axes, variant in zip(panels, shown, strict=True):
            counts = problem.loops(variant)
            values = np.array([[_mean(problem, variant, group, count) for count in counts] for group in lengths])
            middles = (np.array(counts[1:]) + counts[:-1]) / 2
            edges = [counts[0] - 0.5, *middles, counts[-1] + 0.5]
            ends = np.arange(len(lengths) + 1) - 0.5
            meshes.append(axes.pcolormesh(edges, ends, values, vmin=0, vmax=1, cmap="viridis"))
            outlined = {"color": "white", "path_effects": [withStroke(linewidth=3.2, foreground="black")]}
            rows = range(len(lengths))
            needed = [mean_loops(variant.runs, "task", n) for n in lengths]
            axes.plot(needed, rows, label="loops of the task", **outlined)
            for run in variant.runs:
                chosen = [mean_loops([run], "confidence", n) for n in lengths]
                label = "most confident in a seed" if run is variant.runs[0] else None
                axes.plot(chosen, rows, "x", ms=6, mew=1.6, label=label, **outlined)
            axes.set_title(shorten(variant.name, 50), loc="left", fontsize=10)
            axes.set_yticks(rows, lengths)
            axes.set(ylabel="length", xlim=(edges[0], edges[-1]))
            axes.grid(visible=False)
        panels[-1].set_xlabel("number of loops")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(meshes[0], ax=list(panels), label=f"test {spaced(problem.metric)}", fraction=0.05)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)

    return render(name, draw, 1.1 + len(shown) * (0.55 + 0.2 * len(lengths)))


def _mean(problem: Problem, variant: Variant, group: str, count: int) -> float:
    wanted = (group, count, problem.metric)
    rows = [row for run in variant.runs for row in run.test_rows if (row.group, row.num_loops, row.metric) == wanted]
    return float(np.mean([row.value for row in rows])) if rows else np.nan
