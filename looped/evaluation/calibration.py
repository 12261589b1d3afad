"""Calibration: scores by loop count and by exit rule, and the cheapest setting close to the best score."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from looped.evaluation.scores import (
    PART,
    checked_loops,
    exit_positions,
    loop_logits,
    part_size,
    parts,
    row_of,
    run_with_exits,
    sample_batch,
    scores_with_exits,
)
from looped.models.early_exit import Active, EarlyExit, ExitState
from looped.models.exit_rules import ExitRule, Halting, Observation, parse_rule
from looped.models.generated import generated_scores
from looped.models.iteration import iterate
from looped.models.looped_model import LoopedModel
from looped.tasks.base import Batch, Split, Task

GRID = {
    "change": (0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
    "kl": (1e-4, 1e-3, 1e-2, 0.1),
    "entropy": (0.01, 0.03, 0.1, 0.3, 0.5),
    "unchanged": (1, 2, 3),
    "gate": (0.3, 0.5, 0.7, 0.9, 0.95),
    "act": ("",),
}
REPEATS = 5


def rules_for(model: Halting) -> list[ExitRule]:
    """The rules of the grid that a model of this configuration supports. Causal models exit per token."""
    per = "/token" if model.causal else ""
    rules = [parse_rule(f"{name}:{value}{per}") for name, values in GRID.items() for value in values]
    return [rule for rule in rules if _suits(rule, model)]


def _suits(rule: ExitRule, model: Halting) -> bool:
    try:
        rule.check(model)
    except ValueError:
        return False
    return True


def calibrate(
    model: LoopedModel,
    task: Task,
    *,
    loops: Sequence[int],
    examples: int,
    split: Split = "validation",
    tolerance: float = 0.005,
    rows: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Scores for every loop count and exit rule, a recommendation, and a warning or None.

    The keys are those of `run_folder.Calibration`, without the step and the machine.

    The recommendation is the setting with the fewest mean loops among those that score within `tolerance` of the best
    loop count. For errors, `tolerance` is relative to the error of the best loop count. Exit rules run at most as many
    loops as the best loop count.

    Args:
        loops: loop counts to score. They include the trained number.
        examples: number of examples; fewer if the split has fewer.
        tolerance: largest loss of score; for errors, the largest relative increase.
        rows: a list that gets the rows as soon as they are known.

    Raises:
        ValueError: as `evaluate` does.
    """
    loops = checked_loops(model, loops)
    batch = sample_batch(task, split, examples, None)
    sign = -1 if task.lower_is_better else 1

    def allowance(score: float) -> float:
        return tolerance * (score if task.lower_is_better else 1.0)

    rows = [] if rows is None else rows
    rows += fixed_rows(model, task, batch, loops, split)
    best = max(rows, key=lambda row: (sign * row["value"], -row["num_loops"]))
    rows += rule_rows(model, task, batch, best["num_loops"], split)
    good = [row for row in rows if sign * (row["value"] - best["value"]) >= -allowance(best["value"])]
    chosen = min(good, key=lambda row: (row["mean_loops"], -sign * row["value"]))
    rule = None if chosen["exit_rule"] is None else parse_rule(chosen["exit_rule"])
    seconds, full = wall_times(model, batch, [(chosen["num_loops"], rule), (best["num_loops"], None)])
    return {
        "metric": task.metric,
        "lower_is_better": task.lower_is_better,
        "split": split,
        "examples": len(batch.inputs),
        "tolerance": tolerance,
        "trained_loops": model.num_loops,
        "rows": rows,
        "best": best,
        "recommendation": chosen | {"seconds": seconds, "seconds_of_best": full},
        "warning": overthinking(rows, model.num_loops, task, allowance),
    }


def overthinking(rows: Sequence[dict[str, Any]], trained: int, task: Task, allowance: Any) -> str | None:
    """A sentence if more loops than in training make the score worse by more than the allowance; else None."""
    sign = -1 if task.lower_is_better else 1
    fixed = {row["num_loops"]: row["value"] for row in rows if row["exit_rule"] is None}
    worst = min((n for n in fixed if n > trained), key=lambda n: sign * fixed[n], default=trained)
    if sign * (fixed[trained] - fixed[worst]) <= allowance(fixed[trained]):
        return None
    verb = "rises" if task.lower_is_better else "falls"
    return (
        f"overthinking: {task.metric} {verb} from {fixed[trained]:.4g} at the {trained} loops of training "
        f"to {fixed[worst]:.4g} at {worst}"
    )


def fixed_rows(
    model: LoopedModel, task: Task, batch: Batch, loops: Sequence[int], split: Split
) -> list[dict[str, Any]]:
    """A row for each loop count."""
    scores: dict[int, list[dict[str, Tensor]]] = {n: [] for n in loops}
    for part in _parts(model, batch, len(loops)):
        for n, logits in zip(loops, loop_logits(model, part, loops), strict=True):
            scores[n].append(task.score(part, logits) | generated_scores(model, task, part, n))
    return [_row(task, batch, found, split, None, n, float(n)) for n, found in scores.items()]


