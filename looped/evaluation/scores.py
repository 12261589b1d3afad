"""Scores by group and loop count, answers to problems, and answers after each loop."""

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looped.costs.of_model import exit_flops, forward_flops
from looped.evaluation.turns import in_turns
from looped.intervals import interval
from looped.models.arguments import MAX_LOOPS
from looped.models.exit_rules import ExitRule
from looped.models.generated import generated, generated_scores
from looped.models.looped_model import LoopedModel
from looped.models.memory import check_memory
from looped.models.outputs import LoopedOutput
from looped.strict import check
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
    inputs = batch.inputs.to(device)
    outputs = [
        model(inputs, attention_mask=attention_mask, num_loops=counts[-1], loop_logits=counts)
        for counts in passes(model, loops)
    ]
    return torch.cat([output.loop_logits for output in outputs]).float()


def passes(model: LoopedModel, loops: Collection[int]) -> list[tuple[int, ...]]:
    """The ascending loop counts, grouped by the forward pass that computes them."""
    # The output of act depends on the largest number of loops too.
    own_pass = model.halting == "act" or model.uses_fraction
    return [(n,) for n in loops] if own_pass or not loops else [tuple(loops)]


def exit_positions(batch: Batch) -> Bool[Tensor, "batch seq"]:
    """Positions that exit rules observe, as a mask (batch, seq): the supervised ones, because only their logits are
    trained. In an example without supervised positions, these are all positions."""
    return batch.mask | ~batch.mask.any(1, keepdim=True)


@torch.no_grad()
def final_output(
    model: LoopedModel, batch: Batch, num_loops: int, rule: ExitRule | None, initial_state: Tensor | None = None
) -> LoopedOutput:
    """The model's output for a batch on its device; `initial_state` as in `LoopedModel.forward`."""
    attention_mask = None if bool(batch.attention_mask.all()) else batch.attention_mask
    return model(
        batch.inputs, attention_mask=attention_mask, num_loops=num_loops, initial_state=initial_state,
        exit_rule=rule, exit_mask=exit_positions(batch),
    )  # fmt: skip


def run_with_exits(
    model: LoopedModel, batch: Batch, num_loops: int, rule: ExitRule | None
) -> tuple[Float[Tensor, "batch seq output"], Float[Tensor, " batch"]]:
    """Final logits (batch, seq, output), and the mean loops of each example over its `exit_positions` (batch,)."""
    output, exit_mask = final_output(model, batch, num_loops, rule), exit_positions(batch)
    if output.loops_taken is None:
        return output.logits.float(), torch.full((len(batch.inputs),), float(num_loops), dtype=torch.double)
    return output.logits.float(), (output.loops_taken * exit_mask).sum(1).double() / exit_mask.sum(1)


def scores_with_exits(
    model: LoopedModel, task: Task, batch: Batch, num_loops: int, rule: ExitRule
) -> tuple[dict[str, Float[Tensor, " batch"]], Float[Tensor, " batch"]]:
    """The scores of each example and its mean loops. If answers are generated, these are the loops of their tokens."""
    logits, taken = run_with_exits(model, batch, num_loops, rule)
    scores = task.score(batch, logits)
    if task.generation is not None:
        answers, taken = generated(model, task, batch, num_loops, rule)
        scores |= task.score_generated(batch, answers)
    return scores, taken


def evaluate(
    model: LoopedModel,
    task: Task,
    *,
    loops: Sequence[int],
    examples: int,
    groups: Sequence[str] | None = None,
    split: Split = "test",
    early: tuple[int, ExitRule] | None = None,
    confidence: int | None = None,
) -> list[dict[str, Any]]:
    """Scores for groups x loop counts x metrics, with 95% intervals over examples.

    Returns a list of flat rows, from which pandas makes a frame. Their keys are the fields of `run_folder.EvalRow`
    except `step`. `value`, `low` and `high` are shares from 0 to 1, or errors for tasks with lower_is_better. Rows with
    an exit rule have two more keys, `exit_rule` and `mean_loops`; those of loops that differ between examples have
    `policy` and `mean_loops` (see `run_folder.PolicyRow`).

    Args:
        loops: distinct loop counts in any order, also beyond the trained number.
        examples: number of examples in each group; fewer if a group has fewer different ones. Groups in
            `task.whole_groups` are always evaluated in full.
        groups: None is all groups of the task.
        early: the largest number of loops, and an exit rule to score in addition.
        confidence: also score the most confident loop count of all examples, and of each example (Fan et al., 2024).
            The choice looks at so many loops beyond those that the examples need (or the trained number).

    Raises:
        ValueError: the model cannot run a loop count, a count is given twice, or a group is unknown or empty;
            confidence without classes.
    """
    loops = checked_loops(model, loops)
    check(confidence is None or confidence >= 0, "confidence", confidence, "at least 0")
    rows: list[dict[str, Any]] = []
    for group in task.groups if groups is None else groups:
        batch = sample_batch(task, split, examples, group)
        if confidence is not None and batch.targets.is_floating_point():
            raise ValueError(f"confidence={confidence}: expected a task with classes; {task.name} has real numbers")
        rows_of = partial(_rows, model, task, batch, split, group)
        most = model.num_loops if batch.loops is None else int(batch.loops.max())
        most = 0 if batch.loops is None and confidence is None else most + (confidence or 0)
        counts = checked_loops(model, sorted({*loops, *range(1, most + 1)}))
        scores, sure = _scored(model, task, batch, counts, confidence is not None)
        for count in loops:
            values = {score: values[counts.index(count)] for score, values in scores.items()}
            rows += rows_of(values, num_loops=count, flops_per_example=forward_flops(model, batch.inputs, count))
        if batch.loops is not None:
            each = Counter(batch.loops.tolist())
            flops = sum(n * forward_flops(model, batch.inputs, count) for count, n in each.items()) / len(batch.inputs)
            chosen = {"num_loops": max(each), "policy": "task", "mean_loops": batch.loops.double().mean().item()}
            rows += rows_of(_after(scores, batch.loops), flops_per_example=round(flops), **chosen)
        if sure is not None:
            cost = forward_flops(model, batch.inputs, most, most)  # the choice looks at all loops
            one, several = sure[:most].mean(1).argmax().expand(sure.shape[1]) + 1, sure[:most].argmax(0) + 1
            for policy, taken in (("confidence", one), ("confidence-example", several)):
                chosen = {"num_loops": most, "policy": policy, "mean_loops": taken.double().mean().item()}
                rows += rows_of(_after(scores, taken), flops_per_example=cost, **chosen)
        if early is not None:
            most, rule = early
            exited = in_turns(
                batch,
                part_size(model, batch, 1),
                model.device,
                lambda part, most=most, rule=rule: _with_exits(model, task, part, most, rule),
            )
            found = {score: torch.cat([values[score] for values in exited]) for score in exited[0]}
            weights = task.weights(batch)
            mean = ((found.pop("loops") * weights).sum() / weights.sum()).item()
            cost = round(exit_flops(model, batch.inputs, mean, rule.needs))
            rows += rows_of(found, num_loops=most, flops_per_example=cost, exit_rule=str(rule), mean_loops=mean)
    return rows


