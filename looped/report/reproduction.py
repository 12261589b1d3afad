"""A table of the paper or of another work beside the scores measured here, with verdicts on its claims."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from looped.report.blocks import Section, Sentences, Table
from looped.report.comparison import Estimate, paired, rank, run_score, t_interval
from looped.report.number_format import amount, duration, interval, number
from looped.report.read import Run
from looped.run_folder import RunTable, TableClaim, TableRow, read_file


def load_tables(folders: Iterable[Path]) -> list[RunTable]:
    """The content of table.json of each folder that has one.

    Raises:
        ValueError: such a file is malformed.
    """
    found = [read_file(Path(folder), RunTable) for folder in folders]
    return [table for table in found if table]


def reproduction(table: RunTable, runs: Sequence[Run]) -> Section:
    """The table, filled with the numbers of its evaluated runs."""
    by_name = {run.name: run for run in runs if run.summary and run.test_rows}
    tasks = dict.fromkeys(row.task for row in table.rows)
    verdicts = [(claim, _verdict(claim, by_name)) for claim in table.claims]
    parts = []
    for task in tasks:
        members = [row for row in table.rows if row.task == task]
        rows = [_cells(row, by_name) for row in members]
        claims = [f"{claim.says} {text}" for claim, (_, text) in verdicts if claim.task == task]
        metric = next((run.metric for row in table.rows if row.task == task for run in _runs(row, by_name)), "")
        columns = ["variant", "scored", "paper", "as published", "here", "seeds", "FLOPs per example", "training time"]
        if any(row.published for row in members):
            columns[4] = "corrected"
        used = {"scored": any(row.groups for row in members), "as published": columns[4] == "corrected"}
        kept = [i for i, column in enumerate(columns) if used.get(column, True)]
        columns, rows = [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]
        caption = (
            f"Test {str(metric).replace('_', ' ')} at the loops in training. 95% intervals: Student's t over seeds, or "
            "over examples if there is one seed. FLOPs of a forward pass and training time are of the last run."
        )
        takeaway = _takeaway(members, by_name)
        parts.append(Section(task, takeaway, [Table(columns, rows, caption), Sentences(claims)]))
    held = sum(kind == "holds" for _, (kind, _) in verdicts)
    takeaway = f"{held} of {len(verdicts)} comparisons hold at this size with these seeds."
    differs = Sentences([f"Source: {table.source}.", *table.differs, f"Command: {table.command}"])
    published = [Table(list(part.columns), list(map(list, part.rows)), part.caption) for part in table.published]
    return Section(f"{table.title}, at the scale {table.scale}", takeaway, [differs, *published], parts)


def _runs(row: TableRow, by_name: dict[str, Run]) -> list[Run]:
    return [by_name[name] for name in (*row.corrected, *row.published) if name in by_name]


def _cells(row: TableRow, by_name: dict[str, Run]) -> list[str]:
    corrected = [by_name[name] for name in row.corrected if name in by_name]
    estimates = [_estimate(names, by_name, row.groups) for names in (row.published, row.corrected)]
    summaries = [run.summary for run in corrected or _runs(row, by_name) if run.summary]
    keys = ("flops_per_example", "seconds")
    means = [sum(getattr(s, key) for s in summaries) / len(summaries) if summaries else None for key in keys]
    seeds = {estimate.seeds for estimate in estimates if estimate}
    return [
        row.model,
        ", ".join(row.groups) or "all",
        row.paper or "–",
        *(interval(e).replace(" ", "\n", 1) if e else "–" for e in estimates),
        " / ".join(map(str, sorted(seeds))) or "–",
        "–" if means[0] is None else amount(means[0]),
        "–" if means[1] is None else duration(means[1]),
    ]  # fmt: skip


def _scores(
    names: Sequence[str], by_name: dict[str, Run], groups: Sequence[str]
) -> dict[int, tuple[float, float, float]]:
    """Score and interval by seed, on the groups.

    () is all groups, or for errors the first one, because errors differ in scale between groups.
    """
    found = {}
    for run in (by_name[name] for name in names if name in by_name):
        every = list(dict.fromkeys(row.group for row in run.test_rows))
        scored = groups or (every[:1] if run.lower_is_better else every)
        score = run_score(run, run.metric or "", run.trained_loops, scored)
        if score:
            found[run.seed] = score
    return found


def _estimate(names: Sequence[str], by_name: dict[str, Run], groups: Sequence[str]) -> Estimate | None:
    scores = list(_scores(names, by_name, groups).values())
    if len(scores) < 2:
        return Estimate(*scores[0], seeds=1) if scores else None
    value, low, high = t_interval([score for score, _, _ in scores])
    lower_is_better = any(by_name[name].lower_is_better for name in names if name in by_name)
    return Estimate(value, max(low, 0.0), high if lower_is_better else min(high, 1.0), len(scores))


def _verdict(claim: TableClaim, by_name: dict[str, Run]) -> tuple[str, str]:
    """Whether `second` is better than `first`: holds, reversed, open or missing; and a sentence that says so."""
    a, b = (_estimate(names, by_name, claim.groups) for names in (claim.first, claim.second))
    if a is None or b is None:
        return "missing", "Not run."
    first, second = (
        {seed: score[0] for seed, score in _scores(names, by_name, claim.groups).items()}
        for names in (claim.first, claim.second)
    )
    value, low, high, seeds = paired(first, second, a, b)
    sign = -1 if any(by_name[name].lower_is_better for name in claim.first if name in by_name) else 1
    better, worse = (low > 0, high < 0) if sign > 0 else (high < 0, low > 0)
    means = f"{number(b.value)} against {number(a.value)}, difference {number(value, '+')} "
    means = f"({means}[{number(low, '+')}, {number(high, '+')}], {seeds} paired seeds)"
    if seeds < 2:
        return "open", f"This is open with fewer than two shared seeds {means}.".replace("-", "−")
    goal = {seed: score[0] for seed, score in _scores(claim.goal, by_name, claim.groups).items()}
    gap = _gap_covered(first, second, goal)
    kind = "holds" if better else "reversed" if worse else "open"
    texts = {"holds": "This holds", "reversed": "The opposite holds", "open": "The difference is within seed noise"}
    return kind, f"{texts[kind]} {means}.{gap}".replace("-", "−")


def _gap_covered(first: Mapping[int, float], second: Mapping[int, float], goal: Mapping[int, float]) -> str:
    """A sentence with (second - first) / (goal - first), from scores by seed; '' without a gap in every seed."""
    seeds = sorted(first.keys() & second.keys() & goal.keys())
    gaps = [goal[seed] - first[seed] for seed in seeds]
    if len(seeds) < 2 or min(gaps) * max(gaps) <= 0:
        return ""
    covered = [(second[seed] - first[seed]) / gap for seed, gap in zip(seeds, gaps, strict=True)]
    value, low, high = t_interval(covered)
    return f" It covers {value:.0%} [{low:.0%}, {high:.0%}] of the gap."


def _takeaway(rows: Sequence[TableRow], by_name: dict[str, Run]) -> str:
    """The best of the models."""
    scored = {row.model: e for row in rows if (e := _estimate(row.corrected, by_name, row.groups))}
    if not scored:
        return "No model of this task has been evaluated yet."
    lower_is_better = any(run.lower_is_better for row in rows for run in _runs(row, by_name))
    best = max(scored, key=lambda model: rank(scored[model].value, lower_is_better))
    most = "lowest" if lower_is_better else "highest"
    return f"{best[0].upper()}{best[1:]} has the {most} mean: {interval(scored[best])}."
