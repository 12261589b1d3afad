"""Tasks as users write them: a sequence task of its own lengths, and two with nothing but a sampler and an encoding."""

from collections.abc import Sequence

import numpy as np
import torch

from looped.tasks import Batch, SequenceTask, Task, TaskConfig, TaskSpec, frozen, register, split_of
from looped.tasks.base import Split
from looped.tasks.sequence import SequenceConfig


@register("collapse")
class Collapse(SequenceTask):
    """Every run of equal symbols becomes one symbol: a a ch b b gives a ch b."""

    vocabulary = ("a", "b", "ch")

    @frozen
    class Config(SequenceConfig):
        """The settings of collapse."""

        length: int = 7

    def draw(self, length: int, rng: np.random.Generator) -> list[str]:
        return rng.choice(["a", "b", "ch"], length).tolist()

    def solve(self, symbols: Sequence[str]) -> list[str]:
        return [symbol for k, symbol in enumerate(symbols) if k == 0 or symbols[k - 1] != symbol]

    def output_length(self, length: int) -> int:
        return length


class Drawn(Task):
    """Rows of five digits, each with the split that its content says."""

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[list[int]]:
        if group not in (None, *self.groups):
            raise ValueError(f"group={group!r}: expected one of {', '.join(self.groups)}")
        rows = rng.integers(10, size=(64 * size, 5)).tolist()
        return [row for row in rows if split_of(bytes(row)) == split][:size]


@register("successor")
class Successor(Drawn):
    """The successor of each digit but the first."""

    @frozen
    class Config(TaskConfig):
        """No settings."""

    spec = TaskSpec(vocab_size=10, output_size=11, max_seq_len=5)

    def encode(self, problems: Sequence[list[int]]) -> Batch:
        inputs = torch.tensor(problems)
        mask = torch.ones_like(inputs, dtype=torch.bool)
        return Batch(inputs, inputs + 1, mask & (torch.arange(5) > 0), mask)


@register("sums")
class Sums(Drawn):
    """The sum of the digits so far, as a real number."""

    @frozen
    class Config(TaskConfig):
        """No settings."""

    metric = "squared_error"  # so lower is better
    spec = TaskSpec(inputs="vectors", input_dim=1, output_size=1, max_seq_len=5)

    def encode(self, problems: Sequence[list[int]]) -> Batch:
        inputs = torch.tensor(problems).float()
        mask = torch.ones_like(inputs, dtype=torch.bool)
        return Batch(inputs[..., None], inputs.cumsum(1), mask & (torch.arange(5) > 0), mask)
