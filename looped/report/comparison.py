"""Comparison of runs: variants over seeds and learning rates, test scores with 95% intervals, differences."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from looped.config import HOUSEKEEPING, OWN_LOOPS
from looped.report.read import Run
from looped.run_folder import EvalRow, Policy
from looped.strict import to_dict
from looped.tasks import TASKS


def t_quantile(degrees: int) -> float:
    """97.5% quantile of Student's t."""
    from scipy.stats import t  # imported here: scipy takes half a second, and reports of single seeds do not use it

    return float(t.ppf(0.975, degrees))


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95% interval of at least two independent values."""
    mean = float(np.mean(values))
    half = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Estimate:
    """A mean score with its 95% interval: over seeds, or with one seed over its test examples."""

    value: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Variant:
    """Runs that differ only in seed and learning rate."""

    name: str
    grid: dict[float, tuple[Run, ...]]
    """Finished runs by learning rate, in ascending order."""
    learning_rate: float
    """The one with the best mean validation score over seeds. Test scores are not used."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs at the chosen learning rate."""
        return self.grid[self.learning_rate]

    @property
    def trained_loops(self) -> int:
        return self.runs[0].trained_loops

    def mean_of(self, key: str) -> float:
        """Mean of a number in summary.json over the runs at the chosen learning rate."""
        return float(np.mean([getattr(run.summary, key) for run in self.runs if run.summary]))


@dataclass(frozen=True)
class Difference:
    """Test score of `second` minus that of `first`, paired by seed, with its 95% interval."""

    first: Variant
    second: Variant
    scores: tuple[Estimate, Estimate]
    value: float
    low: float
    high: float
    seeds: int

    @property
    def overlap(self) -> bool:
        a, b = self.scores
        return a.low <= b.high and b.low <= a.high

    @property
    def claimed(self) -> bool:
        """Several seeds, separate intervals, and an interval of the difference that excludes zero."""
        return self.seeds >= 2 and not self.overlap and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Problem:
    """All runs on one problem. Their variants are comparable."""

    task: str
    settings: str
    metric: str
    lower_is_better: bool
    """Whether the scores are errors: at least 0, without an upper bound."""
    variants: tuple[Variant, ...]
    groups: tuple[str, ...]
    """The groups whose examples enter the scores: all groups with test rows in every evaluated run. The scale of errors
    may differ between groups, so errors use only the first of them."""
    unfinished: tuple[Run, ...]
    unevaluated: tuple[Run, ...]
    """Finished runs without eval.jsonl."""
    names: dict[int, str]
    """The variant of each run, finished or not, by the run's id()."""

    def estimate(
        self, variant: Variant, metric: str, num_loops: int, learning_rate: float | None = None,
        groups: Sequence[str] | None = None,
    ) -> Estimate | None:  # fmt: skip
        """Test score, or None if no run has one. Defaults: the chosen learning rate, the shared groups."""
        runs = variant.grid[learning_rate or variant.learning_rate]
        scores = [score for run in runs if (score := run_score(run, metric, num_loops, groups or self.groups))]
        return self.over_seeds(scores)

    def over_seeds(self, scores: Sequence[tuple[float, float, float]]) -> Estimate | None:
        """The estimate from the score of each seed with its interval; None without a score."""
        if len(scores) < 2:
            return Estimate(*scores[0], seeds=1) if scores else None
        mean, low, high = t_interval([value for value, _, _ in scores])
        most = np.inf if self.lower_is_better else 1.0
        return Estimate(mean, max(low, 0.0), min(high, most), len(scores))

    def headline(self, variant: Variant) -> Estimate | None:
        """The main test score, at the loops the variant was trained for."""
        return self.estimate(variant, self.metric, variant.trained_loops)

    def rank(self, score: float | None) -> float:
        """A number that is higher for a better score; minus infinity for None."""
        return rank(score, self.lower_is_better)

    def loops(self, variant: Variant) -> list[int]:
        """The loop counts at which the variant was evaluated."""
        return sorted({row.num_loops for run in variant.runs for row in run.test_rows})

    @property
    def all_groups(self) -> list[str]:
        return list(dict.fromkeys(row.group for v in self.variants for run in v.runs for row in run.test_rows))

    @property
    def metrics(self) -> list[str]:
        """All metrics of the evaluation, with the main one first."""
        names = [row.metric for v in self.variants for run in v.runs for row in run.test_rows]
        return list(dict.fromkeys([self.metric, *names]))

    @property
    def context_curves(self) -> dict[str, list[tuple[int, float, float, float]]]:
        """Points in context, score, low and high, by variant (at the loops in training) and by baseline.

        The first seed of each variant, on the first group; its 95% intervals are over prompts.
        """
        models: dict[str, list[tuple[int, float, float, float]]] = {}
        baselines: dict[str, list[tuple[int, float, float, float]]] = {}
        for variant in self.variants:
            baselines.clear()  # the baselines of every variant are the same
            for row in variant.runs[0].in_context:
                wanted = row.group in self.groups[:1] and row.num_loops in (None, variant.trained_loops)
                if wanted and row.split == "test":
                    curves, name = (models, variant.name) if row.method == "model" else (baselines, row.method)
                    curves.setdefault(name, []).append((row.points, row.value, row.low, row.high))
        return models | baselines if models else {}

    @property
    def differences(self) -> list[Difference]:
        """All pairs of variants that were trained for an equal number of loops."""
        pairs = [p for p in combinations(self.variants, 2) if p[0].trained_loops == p[1].trained_loops]
        return [difference for pair in pairs if (difference := _difference(self, *pair))]


