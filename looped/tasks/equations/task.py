"""Linear equations modulo a prime (Feng et al., 2023): their solution, with or without Gauss-Jordan elimination."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from reprlib import repr as shown  # cuts what is long

import numpy as np

from looped.tasks.chains import ChainTask, Problem, Words
from looped.tasks.equations.config import EquationsConfig
from looped.tasks.registry import register

Matrix = list[list[int]]


@register("equations")
class Equations(ChainTask):
    """The solution of as many linear equations as variables, modulo a prime.

    Example for the prime 11: `2 a + 1 b = 1 , 1 a + 3 b = 0 <sep>` has the answer `a = 5 , b = 2`. The chain has the
    equations after each variable but the last is eliminated. To eliminate a variable, the first equation from its own
    place on that has it is moved to this place, divided by the coefficient, and subtracted from all others. Terms of
    variables that are not yet eliminated are always written with their coefficient, the others only if they are there.
    """

    Config = EquationsConfig
    separator = "<sep>"

    def vocabulary(self) -> Sequence[str]:
        self.modulus: int = self.config.modulus
        self.variables = string.ascii_lowercase[: self.longest]
        return ["=", "+", ",", "<sep>", *self.variables, *map(str, range(self.modulus))]

    def most_words(self, length: int) -> tuple[int, int, int]:
        """With s variables eliminated, s rows have 3(n - s) + 3 words, the others 3(n - s) + 1; all but one a comma."""
        n = length
        question, *chain, answer = [s * (3 * (n - s) + 3) + (n - s) * (3 * (n - s) + 1) + n for s in range(n + 1)]
        return question, sum(chain), answer - 1

    def draw(self, length: int, count: int, rng: np.random.Generator) -> list[Problem]:
        problems: list[Problem] = []
        while len(problems) < count:
            for matrix in rng.integers(self.modulus, size=(count, length, length + 1)).tolist():
                steps = self.eliminate(matrix)
                if steps and len(problems) < count:
                    problems.append(self._problem(steps))
        return problems

    def eliminate(self, matrix: Matrix) -> list[Matrix]:
        """The matrix (n, n + 1) after 0 to n steps of Gauss-Jordan elimination; [] if a step finds no pivot."""
        p, steps = self.modulus, [matrix]
        for j in range(len(matrix)):
            at = next((i for i in range(j, len(matrix)) if matrix[i][j]), None)
            if at is None:
                return []
            rows = list(matrix)
            rows[j], rows[at] = rows[at], rows[j]
            inverse = pow(rows[j][j], -1, p)
            pivot = [value * inverse % p for value in rows[j]]
            matrix = [[(x - row[j] * y) % p for x, y in zip(row, pivot, strict=True)] for row in rows]
            matrix[j] = pivot
            steps.append(matrix)
        return steps

    def _problem(self, steps: Sequence[Matrix]) -> Problem:
        question, *chain, answer = [(*self._written(matrix, s), "<sep>") for s, matrix in enumerate(steps)]
        return Problem(question, sum(chain, ()), answer[:-1])

    def _written(self, matrix: Matrix, eliminated: int) -> list[str]:
        words: list[str] = []
        for *coefficients, right in matrix:
            terms: list[str] = []
            for j, (coefficient, variable) in enumerate(zip(coefficients, self.variables, strict=False)):
                if j >= eliminated:
                    terms += ["+", str(coefficient), variable]
                elif coefficient:
                    terms += ["+", variable]
            words += [",", *terms[1:], "=", str(right)]
        return words[1:]

    def solve(self, words: Words) -> Problem:
        rows = " ".join(words).split(",")
        matrix = [[0] * (len(rows) + 1) for _ in rows]
        for row, text in zip(matrix, rows, strict=True):
            left, _, right = text.partition("=")
            for term in [*left.split("+"), f"{right.strip()} ="]:
                match = re.fullmatch(r"\s*(\d* ?[a-z]|\d+ =)\s*", term)
                if not match:
                    raise ValueError(f"{shown(text.strip())}: expected an equation such as 2 a + b = 1")
                number, name = match[1][:-1], match[1][-1]
                column = len(rows) if name == "=" else ord(name) - ord("a")
                if name != "=" and column >= len(rows):
                    known = f"the variables {', '.join(self.variables[: len(rows)])}"
                    raise ValueError(f"{name}: expected as many equations as variables, or {known}")
                row[column] += int(number.strip() or 1)
        reduced = [[value % self.modulus for value in row] for row in matrix]
        steps = self.eliminate(reduced) if len(rows) <= self.longest else []
        if not steps:
            raise ValueError(f"{len(rows)} equations; expected at most {self.longest}, with exactly one solution")
        return self._problem(steps)

    def split(self, line: str) -> Sequence[str]:
        return re.findall(r"<sep>|\d+|\S", line)
