"""The longest increasing subsequence (Feng et al., 2023): its length, with or without those that end at each number."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from looped.tasks.chains import Problem, Words
from looped.tasks.increasing_subsequence.config import IncreasingSubsequenceConfig
from looped.tasks.registry import TaskConfig, register
from looped.tasks.rounds import RoundsTask

ROUND = 10  # lengths in a round


@register("increasing_subsequence")
class IncreasingSubsequence(RoundsTask):
    """The length of the longest strictly increasing subsequence.

    Example: `70 80 75 90 <sep>` has the chain `1 2 2 3 <sep>` and the answer `3`. The chain has, for each number, the
    length of the longest increasing subsequence that ends there. A sequence has one to three increasing runs of 3 to n
    numbers together, at random places; its other numbers are uniform. All of them are larger than the longest length,
    because lengths are words too.
    """

    Config = IncreasingSubsequenceConfig
    title = "Longest increasing subsequence"
    separator = "<sep>"

    @classmethod
    def example_config(cls, folder: Path) -> TaskConfig:
        return IncreasingSubsequenceConfig(length=8)

    def vocabulary(self) -> Sequence[str]:
        return ["<sep>", *map(str, range(1, self.config.numbers))]

    def most_words(self, length: int) -> tuple[int, int, int]:
        return length + 1, length + 1, 1

    def draw(self, length: int, count: int, rng: np.random.Generator) -> list[Problem]:
        low, high = self.longest + 1, self.config.numbers
        sequences = rng.integers(low, high, (count, length))
        for sequence in sequences:
            total, runs = int(rng.integers(3, length + 1)), int(rng.integers(1, 4))
            lengths: list[int] = []
            for left in range(runs, 0, -1):  # as in the public code, which never makes the last run negative
                rest = total - sum(lengths)
                lengths.append(rest if left == 1 else int(rng.integers(rest // left + 1)) + 1)
            planted = [np.sort(rng.choice(high - low, n, replace=False)) for n in lengths]
            places = np.sort(rng.choice(length, total, replace=False))
            sequence[places] = low + np.concatenate(planted)
        return [self._problem(sequence) for sequence in sequences.tolist()]

    def _problem(self, numbers: Sequence[int]) -> Problem:
        lengths = [str(n) for n in lengths_at(numbers)]
        best = max(map(int, lengths))
        return Problem((*map(str, numbers), "<sep>"), (*lengths, "<sep>"), (str(best),))

    def rounds(self, problem: Problem) -> list[Words]:
        """Ten lengths a round. The last of them is repeated to fill the last round."""
        lengths = problem.chain[:-1]
        lengths += lengths[-1:] * (-len(lengths) % ROUND)
        return [(*lengths[i : i + ROUND], "<sep>") for i in range(0, len(lengths), ROUND)]

    def chain(self, question: Words, rounds: Sequence[Words]) -> Words:
        lengths = sum((words[:-1] for words in rounds), ())
        return (*lengths[: len(question) - 1], "<sep>")

    def solve(self, words: Words) -> Problem:
        numbers = [int(word) for word in words if word.isdigit()]
        if len(numbers) < len(words) or not numbers or min(numbers) <= self.longest:
            raise ValueError(f"expected numbers from {self.longest + 1} to {self.config.numbers - 1}")
        return self._problem(numbers)


def lengths_at(numbers: Sequence[int]) -> list[int]:
    """The length of the longest strictly increasing subsequence that ends at each number."""
    smallest: list[int] = []  # the smallest last number of an increasing subsequence of each length
    lengths = []
    for number in numbers:
        shorter = bisect_left(smallest, number)
        smallest[shorter : shorter + 1] = [number]
        lengths.append(shorter + 1)
    return lengths