def run_score(run: Run, metric: str, num_loops: int, groups: Sequence[str]) -> tuple[float, float, float] | None:
    """Mean over the test examples of all `groups`, and its interval over examples; None if a group is missing.

    The loops in training are those that each example needs, if the run was trained so (train.loss=task or steps).
    """
    if run.config.train.loss in OWN_LOOPS and num_loops == run.trained_loops:
        return policy_score(run, metric, "task", groups)
    return _pooled([r for r in run.test_rows if r.metric == metric and r.num_loops == num_loops], groups)


def policy_score(run: Run, metric: str, policy: Policy, groups: Sequence[str]) -> tuple[float, float, float] | None:
    """The same at loops that were chosen for each example or group."""
    rows = [r for r in run.policy_rows if r.policy == policy and r.split == "test" and r.metric == metric]
    return _pooled(rows, groups)


def mean_loops(runs: Sequence[Run], policy: Policy, group: str) -> float:
    """Mean over runs and test examples of the loops that were chosen; NaN without such rows."""
    wanted = (policy, group, "test")
    found = [r.mean_loops for run in runs for r in run.policy_rows if (r.policy, r.group, r.split) == wanted]
    return float(np.mean(found)) if found else np.nan


def exit_score(run: Run, metric: str, groups: Sequence[str]) -> tuple[str, float, Estimate] | None:
    """The exit rule with which the run was evaluated, its mean loops and score on test examples; None without one."""
    rows = [r for r in run.exit_rows if r.metric == metric and r.split == "test" and r.group in groups]
    score = _pooled(rows, groups)
    if score is None:
        return None
    loops = np.average([r.mean_loops for r in rows], weights=[r.n for r in rows])
    return rows[0].exit_rule, float(loops), Estimate(*score, seeds=1)


def _pooled(found: Sequence[EvalRow], groups: Sequence[str]) -> tuple[float, float, float] | None:
    rows = {row.group: row for row in found}
    if not groups or not set(groups) <= rows.keys():
        return None
    chosen = [rows[group] for group in groups]
    weights = np.array([row.n for row in chosen]) / sum(row.n for row in chosen)
    value, low, high = (np.array([getattr(row, key) for row in chosen]) for key in ("value", "low", "high"))
    mean = float(weights @ value)
    # The groups' examples are independent, so the half widths add in squares.
    below, above = (float(np.linalg.norm(weights * side)) for side in (value - low, high - value))
    return mean, mean - below, mean + above


def _difference(problem: Problem, first: Variant, second: Variant) -> Difference | None:
    a, b = problem.headline(first), problem.headline(second)
    if a is None or b is None:
        return None
    by_seed: list[dict[int, float]] = []
    for variant in (first, second):
        found = {r.seed: run_score(r, problem.metric, variant.trained_loops, problem.groups) for r in variant.runs}
        by_seed.append({seed: score[0] for seed, score in found.items() if score})
    return Difference(first, second, (a, b), *paired(by_seed[0], by_seed[1], a, b))


def paired(
    first: Mapping[int, float], second: Mapping[int, float], a: Estimate, b: Estimate
) -> tuple[float, float, float, int]:
    """Second minus first score, its 95% interval, and the number of shared seeds.

    Args:
        first, second: scores by seed.
        a, b: their estimates, used if they share fewer than two seeds.
    """
    seeds = first.keys() & second.keys()
    if len(seeds) >= 2:
        return *t_interval([second[seed] - first[seed] for seed in sorted(seeds)]), len(seeds)
    value = b.value - a.value
    low = value - float(np.hypot(b.value - b.low, a.high - a.value))  # independent: half widths add in squares
    high = value + float(np.hypot(b.high - b.value, a.value - a.low))
    return value, low, high, len(seeds)


