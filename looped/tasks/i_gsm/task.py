"""i-GSM (after Ye, Xu, Li & Allen-Zhu, 2024, as in Saunshi et al., 2025): arithmetic modulo 7 on a graph."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate, pairwise, product
from pathlib import Path
from reprlib import repr as shown  # cuts what is long

import numpy as np

from looped.tasks.completion import CompletionTask
from looped.tasks.i_gsm.config import IGSMConfig
from looped.tasks.registry import TaskConfig, register
from looped.tasks.sequence import Example

MODULUS = 7
STATEMENT = 20  # symbols of the longest one, A # B := 2 * ( C # D + E # F + G # H ) .
SYMBOL = re.compile(r"[A-Z0-6#.+*()?-]|:=")
NAME = "[A-Z]#[A-Z]"
SUM = rf"{NAME}(?:[+-]{NAME}){{,2}}"
EXPRESSION = re.compile(rf"(?:([2-4])\*)?(\()?({SUM})(\))?")


@register("i_gsm")
class IGSM(CompletionTask):
    """The value of one of several parameters that are defined by each other, in random order, modulo 7.

    A parameter `A#B` is an edge between an entity A and an entity B of the next level. Every entity has one. The
    parameters in random order are a topological order: the first is a constant, a later one is a constant in a quarter
    of the cases, else one earlier parameter, a sum of 2 or 3, or a difference of 2, which a quarter of the cases
    multiply by 2, 3 or 4. The publication gives the format; this sampler is simpler than that of Ye et al. (2024). The
    groups are numbers of operations: the parameters that the query needs, directly or not.

    >>> task = IGSM(IGSMConfig())
    >>> print(task.describe(task.parse("H#J := 2 * ( J#P + E#I ) . E#I := 4 . J#P := 6 . H#J ?")))
    i-gsm: H#J := 2 * ( J#P + E#I ) . E#I := 4 . J#P := 6 . H#J ?
    answer: 6
    """

    Config = IGSMConfig
    title = "i-GSM"
    vocabulary = (*"0123456", *string.ascii_uppercase, *"#.+-*()?", ":=")
    answers = MODULUS

    @classmethod
    def example_config(cls, folder: Path) -> TaskConfig:
        return IGSMConfig(
            levels=3, max_entities=2, min_parameters=4, max_parameters=6, min_operations=2, max_operations=4
        )

    def __init__(self, config: IGSMConfig) -> None:
        super().__init__(config)
        self.trained = range(config.min_operations, config.max_operations + 1)
        self.groups = tuple(map(str, sorted({*self.trained, *config.eval_operations})))

    def longest(self) -> int:
        return self.config.max_parameters * STATEMENT + 4

    def draw(self, rng: np.random.Generator, group: str | None) -> Example | None:
        draw = random.Random(int(rng.integers(2**63)))  # far quicker for single numbers
        names = self._parameters(draw)
        uses, needs = [], []  # of each parameter: the earlier ones in its expression, and all that it needs
        for k in range(len(names)):
            used = [] if k == 0 or draw.random() < 1 / 4 else draw.sample(range(k), draw.randint(1, min(3, k)))
            uses.append(used)
            needs.append({*used}.union(*(needs[i] for i in used)))
        allowed = self.trained if group is None else (int(group),)
        queries = [name for name, needed in zip(names, needs, strict=True) if len(needed) in allowed]
        if not queries:
            return None
        query = draw.choice(queries)
        statements = [
            f"{name}:={self._expression([names[i] for i in used], draw)}."
            for name, used in zip(names, uses, strict=True)
        ]
        draw.shuffle(statements)
        return self._solved("".join(statements) + query + "?")

    def _parameters(self, draw: random.Random) -> list[str]:
        """Edges of a random graph, in random order; [] if their number is out of range."""
        config = self.config
        ends = [0, *accumulate(draw.randint(config.min_entities, config.max_entities) for _ in range(config.levels))]
        letters = draw.sample(string.ascii_uppercase, ends[-1])
        levels = [letters[start:end] for start, end in pairwise(ends)]
        edges = [edge for above, below in pairwise(levels) for edge in product(above, below)]
        draw.shuffle(edges)
        covered: set[str] = set()
        first, others = [], []
        for edge in edges:  # those that cover an entity come first
            (others if covered.issuperset(edge) else first).append(edge)
            covered.update(edge)
        number = max(len(first), min(draw.randint(config.min_parameters, config.max_parameters), len(edges)))
        chosen = ["#".join(edge) for edge in (first + others)[:number]]
        draw.shuffle(chosen)
        return chosen if config.min_parameters <= number <= config.max_parameters else []

    def _expression(self, names: list[str], draw: random.Random) -> str:
        if not names:
            return str(draw.randrange(MODULUS))
        total = draw.choice("+-").join(names) if len(names) == 2 else "+".join(names)
        if draw.random() >= 1 / 4:
            return total
        bracketed = self.config.version == "corrected" and len(names) > 1
        return f"{draw.randint(2, 4)}*{f'({total})' if bracketed else total}"

    def printed(self, symbols: Sequence[str]) -> str:
        return " ".join(symbols).replace(" # ", "#")

    def parse(self, line: str) -> Example:
        """A line such as `H#J := 2 * ( J#P + E#I ) . E#I := 4 . J#P := 6 . H#J ?`; spaces do not matter."""
        return self._solved("".join(line.split()))

    def _solved(self, text: str) -> Example:
        symbols = tuple(SYMBOL.findall(text))
        if unknown := SYMBOL.sub("", text):
            raise ValueError(f"{shown(unknown)}: expected letters A-Z, digits 0-6 and # := . + - * ( ) ?")
        if len(symbols) > self.longest():
            raise ValueError(f"{len(symbols)} symbols; expected at most {self.longest()}")
        return Example(symbols, (str(self.solve(text)),))

    def solve(self, text: str) -> int:
        """The answer to a problem without spaces.

        Raises:
            ValueError: names the statement that is not understood, or a parameter without a definition of its own.
        """
        *statements, query = text.split(".")
        known: dict[str, tuple[int, list[tuple[str, str]]]] = {}  # a constant or factor, and signs with names
        for statement in statements:
            name, _, expression = statement.partition(":=")
            if not re.fullmatch(NAME, name) or name in known:
                raise ValueError(f"{shown(statement)}: expected one definition of each parameter, such as A#B := 3")
            known[name] = self._parts(expression)
        needs = TopologicalSorter({name: [x for _, x in terms] for name, (_, terms) in known.items()})
        try:
            order = [*needs.static_order(), query.removesuffix("?")]
        except CycleError as error:
            raise ValueError(f"{', '.join(error.args[1])}: each needs the next; expected no such cycle") from None
        values: dict[str, int] = {}
        for name in order:
            if name not in known:
                raise ValueError(f"{shown(name)}: has no definition; expected one of every parameter")
            factor, terms = known[name]
            total = sum(-values[x] if sign == "-" else values[x] for sign, x in terms) if terms else 1
            values[name] = factor * total % MODULUS
        if not query.endswith("?"):
            raise ValueError(f"{shown(query)}: expected a parameter and ? at the end")
        return values[query[:-1]]

    def _parts(self, expression: str) -> tuple[int, list[tuple[str, str]]]:
        if re.fullmatch("[0-6]", expression):
            return int(expression), []
        found = EXPRESSION.fullmatch(expression)
        if found:
            factor, opening, total, closing = found.groups()
            terms = re.findall(f"([+-]?)({NAME})", total)
            bracketed = self.config.version == "corrected" and factor is not None and len(terms) > 1
            if bool(opening) == bool(closing) == bracketed:
                return int(factor or 1), terms
        raise ValueError(f"{shown(expression)}: expected 0 to 6, a sum of parameters, or a multiple of ( a sum )")
