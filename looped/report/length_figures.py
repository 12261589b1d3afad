"""The figure of scores by length and number of loops."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from looped.report.comparison import Problem, Variant
from looped.report.figures import RenderedFigure, render, shorten, spaced
from looped.run_folder import Policy


def mean_loops(variant: Variant, policy: Policy, group: str) -> float:
    """Mean of the chosen loops over seeds and examples; NaN without such rows."""
    rows = [row for run in variant.runs for row in run.policy_rows if (row.policy, row.group) == (policy, group)]
    return float(np.mean([row.mean_loops for row in rows])) if rows else np.nan


def score_by_length_and_loops(problem: Problem, name: str) -> RenderedFigure | None:
    """Test score by length and loops, a heat map for each variant (Fan et al., 2024, show this diagonal).

    A line marks the loops that the task says, and crosses those that are most confident over the length's examples.
    None unless the groups are several lengths, and the scores have no error's scale.
    """
    lengths = sorted((group for group in problem.all_groups if group.isdecimal()), key=int)
    shown = [v for v in problem.variants if any(run.policy_rows for run in v.runs)]
    if len(lengths) < 2 or len(lengths) < len(problem.all_groups) or problem.lower_is_better or not shown:
        return None

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, variant in zip(panels, shown, strict=True):
            counts = problem.loops(variant)
            values = np.array([[_mean(problem, variant, group, count) for count in counts] for group in lengths])
            middles = (np.array(counts[1:]) + counts[:-1]) / 2
            edges = [counts[0] - 0.5, *middles, counts[-1] + 0.5]
            mesh = axes.pcolormesh(edges, np.arange(len(lengths) + 1) - 0.5, values, vmin=0, vmax=1, cmap="viridis")
            for policy, style, label in (("task", "o-", "loops of the task"), ("confidence", "x", "most confident")):
                at = [mean_loops(variant, policy, group) for group in lengths]
                axes.plot(at, range(len(lengths)), style, color="white", mfc="none", ms=6, mew=1.6, lw=1.4, label=label,
                          path_effects=[withStroke(linewidth=3, foreground="black")])  # fmt: skip
            axes.set_title(shorten(variant.name, 50), loc="left", fontsize=10)
            axes.set_yticks(range(len(lengths)), lengths)
            axes.set(ylabel="length", xlim=(edges[0], edges[-1]))
            axes.grid(visible=False)
        panels[-1].set_xlabel("number of loops")
        figure.colorbar(mesh, ax=list(panels), label=f"test {spaced(problem.metric)}", fraction=0.05)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)

    return render(name, draw, 1.1 + len(shown) * (0.55 + 0.2 * len(lengths)))


def _mean(problem: Problem, variant: Variant, group: str, count: int) -> float:
    wanted = (group, count, problem.metric)
    rows = [row for run in variant.runs for row in run.test_rows if (row.group, row.num_loops, row.metric) == wanted]
    return float(np.mean([row.value for row in rows])) if rows else np.nan
