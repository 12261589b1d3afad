"""Arithmetic modulo a prime (Feng et al., 2023): the value of an expression, with or without its simplifications."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from reprlib import repr as shown  # cuts what is long

import numpy as np

from looped.tasks.arithmetic.config import ArithmeticConfig
from looped.tasks.chains import Problem, Words
from looped.tasks.registry import register
from looped.tasks.rounds import RoundsTask


@register("arithmetic")
class Arithmetic(RoundsTask):
    """The value of an expression with + - * / and brackets, modulo a prime.

    Example for the prime 11: `( 6 + 9 ) / 2 =` has the chain `4 / 2 =` and the answer `2`. Each step computes one
    operation. Division multiplies with the inverse, and all operations are left-associative.

    Expressions grow from a random number. As often as `length` says, a random number v in them is replaced by a random
    a, a random operator and the b that makes the value v, in brackets if the expression needs them. The chain goes the
    same way back, so the question alone does not determine it.
    """

    Config = ArithmeticConfig
    separator = "="

    def vocabulary(self) -> Sequence[str]:
        self.modulus: int = self.config.modulus
        return [*"+-*/()=", *map(str, range(self.modulus))]

    def most_words(self, length: int) -> tuple[int, int, int]:
        """An expression of k operators has 2k + 1 numbers and operators and at most k - 1 pairs of brackets."""
        return 4 * length, sum(4 * k for k in range(1, length)), 1

    def draw(self, length: int, count: int, rng: np.random.Generator) -> list[Problem]:
        below = uniform(rng)
        problems = []
        for _ in range(count):
            expression = [str(below(self.modulus))]
            steps = [expression]
            for _ in range(length):
                steps.append(expression := self._grown(expression, below))
            question, *chain, answer = [(*words, "=") for words in reversed(steps)]
            problems.append(Problem(question, sum(chain, ()), answer[:-1]))
        return problems

    def _grown(self, words: list[str], below: Callable[[int], int]) -> list[str]:
        """The expression with a random number replaced by an operation of that value."""
        while not words[at := below(len(words))].isdigit():
            pass
        operation = self._operation(int(words[at]), below)
        before, after = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
        weak = operation[1] in "+-"
        if before == "/" or (weak and (before in ("*", "-") or after in ("*", "/"))):
            operation = ["(", *operation, ")"]
        return [*words[:at], *operation, *words[at + 1 :]]

    def _operation(self, value: int, below: Callable[[int], int]) -> list[str]:
        """A uniform number and operator, drawn again if no number gives the value, and a number that does."""
        p = self.modulus
        while True:
            a, operator = below(p), "+-*/"[below(4)]
            if operator == "+":
                b = (value - a) % p
            elif operator == "-":
                b = (a - value) % p
            elif a == value == 0:
                b = below(p) if operator == "*" else 1 + below(p - 1)
            elif a == 0 or (operator == "/" and value == 0):
                continue
            else:
                b = value * pow(a, -1, p) % p if operator == "*" else a * pow(value, -1, p) % p
            return [str(a), operator, str(b)]

    def rounds(self, problem: Problem) -> list[Words]:
        """One simplified expression a round, and the answer in the last."""
        *steps, answer = " ".join((*problem.chain, *problem.answer)).split("=")
        return [*((*step.split(), "=") for step in steps), tuple(answer.split())]

    def chain(self, question: Words, rounds: Sequence[Words]) -> Words:
        return sum(rounds[:-1], ())

    def solve(self, words: Words) -> Problem:
        """The expression with the chain that computes the first possible operation in each step."""
        steps = [words]
        while len(words) > 1:
            words = self._simplified(words)
            steps.append(words)
        if not (words and words[0].isdigit()):
            raise ValueError("expected an expression of numbers")
        question, *chain = [(*step, "=") for step in steps[:-1]] or [(*words, "=")]
        return Problem(question, sum(chain, ()), words)

    def _simplified(self, words: Words) -> Words:
        """The expression after its first operation that may be computed before all others."""
        padded = ["", *words, "", "", "", ""]
        for at in range(len(words)):  # the place of `before` in padded; that of `a` in words
            before, a, operator, b, after = padded[at : at + 5]
            if before == "(" and operator == ")" and a.isdigit():  # a number alone in brackets
                return (*words[: at - 1], a, *words[at + 2 :])
            weak = operator in ("+", "-")
            computable = a.isdigit() and b.isdigit() and operator in ("+", "-", "*", "/")
            if not computable or before in ("*", "/") or (weak and (before == "-" or after in ("*", "/"))):
                continue
            if operator == "/" and int(b) == 0:
                raise ValueError(f"{a} / {b}: no number can be divided by 0")
            value = str(self._value(int(a), operator, int(b)))
            brackets = before == "(" and after == ")"
            return (*words[: at - brackets], value, *words[at + 3 + brackets :])
        raise ValueError(f"{shown(' '.join(words))}: expected an expression with + - * / and brackets")

    def _value(self, a: int, operator: str, b: int) -> int:
        inverse = pow(b, -1, self.modulus) if operator == "/" else 0
        return {"+": a + b, "-": a - b, "*": a * b, "/": a * inverse}[operator] % self.modulus

    def split(self, line: str) -> Sequence[str]:
        return re.findall(r"\d+|\S", line)


def uniform(rng: np.random.Generator) -> Callable[[int], int]:
    """A quick source of random whole numbers: `below(n)` is one of 0 .. n-1."""

    def fractions() -> Iterator[float]:
        while True:
            yield from rng.random(1024).tolist()

    stream = fractions()
    return lambda n: int(n * next(stream))
