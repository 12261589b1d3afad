"""n-ary addition (Saunshi, Dikkala, Li, Kumar & Reddi, 2025): add n numbers of 3 digits."""

from __future__ import annotations

from pathlib import Path
from reprlib import repr as shown  # cuts what is long

import numpy as np

from looped.tasks.completion import CompletionTask
from looped.tasks.n_ary_addition.config import NAryAdditionConfig
from looped.tasks.registry import TaskConfig, register
from looped.tasks.sequence import END, Example


@register("n_ary_addition")
class NAryAddition(CompletionTask):
    """The sum of n operands, character by character: `315+120+045+824=` gives `1304`, and then the end.

    Operands have leading zeros, and the answer has none. The groups are numbers of operands. The publication is silent
    on tokens; each character is one here.
    """

    Config = NAryAdditionConfig
    title = "n-ary addition"
    vocabulary = (*"0123456789", END, "+", "=")
    answers = 11

    @classmethod
    def example_config(cls, folder: Path) -> TaskConfig:
        return NAryAdditionConfig(operands=(2, 3, 4), eval_operands=(4,))

    def __init__(self, config: NAryAdditionConfig) -> None:
        super().__init__(config)
        self.groups = tuple(map(str, config.eval_operands))
        if max(config.eval_operands) > max(config.operands):
            self.trained_seq_len = self._symbols(max(config.operands))

    def longest(self) -> int:
        return self._symbols(max(*self.config.operands, *self.config.eval_operands))

    def _symbols(self, n: int) -> int:
        """The largest number of symbols in `longest` with n operands."""
        return n * (self.config.digits + 1) + len(str(n * (10**self.config.digits - 1)))

    def draw(self, rng: np.random.Generator, group: str | None) -> Example:
        n = int(rng.choice(self.config.operands)) if group is None else int(group)
        return self._solved([f"{x:0{self.config.digits}}" for x in rng.integers(10**self.config.digits, size=n)])

    def parse(self, line: str) -> Example:
        """A line such as `315+120` or `315 + 120 =`."""
        operands = "".join(line.split()).removesuffix("=").split("+")
        digits, most = self.config.digits, max(*self.config.operands, *self.config.eval_operands)
        for operand in operands:
            if not (operand.isascii() and operand.isdigit() and len(operand) == digits):
                raise ValueError(f"{shown(operand)}: expected numbers of {digits} digits with + between them")
        if len(operands) > most:
            raise ValueError(f"{len(operands)} operands; expected at most {most}, the largest of the task")
        return self._solved(operands)

    @staticmethod
    def _solved(operands: list[str]) -> Example:
        return Example(tuple("+".join(operands) + "="), tuple(str(sum(map(int, operands))) + END))
