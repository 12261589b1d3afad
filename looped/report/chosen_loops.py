"""The part of a report on loops that differ between examples: the task says them, or the confidence chooses them."""

from typing import get_args

from looped.report.blocks import Chart, Section, Table
from looped.report.comparison import Estimate, Problem, Variant, mean_loops, policy_score
from looped.report.figures import spaced
from looped.report.length_figures import score_by_length_and_loops
from looped.report.number_format import interval, number
from looped.run_folder import Policy

HEADINGS: dict[Policy, str] = {
    "task": "loops that the task says",
    "confidence": "most confident loop of the group",
    "confidence-example": "most confident loop of each example",
}


def chosen_loops(problem: Problem, slug: str) -> Section | None:
    """Scores by group and choice of the loops, with a heat map if the groups are lengths; None without such scores."""

    def score(variant: Variant, policy: Policy, *groups: str) -> Estimate | None:
        found = [policy_score(run, problem.metric, policy, groups) for run in variant.runs]
        return problem.over_seeds([one for one in found if one])

    def rank(variant: Variant) -> float:
        found = score(variant, policies[0], *problem.groups)
        return problem.rank(found.value if found else None)

    def cell(variant: Variant, policy: Policy, group: str) -> str:
        estimate = score(variant, policy, group)
        return f"{interval(estimate)}\n{mean_loops(variant.runs, policy, group):.4g} loops" if estimate else "–"

    pairs = [(v, group) for v in problem.variants for group in problem.all_groups]
    policies = [policy for policy in get_args(Policy) if any(score(v, policy, group) for v, group in pairs)]
    if not policies:
        return None
    rows = [[v.name, group, *(cell(v, policy, group) for policy in policies)] for v, group in pairs]
    caption = f"Test {spaced(problem.metric)} by group and choice of the loops, with the mean number of loops below."
    table = Table(["variant", "group", *(HEADINGS[policy] for policy in policies)], rows, caption)
    figure = score_by_length_and_loops(problem, f"{slug}_length_and_loops")
    caption = f"Test {spaced(problem.metric)} by length and number of loops: mean over seeds."
    best = max(problem.variants, key=rank)
    scores = {policy: found for policy in policies if (found := score(best, policy, *problem.groups))}
    texts = [f"{number(found.value)} with the {HEADINGS[policy]}" for policy, found in scores.items()]
    takeaway = f"{best.name} scores {', '.join(texts)}."
    return Section("Loops chosen for the problem", takeaway, [*([Chart(figure, caption)] if figure else []), table])
