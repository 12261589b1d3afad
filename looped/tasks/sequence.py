"""The base of tasks with symbols as input and output. A vocabulary, a sampler and a solver are enough."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from reprlib import repr as shown  # cuts what is long
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from looped.lazy import torch
from looped.strict import check, frozen
from looped.tasks.base import Batch, Split, Task, TaskSpec, split_of
from looped.tasks.growing import Growing
from looped.tasks.registry import TaskConfig

PAD, BLANK, FIRST = 0, 1, 2  # ids of inputs; symbol k has the id FIRST + k
END = "·"  # the class after the symbols; it fills the slots after a shorter output
FRUITLESS = 10_000  # draws in a row from other splits before drawing gives up


class Example(NamedTuple):
    """An input and its answer, both as symbols of the vocabulary."""

    input: tuple[str, ...]
    output: tuple[str, ...]


@frozen
class SequenceConfig(Growing):
    """The settings of every sequence task. A task may add settings or change defaults."""

    length: int = 16
    """The longest input in training. All lengths from 1 to this are equally likely."""
    eval_lengths: tuple[int, ...] = ()
    """Further lengths for evaluation."""

    def __post_init__(self) -> None:
        Growing.__post_init__(self)
        for length in (self.length, *self.eval_lengths):
            check(length >= 1, "length", length, "at least 1")
        start = self.start_length
        check(start is None or start <= self.length, "start_length", start, f"at most length={self.length}")


class SequenceTask(Task):
    """Answer a sequence of symbols with another one. All symbols of the answer are predicted at once.

    A subclass has a `vocabulary`, draws inputs (`draw`) and solves them (`solve`). If answers have more than one
    symbol, it also gives their largest length (`output_length`). The input `0 1 1 0` with one symbol as answer becomes
    the tokens `0 1 1 0 _`, with the target at the blank `_`. The groups are lengths. A user's file has one input a
    line, with white space between the symbols if one of the vocabulary has several characters.
    """

    vocabulary: Sequence[str]
    """The symbols of inputs and outputs."""
    Config: ClassVar[type[TaskConfig]] = SequenceConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.growing: Growing | None = config if getattr(config, "start_length", None) is not None else None
        self.lengths = sorted({config.length, *config.eval_lengths})
        self.groups = tuple(map(str, self.lengths))
        self.symbols = {symbol: k for k, symbol in enumerate(self.vocabulary)}
        for symbol in self.vocabulary:
            if not isinstance(symbol, str) or "".join(symbol.split()) != symbol or symbol in ("", END):
                raise ValueError(
                    f"task {self.name}: vocabulary: {symbol!r}; expected texts without white space, not {END}"
                )
        if len(self.symbols) < len(self.vocabulary):
            raise ValueError(f"task {self.name}: vocabulary={self.vocabulary!r}: expected every symbol once")
        self.joint = "" if all(len(symbol) == 1 for symbol in self.vocabulary) else " "
        for n in map(self.input_length, self.lengths):
            check(
                self.output_length(n) >= 1, f"task {self.name}: output_length({n})", self.output_length(n), "at least 1"
            )
        self.widths = [n + self.output_length(n) for n in map(self.input_length, self.lengths)]
        self.trained_seq_len = self.widths[self.lengths.index(config.length)]
        self.spec = TaskSpec(
            vocab_size=FIRST + len(self.symbols), output_size=len(self.symbols) + 1, max_seq_len=self.widths[-1]
        )

    @abstractmethod
    def draw(self, length: int, rng: np.random.Generator) -> Sequence[str]:
        """A random input of `length` symbols, or between this and `input_length`."""

    @abstractmethod
    def solve(self, symbols: Any) -> Sequence[str]:
        """The answer to an input.

        Args:
            symbols: a string if every symbol of the vocabulary is one character, else a tuple of symbols.

        Raises:
            ValueError: the input has no answer.
        """

    def input_length(self, length: int) -> int:
        """The largest number of symbols in an input whose length is `length`. Two words may have one length."""
        return length

    def output_length(self, length: int) -> int:
        """The largest number of symbols in an answer to an input of `length` symbols."""
        return 1

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[Example]:
        """Draw `size` independent inputs with their answers.

        Raises:
            ValueError: the group is unknown, or the split has no input of that length.
        """
        if group is not None and group not in self.groups:
            raise ValueError(f"group={group!r}: expected one of {', '.join(self.groups)}")
        lengths = (1, self.config.length) if group is None else (int(group), int(group))
        return self._drawn(split, size, rng, *lengths)

    def sample_step(self, step: int, size: int, rng: np.random.Generator) -> list[Example]:
        longest = self.config.length if self.growing is None else self.growing.longest_at(step, self.config.length)
        return self._drawn("train", size, rng, 1, longest)

    def _drawn(self, split: Split, size: int, rng: np.random.Generator, shortest: int, longest: int) -> list[Example]:
        found: list[Example] = []
        fruitless = 0
        while len(found) < size:
            length = int(rng.integers(shortest, longest + 1))
            most = self.input_length(length)
            symbols = self._checked(self.draw(length, rng), f"draw({length})", min(length, most), most)
            # split_of uses a checksum that is linear in the bits: binary words alone could have one parity in a split.
            if split_of(hashlib.sha256("\0".join(symbols).encode()).digest()) == split:
                found.append(self._solved(symbols))
                fruitless = 0
            elif (fruitless := fruitless + 1) == FRUITLESS:
                raise ValueError(f"length={length}: found no input in the {split} split; expected longer inputs")
        return found

    def _solved(self, symbols: tuple[str, ...]) -> Example:
        call = f"solve({self.joint.join(symbols)!r})"
        slots = self.output_length(len(symbols))
        output = self._checked(self.solve("".join(symbols) if self.joint == "" else symbols), call, 0, slots)
        return Example(symbols, output)

    def _checked(self, symbols: Any, call: str, least: int, most: int) -> tuple[str, ...]:
        """The result of a subclass's method as symbols; ValueError for other results."""
        given = tuple(symbols) if isinstance(symbols, Iterable) else (symbols,)
        if not least <= len(given) <= most or not all(isinstance(s, str) and s in self.symbols for s in given):
            text = self.joint.join(map(str, given))
            many = f"at most {most}" if least < most else str(most)
            raise ValueError(f"task {self.name}: {call} gave {text!r}; expected {many} symbols of the vocabulary")
        return given

    def encode(self, problems: Sequence[Example]) -> Batch:
        """Inputs and blanks, padded on the right to the shortest of `lengths` that holds the batch."""
        slots = [self.output_length(len(problem.input)) for problem in problems]
        needed = max(len(problem.input) + n for problem, n in zip(problems, slots, strict=True))
        # Growing problems have no padding that they do not need.
        width = next((w for w in self.widths if w >= needed and self.growing is None), needed)
        inputs, targets = np.full((2, len(problems), width), PAD)
        mask = np.zeros(inputs.shape, bool)
        for row, (problem, n) in enumerate(zip(problems, slots, strict=True)):
            start = len(problem.input)
            inputs[row, :start] = [FIRST + self.symbols[symbol] for symbol in problem.input]
            inputs[row, start : start + n] = BLANK
            targets[row, start : start + n] = len(self.symbols)
            targets[row, start : start + len(problem.output)] = [self.symbols[symbol] for symbol in problem.output]
            mask[row, start : start + n] = True
        return Batch(*map(torch.from_numpy, (inputs, targets, mask, inputs != PAD)))

    def word(self, output: int) -> str:
        return self.vocabulary[output] if output < len(self.symbols) else END

    def answer(self, problem: Example, logits: Float[torch.Tensor, "seq output"]) -> dict[str, Any]:
        """The symbols before the first end. The confidence is the joint probability of all slots."""
        words, confidence = self._predicted_words(problem, logits)
        assert confidence is not None
        output = words[: words.index(END)] if END in words else words
        return {"answer": self.joint.join(output), "valid": None, "confidence": float(confidence.prod())}

    def to_text(self, problem: Example) -> dict[str, str]:
        return {"input": self.joint.join(problem.input), "expected": self.joint.join(problem.output)}

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[list[Example], int]:
        """Read one input a line; blank lines are ignored. `solve` gives the expected answers."""
        examples, bad = [], 0
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                examples.append(self._solved(self._parse(line)))
            except ValueError as error:
                if on_bad_row == "stop":
                    raise ValueError(f"{source}, line {number}: {error}") from None
                bad += 1
        if not examples:
            raise ValueError(f"{source}: no input of the task {self.name} in it ({bad} bad rows)")
        return examples, bad

    def _parse(self, line: str) -> tuple[str, ...]:
        symbols = tuple("".join(line.split()) if self.joint == "" else line.split())
        for symbol in symbols:
            if symbol not in self.symbols:
                raise ValueError(f"{shown(symbol)}: expected symbols of {' '.join(self.vocabulary)}")
        if len(symbols) > (most := self.input_length(self.lengths[-1])):
            raise ValueError(f"{len(symbols)} symbols; expected at most {most}, as in the longest group")
        return symbols
