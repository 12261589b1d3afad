"""Problems for length generalisation (Fan, Du, Ramchandran & Lee, ICLR 2025), which need T(n) loops at length n."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as shown  # cuts what is long

import numpy as np

from looped.lazy import torch
from looped.tasks.base import Batch, Split
from looped.tasks.n_rasp_l.config import PROBLEMS, NRaspLConfig
from looped.tasks.registry import TaskConfig, register
from looped.tasks.sequence import BLANK, FIRST, PAD, Example, SequenceTask

OPERATORS = {"addition": "+", "multiplication": "*"}
SYMBOLS = 50  # of unique_set


@register("n_rasp_l")
class NRaspL(SequenceTask):
    """Length generalisation: the problems of Fan et al. (2024), which need T(n) loops at length n.

    The whole answer is read at once. The input ends with one blank (the `=` of the paper), followed by ends of sequence
    up to the end of the row. The answer begins at the blank, and all positions after it have the target end. They count
    in the loss and in the accuracy.

    Numbers are binary and begin with the most significant bit, except for the answers of sum and multiplication, which
    begin with the least significant one. A sum of zero is empty.

    >>> task = NRaspL(NRaspLConfig(problem="addition"))
    >>> print(task.describe(task.read(["011+110"], "a file", "stop")[0][0]))
    n-rasp-l addition: 011+110
    answer: 1001
    """

    Config = NRaspLConfig
    title = "n-RASP-L"

    @classmethod
    def example_configs(cls, folder: Path) -> Sequence[TaskConfig]:
        return [NRaspLConfig(problem=problem, length=8) for problem in PROBLEMS]

    def __init__(self, config: NRaspLConfig) -> None:
        self.problem = config.problem
        self.title = f"n-RASP-L {config.problem.replace('_', ' ')}"
        self.operator = OPERATORS.get(config.problem, "")
        self.vocabulary = [*map(str, range(SYMBOLS))] if self.problem == "unique_set" else [*"01", *self.operator]
        super().__init__(config)
        self.spec = dataclasses.replace(self.spec, causal=True)

    def input_length(self, length: int) -> int:
        return {"addition": 2 * length + 1, "multiplication": length + 3}.get(self.problem, length)

    def output_length(self, length: int) -> int:
        """The positions of a row from the blank on, as published."""
        positions = {"parity": 2, "sum": max(9, length.bit_length()), "addition": (length + 9) // 2}
        return positions.get(self.problem, 3 * length - 4 if self.operator else length + 4)

    def draw(self, length: int, rng: np.random.Generator) -> Sequence[str]:
        if self.problem == "unique_set":
            return [str(symbol) for symbol in rng.integers(SYMBOLS, size=length)]
        first = {"addition": length, "multiplication": int(rng.integers(1, 3))}.get(self.problem, 0)
        bits = [str(bit) for bit in rng.integers(2, size=first + length)]
        return [*bits[:first], *self.operator, *bits[first:]]

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[Example]:
        """Draw `size` independent inputs with their answers. In evaluation a first factor has two bits (published)."""
        two_bits = self.problem == "multiplication" and group is not None
        found: list[Example] = []
        while len(found) < size:
            found += [e for e in super().sample(split, size, rng, group) if not two_bits or e.input[2] == "*"]
        return found[:size]

    def solve(self, symbols: str | tuple[str, ...]) -> Sequence[str]:
        ones = symbols.count("1")
        match self.problem:
            case "parity":
                return str(ones % 2)
            case "copy":
                return symbols
            case "sum":
                return f"{ones:b}"[::-1] if ones else ""
            case "unique_set":
                return list(dict.fromkeys(symbols))
        one, other = self._operands("".join(symbols))
        if self.problem == "addition":
            return f"{int(one, 2) + int(other, 2):0{len(one) + 1}b}"
        return f"{int(one, 2) * int(other, 2):0{len(one) + len(other)}b}"[::-1]

    def loops_for(self, problem: Example) -> int:
        """The length n of the longer number, or of the input. For multiplication the product of both lengths."""
        if not self.operator:
            return len(problem.input)
        one, other = self._operands("".join(problem.input))
        return len(other) * (len(one) if self.problem == "multiplication" else 1)

    def _operands(self, symbols: str) -> tuple[str, str]:
        one, _, other = symbols.partition(self.operator)
        fits = len(one) == len(other) if self.problem == "addition" else len(one) in (1, 2)
        if not (fits and other and symbols.count(self.operator) == 1):
            lengths = "equal length" if self.problem == "addition" else "1 or 2 bits and of any length"
            raise ValueError(f"{shown(symbols)}: expected two numbers with {self.operator} between them, of {lengths}")
        return one, other

    def encode(self, problems: Sequence[Example]) -> Batch:
        """Inputs, a blank and the answers' positions, up to the longest row of the batch."""
        width = max(len(problem.input) + self.output_length(len(problem.input)) for problem in problems)
        inputs, targets = np.full((2, len(problems), width), PAD)
        mask = np.zeros(inputs.shape, bool)
        for row, (symbols, answer) in enumerate(problems):
            start = len(symbols)
            inputs[row, :start] = [FIRST + self.symbols[symbol] for symbol in symbols]
            inputs[row, start] = BLANK
            targets[row, start:] = len(self.symbols)
            targets[row, start : start + len(answer)] = [self.symbols[symbol] for symbol in answer]
            mask[row, start:] = True
        return Batch(*map(torch.from_numpy, (inputs, targets, mask, np.ones_like(mask))))
