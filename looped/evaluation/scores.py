"""Scores by group and loop count, answers to problems, and answers after each loop."""

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from looped.costs.of_model import exit_flops, forward_flops
from looped.intervals import interval
from looped.models.arguments import MAX_LOOPS
from looped.models.exit_rules import ExitRule
from looped.models.looped_model import LoopedModel
from looped.models.memory import check_memory
from looped.models.outputs import own_logits
from looped.tasks.base import Batch, Predict, Split, Task

EVALUATION_SEED = 0  # every model gets the same examples
PART = 128  # the largest number of examples in a forward pass
LOGITS = 1 << 28  # the largest number of logits in a forward pass


@torch.no_grad()
def loop_logits(model: LoopedModel, batch: Batch, loops: Collection[int]) -> Float[Tensor, "loops batch seq output"]:
    """Logits after each of `loops` loops, on the model's device: (loops, batch, seq, output).

    One pass computes all of them, with two exceptions. If the modulation depends on t / num_loops, each loop count
    needs a pass of its own. The same holds for halting="act", and a loop count is then the largest number of loops.

    Args:
        loops: distinct loop counts, ascending.
    """
    device = model.device
    attention_mask = None if bool(batch.attention_mask.all()) else batch.attention_mask.to(device)
    # The output of act depends on the largest number of loops too.
    own_pass = model.halting == "act" or model.uses_fraction
    passes = [(n,) for n in loops] if own_pass else [tuple(loops)]
    inputs = batch.inputs.to(device)
    outputs = [
        model(inputs, attention_mask=attention_mask, num_loops=counts[-1], loop_logits=counts) for counts in passes
    ]
    return torch.cat([output.loop_logits for output in outputs]).float()


def exit_positions(batch: Batch) -> Bool[Tensor, "batch seq"]:
    """Positions that exit rules observe, as a mask (batch, seq): the supervised ones, because only their logits are
    trained. In an example without supervised positions, these are all positions."""
    return batch.mask | ~batch.mask.any(1, keepdim=True)


@torch.no_grad()
def run_with_exits(
    model: LoopedModel, batch: Batch, num_loops: int, rule: ExitRule | None
) -> tuple[Float[Tensor, "batch seq output"], Float[Tensor, " batch"]]:
    """Final logits (batch, seq, output), and the mean loops of each example over its `exit_positions` (batch,)."""
    attention_mask = None if bool(batch.attention_mask.all()) else batch.attention_mask
    exit_mask = exit_positions(batch)
    output = model(
        batch.inputs, attention_mask=attention_mask, num_loops=num_loops, exit_rule=rule, exit_mask=exit_mask
    )
    if output.loops_taken is None:
        return output.logits.float(), torch.full((len(batch.inputs),), float(num_loops), dtype=torch.double)
    return output.logits.float(), (output.loops_taken * exit_mask).sum(1).double() / exit_mask.sum(1)


def evaluate(
    model: LoopedModel,
    task: Task,
    *,
    loops: Sequence[int],
    examples: int,
    groups: Sequence[str] | None = None,
    split: Split = "test",
    early: tuple[int, ExitRule] | None = None,
) -> list[dict[str, Any]]:
    """Scores for groups x loop counts x metrics, with 95% intervals over examples.

    Returns a list of flat rows, from which pandas makes a frame. Their keys are the fields of `run_folder.EvalRow`
    except `step`. `value`, `low` and `high` are shares from 0 to 1, or errors for tasks with lower_is_better. Rows with
    an exit rule have two more keys, `exit_rule` and `mean_loops`.

    Args:
        loops: distinct loop counts in any order, also beyond the trained number.
        examples: number of examples in each group; fewer if a group has fewer different ones. Groups in
            `task.whole_groups` are always evaluated in full.
        groups: None is all groups of the task.
        early: the largest number of loops, and an exit rule to score in addition.

    Raises:
        ValueError: the model cannot run a loop count, a count is given twice, or a group is unknown or empty.
    """
    loops = checked_loops(model, loops)
    rows = []
    for group in task.groups if groups is None else groups:
        batch = sample_batch(task, split, examples, group)
        scores: dict[tuple[int, str], list[Tensor]] = {}
        device = model.device
        for part in parts(batch, part_size(model, batch, len(loops)), device):
            for count, logits in zip(loops, loop_logits(model, part, loops), strict=True):
                for metric, values in task.score(part, logits).items():
                    scores.setdefault((count, metric), []).append(values.cpu())
        facts = {"n": len(batch.inputs), "split": split, "trained_loops": model.num_loops}
        weights = task.weights(batch)
        for (count, score), values in scores.items():
            cost = {"flops_per_example": forward_flops(model, batch.inputs, count)}
            for metric, found in row_of(task, score, torch.cat(values), weights, split, group).items():
                rows.append({"group": group, "num_loops": count, "metric": metric, **found, **facts, **cost})
        if batch.loops is not None:
            rows += _own_rows(model, task, batch, split, group, weights, facts)
        if early is None:
            continue
        most, rule = early
        exited: dict[str, list[Tensor]] = {}
        for part in parts(batch, part_size(model, batch, 1), device):
            logits, taken = run_with_exits(model, part, most, rule)
            for score, values in (task.score(part, logits) | {"loops": taken}).items():
                exited.setdefault(score, []).append(values.cpu())
        mean = ((torch.cat(exited.pop("loops")) * weights).sum() / weights.sum()).item()
        cost = {"flops_per_example": round(exit_flops(model, batch.inputs, mean, rule.needs))}
        exits = {"exit_rule": str(rule), "mean_loops": mean}
        for score, values in exited.items():
            for metric, found in row_of(task, score, torch.cat(values), weights, split, group).items():
                rows.append({"group": group, "num_loops": most, "metric": metric, **found, **facts, **cost, **exits})
    return rows