def problems(runs: Sequence[Run]) -> list[Problem]:
    """The runs grouped into problems and variants. The problem with the most variants comes first.

    Raises:
        ValueError: two finished runs have the same variant, learning rate and seed.
    """
    by_problem: dict[str, list[Run]] = {}
    for run in runs:
        task = run.config.task
        settings = {key: value for key, value in to_dict(task).items() if key not in TASKS[task.name].presentation}
        by_problem.setdefault(str(settings), []).append(run)
    return sorted((_problem(members) for members in by_problem.values()), key=lambda p: -len(p.variants))


def _problem(runs: Sequence[Run]) -> Problem:
    # A run that was interrupted counts if it was evaluated. The last table shows its step.
    done = [run for run in runs if run.finished or (run.summary and run.test_rows)]
    tested = [run for run in done if run.test_rows]
    shared = list(dict.fromkeys(row.group for run in tested for row in run.test_rows))
    for run in tested:
        present = {row.group for row in run.test_rows}
        shared = [group for group in shared if group in present]
    task = runs[0].config.task
    names = _names(runs)
    lower_is_better = any(run.lower_is_better for run in runs)
    plain, presentation = to_dict(task), TASKS[task.name].presentation
    changed = [
        f"{field.name.replace('_', ' ')} {_plain(plain[field.name])}"
        for field in dataclasses.fields(task)
        if field.name not in presentation and getattr(task, field.name) != field.default
    ]
    return Problem(
        task=task.name,
        settings=", ".join(changed),
        metric=next((run.metric for run in [*done, *runs] if run.metric), "score"),
        lower_is_better=lower_is_better,
        variants=tuple(sorted(_variants(done, names, lower_is_better), key=_order)),
        groups=tuple(shared[:1] if lower_is_better else shared),
        unfinished=tuple(run for run in runs if run not in done),
        unevaluated=tuple(run for run in done if not run.test_rows),
        names=names,
    )


def _plain(value: Any) -> str:
    return " ".join(str(v).rsplit("/", 1)[-1] for v in value) if isinstance(value, list) else str(value)


def _order(variant: Variant) -> tuple[float, ...]:
    return (float(variant.trained_loops), variant.mean_of("effective_depth"), variant.mean_of("parameters"))


def _names(runs: Sequence[Run]) -> dict[int, str]:
    """The variant of each run, by the run's id(): its recipe and the settings in which runs of that recipe differ."""
    names: dict[int, str] = {}
    for recipe in dict.fromkeys(run.config.recipe for run in runs):
        same = [run for run in runs if run.config.recipe == recipe]
        settings = [_settings(run) for run in same]
        keys = dict.fromkeys(key for values in settings for key in values)
        differing = [key for key in keys if len({values.get(key) for values in settings}) > 1]
        for run, values in zip(same, settings, strict=True):
            extra = ", ".join(f"{key.split('.', 1)[1]}={values.get(key)}" for key in differing)
            names[id(run)] = f"{recipe} ({extra})" if extra else recipe
    return names


def _settings(run: Run) -> dict[str, str]:
    """All settings that define the variant, as 'section.field': text."""
    parts = {part: values for part, values in to_dict(run.config).items() if isinstance(values, dict)}
    flat = {f"{part}.{key}": str(value) for part, values in parts.items() for key, value in values.items()}
    free = {"optim.learning_rate", "train.seed", *(f"train.{key}" for key in HOUSEKEEPING)}
    return {key: value for key, value in flat.items() if key not in free}


def _variants(done: Sequence[Run], names: dict[int, str], lower_is_better: bool) -> list[Variant]:
    variants = []
    for name in dict.fromkeys(names[id(run)] for run in done):
        grid: dict[float, tuple[Run, ...]] = {}
        mine = sorted((r for r in done if names[id(r)] == name), key=lambda r: (r.learning_rate, r.seed))
        for run in mine:
            before = grid.get(run.learning_rate, ())
            if before and before[-1].seed == run.seed:
                raise ValueError(f"{run.folder}: the same variant, learning rate and seed as {before[-1].folder}")
            grid[run.learning_rate] = (*before, run)
        ranks = {rate: rank(validation_mean(runs), lower_is_better) for rate, runs in grid.items()}
        variants.append(Variant(name, grid, max(ranks, key=lambda rate: ranks[rate])))
    return variants


def rank(score: float | None, lower_is_better: bool) -> float:
    """A number that is higher for a better score; minus infinity for None and NaN."""
    if score is None or np.isnan(score):
        return -np.inf
    return -score if lower_is_better else score


def validation_mean(runs: Sequence[Run]) -> float | None:
    """Mean over seeds of the best validation score, or None if a run has none."""
    scores = [run.best_validation for run in runs]
    return float(np.mean([score for score in scores if score is not None])) if None not in scores else None
