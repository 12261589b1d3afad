"""What a trained model can do: scores by group and loop count, answers, and pictures of the thinking."""

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from looped.evaluation.cost import flops
from looped.evaluation.metrics import interval
from looped.models.transformer import LoopedTransformer
from looped.tasks.base import Batch, Split, Task

EVALUATION_SEED = 0  # the same examples for every model
PART = 128  # examples in a forward pass, at most,
LOGITS = 1 << 28  # and so many numbers that it may read out


@torch.no_grad()
def readouts(model: LoopedTransformer, batch: Batch, loops: Collection[int]) -> Float[Tensor, "loops batch seq output"]:
    """Logits after each of `loops` (distinct, ascending), on the model's device: one pass reads out all.

    Where the modulation sees the fraction of the loops, each loop count is a computation of its own.
    """
    device = next(model.parameters()).device
    attend = None if bool(batch.attend.all()) else batch.attend.to(device)
    own_pass = model.config.modulation != "none" and model.config.timestep != "index"
    asked = [(n,) for n in loops] if own_pass else [tuple(loops)]
    inputs = batch.inputs.to(device)
    outputs = [model(inputs, attend=attend, num_loops=counts[-1], readouts=counts) for counts in asked]
    return torch.cat([output.readouts for output in outputs]).float()


def evaluate(
    model: LoopedTransformer,
    task: Task,
    *,
    loops: Sequence[int],
    examples: int,
    groups: Sequence[str] | None = None,
    split: Split = "test",
) -> Iterator[dict[str, Any]]:
    """Rows over groups x loop counts x metrics, with 95% intervals over examples (the rows of eval.jsonl).

    Args:
        loops: distinct loop counts, ascending; they may lie beyond those trained.
        examples: drawn in each group, or as many different ones as there are; a group in `task.whole_groups` is
            always evaluated in full.
        groups: None is all groups of the task.

    Raises:
        ValueError: for loop counts that the model cannot run, an unknown or empty group.
    """
    most = model.config.max_loops
    if not loops or list(loops) != sorted(set(loops)) or loops[0] < 1 or (most and loops[-1] > most):
        limit = f"1 to {most}, the rows of the learned table" if most else "1 or more"
        raise ValueError(f"loops={list(loops)}: expected different loop counts in ascending order, {limit}")
    for group in task.groups if groups is None else groups:
        batch = _examples(task, split, examples, group)
        scores: dict[tuple[int, str], list[Tensor]] = {}
        size = min(PART, LOGITS // (batch.inputs.shape[1] * (model.config.output_size or 1) * len(loops)) or 1)
        for part in parts(batch, size, next(model.parameters()).device):
            for count, logits in zip(loops, readouts(model, part, loops), strict=True):
                for metric, values in task.score(part, logits).items():
                    scores.setdefault((count, metric), []).append(values.cpu())
        most = math.inf if task.lower_is_better else 1.0
        for (count, score), values in scores.items():
            ends = interval(torch.cat(values), most, task.weights(batch))
            value, low, high = (task.reported(score, end, split, group) for end in ends)
            for metric in value:
                yield {
                    "group": group,
                    "num_loops": count,
                    "metric": metric,
                    "value": value[metric],
                    "low": low[metric],
                    "high": high[metric],
                    "n": len(batch.inputs),
                    "split": split,
                    "trained_loops": model.config.num_loops,
                    "flops_per_example": flops(model.config, batch.inputs.shape[1], count),
                }


def parts(batch: Batch, size: int, device: torch.device) -> Iterator[Batch]:
    """The batch in parts of at most `size` examples, on the device."""
    for start in range(0, len(batch.inputs), size):
        yield Batch(*(tensor[start : start + size].to(device) for tensor in batch))


def _examples(task: Task, split: Split, examples: int, group: str) -> Batch:
    different = task.available(split, group)
    size = examples if different is None else different if group in task.whole_groups else min(examples, different)
    return task.batch(split, 0, size, seed=EVALUATION_SEED, group=group)


def pictures(model: LoopedTransformer, task: Task, *, loops: int, count: int = 6) -> list[dict[str, Any]]:
    """What the model thinks after each of 1 .. loops, for `count` test problems taken from all groups in turn."""
    groups = list(itertools.islice(itertools.cycle(task.groups), count))
    drawn = [
        task.sample("test", 1, task.rng("test", 1 + i, EVALUATION_SEED, group), group)[0]
        for i, group in enumerate(groups)
    ]
    return [
        task.picture(problem, readouts(model, task.encode([problem]), range(1, loops + 1))[:, 0].cpu())
        for problem in drawn
    ]


def solve(
    model: LoopedTransformer, task: Task, problems: Sequence[Any], *, num_loops: int
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each problem with the model's answer to it (see `Task.answer`)."""
    for start in range(0, len(problems), PART):
        part = problems[start : start + PART]
        for problem, logits in zip(part, readouts(model, task.encode(part), [num_loops])[0].cpu(), strict=True):
            yield problem, task.answer(problem, logits)
