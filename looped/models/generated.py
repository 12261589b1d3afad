"""Answers that a causal model generates token by token, and their scores."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looped.models.exit_rules import ExitRule
from looped.models.generation import Sampling, stream
from looped.models.looped_model import LoopedModel
from looped.tasks.base import Task
from looped.tasks.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Greedy(Sampling):
    """The most probable token. A model that diverges writes any token, as its scores in one pass are any number."""

    temperature: float = 0.0

    def draw(self, logits: Float[Tensor, "rows vocab"], generators: object) -> Int[Tensor, " rows"]:
        return logits.argmax(-1).cpu()


def generated(
    model: LoopedModel, task: Task, batch: Batch, num_loops: int, rule: ExitRule | None = None
) -> tuple[list[list[int]], Float[Tensor, " batch"]]:
    """The answers that the model generates to a batch, and the mean loops of the tokens of each.

    Args:
        task: a task with `generation`.
        num_loops: number of loops for each token, or the largest number with an exit rule.
    """
    assert task.generation is not None
    starts = batch.mask.int().argmax(1).tolist()  # the first supervised position is the last of the prompt
    prompts = [row[: start + 1] for row, start in zip(batch.inputs.cpu(), starts, strict=True)]
    answers: list[list[int]] = [[] for _ in prompts]
    loops = torch.zeros(len(prompts), dtype=torch.double)
    options = {"max_new_tokens": task.generation.max_new_tokens, "stop": {task.generation.end}}
    for token in stream(model, prompts, sampling=Greedy(), num_loops=num_loops, exit_rule=rule, **options):
        answers[token.row].append(token.token)
        loops[token.row] += token.loops
    return answers, loops / torch.tensor([len(answer) for answer in answers])


def generated_scores(
    model: LoopedModel, task: Task, batch: Batch, num_loops: int, rule: ExitRule | None = None
) -> dict[str, Float[Tensor, " batch"]]:
    """The scores of the generated answers to a batch; none for a task that reads answers from a single pass."""
    if task.generation is None:
        return {}
    answers, _ = generated(model, task, batch, num_loops, rule)
    return task.score_generated(batch, answers)