def _own_rows(
    model: LoopedModel, task: Task, batch: Batch, split: Split, group: str, weights: Tensor, facts: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows at the loops that the task says each example needs."""
    assert batch.loops is not None
    most = int(batch.loops.max())
    scores: dict[str, list[Tensor]] = {}
    for part in parts(batch, part_size(model, batch, most), model.device):
        assert part.loops is not None
        logits = own_logits(loop_logits(model, part, range(1, int(part.loops.max()) + 1)), part.loops)
        for score, values in task.score(part, logits).items():
            scores.setdefault(score, []).append(values.cpu())
    counts = Counter(batch.loops.tolist())
    flops = sum(n * forward_flops(model, batch.inputs, loops) for loops, n in counts.items())
    chosen = {
        "policy": "task",
        "mean_loops": batch.loops.double().mean().item(),
        "flops_per_example": round(flops / len(batch.inputs)),
    }
    return [
        {"group": group, "num_loops": most, "metric": metric, **found, **facts, **chosen}
        for score, values in scores.items()
        for metric, found in row_of(task, score, torch.cat(values), weights, split, group).items()
    ]


def checked_loops(model: LoopedModel, loops: Sequence[int]) -> list[int]:
    """The loop counts in ascending order.

    Raises:
        ValueError: the model cannot run a loop count, a count is given twice, or there is none.
    """
    most, found = model.max_loops, sorted(loops)
    if not found or len(set(found)) < len(found) or found[0] < 1 or found[-1] > (most or MAX_LOOPS):
        limit = f"1 to {most}, the rows of the learned table" if most else f"1 to {MAX_LOOPS:,}"
        raise ValueError(f"loops={found}: expected different loop counts, {limit}")
    return found


def row_of(
    task: Task, score: str, values: Float[Tensor, " n"], weights: Float[Tensor, " n"], split: Split, group: str | None
) -> dict[str, dict[str, float]]:
    """The value, low and high end that the task reports for a score, by metric."""
    ends = interval(values, math.inf if task.lower_is_better else 1.0, weights)
    value, low, high = (task.reported(score, end, split, group) for end in ends)
    return {metric: {"value": value[metric], "low": low[metric], "high": high[metric]} for metric in value}


def part_size(model: LoopedModel, batch: Batch, loops: int) -> int:
    """Number of examples in a forward pass that computes the logits of `loops` loops."""
    return min(PART, LOGITS // (batch.inputs.shape[1] * (model.output_size or 1) * loops) or 1)


def parts(batch: Batch, size: int, device: torch.device) -> Iterator[Batch]:
    """The batch in parts of at most `size` examples, on the device."""
    for start in range(0, len(batch.inputs), size):
        yield batch.map(lambda tensor, start=start: tensor[start : start + size].to(device))


def sample_batch(task: Task, split: Split, examples: int, group: str | None) -> Batch:
    """The examples for evaluation, equal for all models; group=None is the training distribution."""
    different = task.available(split, group)
    size = examples if different is None else different if group in task.whole_groups else min(examples, different)
    check_examples(task, split, size, group)
    return task.batch(split, 0, size, seed=EVALUATION_SEED, group=group)


def check_examples(task: Task, split: Split, size: int, group: str | None) -> None:
    """Raise ValueError if so many examples need more memory than the machine has."""
    one = task.batch(split, 0, 1, seed=EVALUATION_SEED, group=group)
    check_memory(f"examples={size}", size * one.nbytes, torch.device("cpu"))


def predictor(model: LoopedModel) -> Predict:
    """The model as a function for `Task.extra_evaluation`."""
    device = model.device

    def predict(batch: Batch, loops: Sequence[int]) -> Float[Tensor, "loops batch seq output"]:
        found = [
            loop_logits(model, part, loops).cpu() for part in parts(batch, part_size(model, batch, len(loops)), device)
        ]
        return torch.cat(found, dim=1)

    return predict


def visualisations(model: LoopedModel, task: Task, *, loops: int, count: int = 6) -> list[dict[str, Any]]:
    """The answers to `count` test problems, taken from all groups in turn, after each of 1 .. loops."""
    groups = list(itertools.islice(itertools.cycle(task.groups), count))
    drawn = [
        task.sample("test", 1, task.rng("test", 1 + i, EVALUATION_SEED, group), group)[0]
        for i, group in enumerate(groups)
    ]
    return [
        task.visualise(problem, loop_logits(model, task.encode([problem]), range(1, loops + 1))[:, 0].cpu())
        for problem in drawn
    ]


def solve(
    model: LoopedModel, task: Task, problems: Sequence[Any], *, num_loops: int | None, exit_rule: ExitRule | None = None
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Pairs of a problem and the model's answer to it (see `Task.answer`), in order. This is a generator.

    Args:
        problems: problems from `Task.sample` or `Task.read`.
        num_loops: number of loops, or the largest number with an exit rule. None is as many as the task says that each
            problem needs.
        exit_rule: ends the loop early.

    Raises:
        ValueError: num_loops=None, and the task does not say how many loops a problem needs.
    """
    for start in range(0, len(problems), PART):
        part = problems[start : start + PART]
        batch = next(parts(task.with_loops(task.encode(part), part), PART, model.device))
        if num_loops is not None:
            logits, _ = run_with_exits(model, batch, num_loops, exit_rule)
        elif batch.loops is not None:
            logits = own_logits(loop_logits(model, batch, range(1, int(batch.loops.max()) + 1)), batch.loops)
        else:
            raise ValueError(
                f"num_loops=None: expected a number; the task {task.name} does not say how many are needed"
            )
        for problem, row in zip(part, logits.cpu(), strict=True):
            yield problem, task.answer(problem, row)
