"""Neural networks and the Chomsky hierarchy (Delétang et al., ICLR 2023): fifteen problems on words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Float

from looped.lazy import torch
from looped.tasks.base import Batch
from looped.tasks.chomsky.config import ChomskyConfig, Problem
from looped.tasks.chomsky.problems import PROBLEMS, WordProblem
from looped.tasks.registry import TaskConfig, register
from looped.tasks.sequence import Example, SequenceTask


@register("chomsky")
class Chomsky(SequenceTask):
    """Problems on three levels of the Chomsky hierarchy (Delétang et al., 2023), for length generalisation.

    The model is trained on the lengths up to `length` and tested on longer ones. All examples of a training batch have
    one length. Blanks follow the input, one for each output, and all outputs are read at once.

    The published score is `token_accuracy`. As published, the outputs after the end of an answer count in the loss but
    not in the scores; their target is the end here and zero there. Hardly any short word exists, so a split may have
    none of a length; this is an error only if this length is evaluated.

    >>> task = Chomsky(ChomskyConfig(problem="stack_manipulation"))
    >>> print(task.describe(task.read(["01424"], "a file", "stop")[0][0]))
    chomsky stack manipulation: 01424
    answer: 110
    """

    Config = ChomskyConfig
    title = "Chomsky hierarchy"
    metric = "token_accuracy"

    @classmethod
    def example_configs(cls, folder: Path) -> Sequence[TaskConfig]:
        return [ChomskyConfig(problem=problem) for problem in get_args(Problem)]

    def __init__(self, config: ChomskyConfig) -> None:
        self.config = config
        self.vocabulary = self.problem.symbols
        self.title = f"Chomsky {config.problem.replace('_', ' ')}"
        super().__init__(config)
        self.widths = []  # a batch has one length, so nothing is padded

    @property
    def problem(self) -> WordProblem:
        """The problem's functions."""
        return PROBLEMS[self.config.problem]

    def draw(self, length: int, rng: np.random.Generator) -> str:
        return self.problem.draw(length, rng)

    def solve(self, symbols: str) -> str:
        return self.problem.solve(symbols)

    def input_length(self, length: int) -> int:
        """Without brackets, digits and operators alternate, so an even length gives one symbol less (published)."""
        return length - (self.config.problem == "modular_arithmetic" and length % 2 == 0)

    def output_length(self, length: int) -> int:
        return self.problem.slots(length)

    def loops_for(self, problem: Example) -> int:
        return self.problem.loops("".join(problem.input))

    def sample_step(self, step: int, size: int, rng: np.random.Generator) -> list[Example]:
        """One length for all examples of a step. The first one decides it, so the split has words of this length."""
        first = super().sample_step(step, 1, rng)
        length = len(first[0].input)
        return first + self._drawn("train", size - 1, rng, length, length)

    def score(
        self, batch: Batch, logits: Float[torch.Tensor, "batch seq output"]
    ) -> dict[str, Float[torch.Tensor, " batch"]]:
        """token_accuracy and accuracy (all outputs are right), both up to the first end of the answer."""
        ends = (batch.targets == len(self.symbols)) & batch.mask
        return super().score(batch._replace(mask=batch.mask & (ends.cumsum(1) - ends.long() == 0)), logits)