def rule_rows(model: LoopedModel, task: Task, batch: Batch, num_loops: int, split: Split) -> list[dict[str, Any]]:
    """A row for each rule that the model supports, with at most `num_loops` loops."""
    if not (rules := rules_for(model)):
        return []
    scores: list[list[dict[str, Tensor]]] = [[] for _ in rules]
    loops: list[list[Tensor]] = [[] for _ in rules]
    for part in _parts(model, batch, 2 * num_loops):
        if task.generation is None:
            found = ((task.score(part, logits), taken) for logits, taken in exits_of(model, part, rules, num_loops))
        else:
            found = (scores_with_exits(model, task, part, num_loops, rule) for rule in rules)
        for i, (scored, taken) in enumerate(found):
            scores[i].append(scored)
            loops[i].append(taken.cpu())
    weights = task.weights(batch)
    means = [((torch.cat(taken) * weights).sum() / weights.sum()).item() for taken in loops]
    return [
        _row(task, batch, found, split, str(rule), num_loops, mean)
        for rule, found, mean in zip(rules, scores, means, strict=True)
    ]


def _parts(model: LoopedModel, batch: Batch, loops: int) -> Iterator[Batch]:
    return parts(batch, part_size(model, batch, loops), model.device)


def _row(
    task: Task,
    batch: Batch,
    scores: Sequence[dict[str, Tensor]],
    split: Split,
    rule: str | None,
    num_loops: int,
    mean_loops: float,
) -> dict[str, Any]:
    """One row of calibration.json, for the task's main metric."""
    for name in scores[0]:
        values = torch.cat([part[name].cpu() for part in scores])
        found = row_of(task, name, values, task.weights(batch), split, None)
        if task.metric in found:
            return {
                "exit_rule": rule, "num_loops": num_loops, "mean_loops": mean_loops, **found[task.metric],
            }  # fmt: skip
    raise AssertionError(f"{task.metric} is not among the scores")


# --- Exits -----------------------------------------------------------------------------------------------


@torch.no_grad()
def exits_of(
    model: LoopedModel, batch: Batch, rules: Sequence[ExitRule], num_loops: int
) -> Iterator[tuple[Float[Tensor, "batch seq output"], Float[Tensor, " batch"]]]:
    """Logits and mean loops for each rule, as from `run_with_exits`.

    The exit of one sequence does not affect other sequences. Sequence-level rules are therefore replayed on the
    observations of a single pass without exits. The exit of a token affects the tokens that attend to it, and ACT's
    output is a mean of states. Such rules are run one by one.
    """
    if model.causal or model.halting == "act":
        yield from (run_with_exits(model, batch, num_loops, rule) for rule in rules)
        return
    attention_mask, inputs = batch.attention_mask, batch.inputs
    record = Record()
    observations = record.observations
    model(
        inputs,
        attention_mask=None if bool(attention_mask.all()) else attention_mask,
        num_loops=num_loops,
        exit_rule=record,
    )
    for rule in rules:
        exit_mask = attention_mask if rule.needs == "halting" else attention_mask & exit_positions(batch)
        loops_taken = replay(model, observations, rule, exit_mask)
        logits = [observations[n - 1].logits[i] for i, n in enumerate(loops_taken.long().tolist())]
        yield torch.stack(logits).float(), loops_taken


@dataclass(frozen=True, kw_only=True, slots=True)
class Record(ExitRule):
    """A rule that never exits and records its observations."""

    observations: list[Observation] = field(default_factory=list)
    needs: ClassVar[Literal["logits"]] = "logits"

    def check(self, model: Halting) -> None:
        """Accepts every model."""

    def __call__(self, observation: Observation) -> tuple[Tensor, None]:
        self.observations.append(observation)
        after = observation.after
        return torch.zeros(after.shape[:2], dtype=torch.bool, device=after.device), None


def replay(
    model: LoopedModel, observations: Sequence[Observation], rule: ExitRule, exit_mask: Bool[Tensor, "batch seq"]
) -> Float[Tensor, " batch"]:
    """Loops that each example takes under the rule, from the recorded observations of all loops: (batch,)."""
    active = Active()
    exits = EarlyExit(
        rule,
        active,
        exit_mask,
        step=lambda state, t: active.take(observations[t].after),
        decode=lambda state, t: active.take(observations[t].logits),
        halting=model.halting_probability,
    )
    iterate(exits, ExitState(observations[0].before), len(observations), until=active.empty)
    return exits.loops_taken[:, 0].double()


def wall_times(model: LoopedModel, batch: Batch, settings: Sequence[tuple[int, ExitRule | None]]) -> list[float]:
    """Seconds that all examples take with each number of loops and rule, measured with real early exits.

    The settings are timed in turns, and the fastest turn of each counts. Other work on the machine thus affects all
    settings alike.
    """
    pieces = list(parts(batch, min(PART, part_size(model, batch, 1)), model.device))
    best = [float("inf")] * len(settings)
    for turn in range(1 + REPEATS):
        for i, (num_loops, rule) in enumerate(settings):
            began = time.perf_counter()
            for part in pieces:
                run_with_exits(model, part, num_loops, rule)[0].sum().item()  # waits for a GPU
            if turn:
                best[i] = min(best[i], time.perf_counter() - began)
    return best
