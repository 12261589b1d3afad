"""Edit distance (Feng et al., 2023), with or without the rows of its table."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as shown  # cuts what is long

import numpy as np
from jaxtyping import Int

from looped.tasks.chains import Problem, Words
from looped.tasks.edit_distance_chain.config import EditDistanceChainConfig
from looped.tasks.pairs import StringPairs, by_length
from looped.tasks.registry import TaskConfig, register
from looped.tasks.rounds import RoundsTask

GAP, REPLACE = 2, 3


@register("edit_distance_chain")
class EditDistanceChain(StringPairs, RoundsTask):
    """The edit distance of two strings (insert 2, delete 2, replace 3), after the rows of its table.

    Example: `a b | a c b <sep>` has the chain `0 2 4 , 2 3 2 , <sep>` and the answer `2`. Row i has the distances of
    the first i letters of the first string from 1, 2, .. letters of the second. The pairs are those of the task
    edit_distance: independent strings, or a copy after some edits. The shorter string comes first.
    """

    Config = EditDistanceChainConfig
    title = "Edit distance with its table"
    separator = "<sep>"
    edits = ("delete", "replace", "insert")
    shorter_first = True

    @classmethod
    def example_config(cls, folder: Path) -> TaskConfig:
        return EditDistanceChainConfig(length=4)

    def vocabulary(self) -> Sequence[str]:
        most = REPLACE * (self.longest + 2)  # all letters replaced or inserted
        return ["|", ",", "<sep>", *string.ascii_lowercase, *map(str, range(most + 1))]

    def most_words(self, length: int) -> tuple[int, int, int]:
        return 2 * length + 4, length * (length + 3) + 1, 1

    def _num_edits(self, strength: Int[np.ndarray, " pairs"], rng: np.random.Generator) -> Int[np.ndarray, " pairs"]:
        return strength

    def draw(self, length: int, count: int, rng: np.random.Generator) -> list[Problem]:
        return [self._problem(*pair) for pair in self.draw_pairs(length, count, rng)]

    def _problem(self, first: str, second: str) -> Problem:
        rows = table(first, second, 1 if self.config.version == "published" else GAP)
        chain = [word for row in rows for word in (*map(str, row), ",")]
        return Problem((*first, "|", *second, "<sep>"), (*chain, "<sep>"), (str(rows[-1][-1]),))

    def rounds(self, problem: Problem) -> list[Words]:
        """One row of the table a round."""
        return [(*row.split(), ",") for row in " ".join(problem.chain).split(",")[:-1]]

    def chain(self, question: Words, rounds: Sequence[Words]) -> Words:
        return (*sum(rounds, ()), "<sep>")

    def solve(self, words: Words) -> Problem:
        strings, most = "".join(words).split("|"), self.longest
        if len(strings) != 2 or not all(re.fullmatch("[a-z]+", text) for text in strings):
            raise ValueError(f"{shown(''.join(words))}: expected two strings such as kitten | sitting")
        first, second = by_length(*strings)
        if len(first) > most or len(second) > most + 2:
            raise ValueError(f"{len(first)} and {len(second)} letters; expected at most {most} and {most + 2}")
        return self._problem(first, second)

    def split(self, line: str) -> Sequence[str]:
        return re.findall(r"<sep>|\S", line)


def table(first: str, second: str, border: int) -> list[list[int]]:
    """The distances of the prefixes of `first` (rows) from those of `second` (columns), both of at least one letter.

    Args:
        border: cost of a gap before the first letter of a string.
    """
    above = [border * j for j in range(len(second) + 1)]
    rows = []
    for i, letter in enumerate(first, start=1):
        row = [border * i]
        for j, other in enumerate(second, start=1):
            row.append(min(above[j] + GAP, row[-1] + GAP, above[j - 1] + (0 if letter == other else REPLACE)))
        rows.append(row[1:])
        above = row
    return rows
