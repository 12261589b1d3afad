"""The base of tasks whose answer continues a prompt, symbol by symbol."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from looped.lazy import torch
from looped.tasks.base import Batch, Split, Task, TaskSpec, split_of
from looped.tasks.sequence import END, Example

PAD, FIRST = 0, 1  # ids of inputs; symbol k has the id FIRST + k
MULTIPLE = 16  # widths of batches are multiples of it, so few different ones occur
FRUITLESS = 10_000  # draws in a row that do not fit before drawing gives up


class CompletionTask(Task):
    """Continue a prompt with its answer. A problem is an `Example`, the symbols of both.

    The model is causal, and the symbols of the answer are its inputs too (teacher forcing): the output at the last
    symbol of the prompt is the first symbol of the answer, and so on. All symbols are right exactly if greedy decoding
    gives the answer, because until the first mistake both read the same. After a mistake they may differ.

    A subclass gives a `vocabulary`, of which the first `answers` symbols occur in answers, and the length of the
    longest prompt with its answer (`longest`). It draws problems (`draw`) and reads them (`parse`).
    """

    vocabulary: Sequence[str]
    answers: int
    """Number of symbols that occur in answers."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.symbols = {symbol: k for k, symbol in enumerate(self.vocabulary)}
        self.spec = TaskSpec(
            vocab_size=FIRST + len(self.symbols), output_size=self.answers, max_seq_len=self.longest(), causal=True
        )

    @abstractmethod
    def longest(self) -> int:
        """The largest number of symbols of a prompt with its answer, without the answer's last symbol."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, group: str | None) -> Example | None:
        """A random problem of the group; None if the draw failed and should be repeated."""

    @abstractmethod
    def parse(self, line: str) -> Example:
        """The problem in a line of a user's file, with its answer.

        Raises:
            ValueError: the line is no problem of this task.
        """

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[Example]:
        """Draw `size` independent problems with their answers.

        Raises:
            ValueError: the group is unknown, or hardly any problem fits the group and the split.
        """
        if group is not None and group not in self.groups:
            raise ValueError(f"group={group!r}: expected one of {', '.join(self.groups)}")
        found: list[Example] = []
        fruitless = 0
        while len(found) < size:
            problem = self.draw(rng, group)
            fruitless += 1
            # split_of uses a checksum that is linear in the bits, so the symbols would depend on the split.
            if problem and split_of(hashlib.sha256("\0".join(problem.input).encode()).digest()) == split:
                found.append(problem)
                fruitless = 0
            elif fruitless == FRUITLESS:
                raise ValueError(f"group={group}: found no problem in the {split} split; expected a larger task")
        return found

    def encode(self, problems: Sequence[Example]) -> Batch:
        """The prompt and the answer without its last symbol. The mask is True where the next symbol is the answer's."""
        widest = max(len(problem.input) + len(problem.output) - 1 for problem in problems)
        width = min(-(-widest // MULTIPLE) * MULTIPLE, max(self.spec.max_seq_len, widest))
        inputs, targets = np.full((2, len(problems), width), PAD)
        mask = np.zeros(inputs.shape, bool)
        for row, (prompt, answer) in enumerate(problems):
            codes = [self.symbols[symbol] for symbol in (*prompt, *answer)]
            inputs[row, : len(codes) - 1] = np.add(codes[:-1], FIRST)
            answered = slice(len(prompt) - 1, len(codes) - 1)
            targets[row, answered] = codes[len(prompt) :]
            mask[row, answered] = True
        return Batch(*map(torch.from_numpy, (inputs, targets, mask, inputs != PAD)))

    def word(self, output: int) -> str:
        return self.vocabulary[output]

    def answer(self, problem: Example, logits: Float[torch.Tensor, "seq output"]) -> dict[str, Any]:
        """The most probable symbols before the first end, each given the right ones before it."""
        words, confidence = self._predicted_words(problem, logits)
        assert confidence is not None
        return {"answer": self.printed(words), "valid": None, "confidence": float(confidence.prod())}

    def to_text(self, problem: Example) -> dict[str, str]:
        return {"input": self.printed(problem.input), "expected": self.printed(problem.output)}

    def printed(self, symbols: Sequence[str]) -> str:
        """The text of symbols, without those from the first end on."""
        return "".join(symbols).partition(END)[0]

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[list[Example], int]:
        """Read one problem a line; blank lines are ignored."""
        problems, bad = [], 0
        for number, line in enumerate(lines, start=1):
            try:
                problems += [self.parse(line)] if line.strip() else []
            except ValueError as error:
                if on_bad_row == "stop":
                    raise ValueError(f"{source}, line {number}: {error}") from None
                bad += 1
        if not problems:
            raise ValueError(f"{source}: no problem of the task {self.name} in it ({bad} bad rows)")
        return problems, bad