def _with_exits(model: LoopedModel, task: Task, part: Batch, most: int, rule: ExitRule) -> dict[str, Tensor]:
    scores, taken = scores_with_exits(model, task, part, most, rule)
    return {score: values.cpu() for score, values in (scores | {"loops": taken}).items()}


def _rows(
    model: LoopedModel,
    task: Task,
    batch: Batch,
    split: Split,
    group: str,
    scores: Mapping[str, Float[Tensor, " batch"]],
    *,
    num_loops: int,
    **more: Any,
) -> Iterator[dict[str, Any]]:
    """A row for each metric, from the scores of the examples."""
    facts = {"n": len(batch.inputs), "split": split, "trained_loops": model.num_loops}
    weights = task.weights(batch)
    for score, values in scores.items():
        for metric, found in row_of(task, score, values, weights, split, group).items():
            yield {"group": group, "num_loops": num_loops, "metric": metric, **found, **facts, **more}


def _scored(
    model: LoopedModel, task: Task, batch: Batch, loops: Sequence[int], confident: bool
) -> tuple[dict[str, Float[Tensor, "loops batch"]], Float[Tensor, "loops batch"] | None]:
    """The scores of each example after each loop count, by name, and (if wanted) the confidence of its answer."""

    def compute(part: Batch) -> tuple[dict[str, Tensor], Tensor | None]:
        logits = loop_logits(model, part, loops)
        by_loop = [
            task.score(part, after) | generated_scores(model, task, part, count)
            for count, after in zip(loops, logits, strict=True)
        ]
        scores = {score: torch.stack([scores[score] for scores in by_loop]).cpu() for score in by_loop[0]}
        sure = [confidence_of(after, exit_positions(part)) for after in logits] if confident else []
        return scores, torch.stack(sure).cpu() if confident else None

    found = in_turns(batch, part_size(model, batch, len(loops)), model.device, compute)
    scores = {score: torch.cat([scores[score] for scores, _ in found], dim=1) for score in found[0][0]}
    return scores, torch.cat([sure for _, sure in found if sure is not None], dim=1) if confident else None


def confidence_of(
    logits: Float[Tensor, "batch seq output"], mask: Bool[Tensor, "batch seq"]
) -> Float[Tensor, " batch"]:
    """The mean log-probability of the most probable classes over the masked positions (Fan et al., 2024)."""
    return (logits.log_softmax(-1).amax(-1) * mask).sum(1) / mask.sum(1)


def _after(
    scores: Mapping[str, Float[Tensor, "loops batch"]], loops: Int[Tensor, " batch"]
) -> dict[str, Float[Tensor, " batch"]]:
    """The scores of each example after its own number of loops. The first rows are those of 1, 2, ... loops."""
    return {score: values[loops - 1, torch.arange(len(loops))] for score, values in scores.items()}


def checked_loops(model: LoopedModel, loops: Sequence[int]) -> list[int]:
    """The loop counts in ascending order.

    Raises:
        ValueError: the model cannot run a loop count, a count is given twice, or there is none.
    """
    most, found = model.max_loops, sorted(loops)
    if not found or len(set(found)) < len(found) or found[0] < 1 or found[-1] > (most or MAX_LOOPS):
        limit = f"1 to {most}, for which the model has weights" if most else f"1 to {MAX_LOOPS:,}"
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
        size = part_size(model, batch, len(loops))
        return torch.cat(in_turns(batch, size, device, lambda part: loop_logits(model, part, loops).cpu()), dim=1)

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
