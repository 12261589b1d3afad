"""Sudoku: fill a board so that every row, column and box holds each digit once."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from looped.files import sha256
from looped.lazy import torch
from looped.machine import machine_memory
from looped.tasks.base import SPLITS, Batch, Split, Task, TaskSpec, split_of
from looped.tasks.registry import register
from looped.tasks.sudoku.board import distinct, generate, split_key, symmetry, valid
from looped.tasks.sudoku.config import SudokuConfig
from looped.tasks.sudoku.files import Puzzles, joined, read_file, read_lines
from looped.tasks.sudoku.formats import NUMBER

# Default clue counts of generated puzzles, by the side of a box.
CLUES = {2: (4, 8), 3: (25, 34)}
# Peak memory of a generated pool, in bytes for each cell.
CELL_BYTES = 25
# The order of known class names. Other names follow in alphabetical order.
CLASSES = ("simple", "beginner", "easy", "intermediate", "medium", "hard", "expert")


class Puzzle(NamedTuple):
    """A board and its unique solution, cells in row-major order, 0 = blank."""

    given: UInt8[np.ndarray, " cells"]
    solution: UInt8[np.ndarray, " cells"]
    rating: str | None = None


@register("sudoku")
class Sudoku(Task):
    """Boards of `box**4` cells, one token each: 0 is blank, digits are their own ids. The target is the solution.

    With tokens="candidates" there is a token for each cell and digit: 0 if the cell is blank, 1 if the digit is given
    there, 2 if another one is. The target is 1 for the digit of the solution, else 0.

    >>> task = Sudoku(SudokuConfig(box=2))
    >>> puzzles, skipped = task.read(["31.22....21..32."], "example", "stop")
    >>> print(task.describe(puzzles[0]))
    puzzle       solution
    3 1 | . 2    3 1 | 4 2
    2 . | . .    2 4 | 3 1
    ----+----    ----+----
    . 2 | 1 .    4 2 | 1 3
    . 3 | 2 .    1 3 | 2 4
    >>> task.encode(puzzles).targets
    tensor([[3, 1, 4, 2, 2, 4, 3, 1, 4, 2, 1, 3, 1, 3, 2, 4]])

    The pool is read or generated at its first use (`prepare` does so), once per object. `split_key` decides the split
    of a puzzle, so no symmetry turns a board of one split into a board of another. Training draws with replacement.
    Validation and test repeat a puzzle only after all were drawn, and are never augmented. A puzzle that is in the
    files more than once counts once.

    Groups are bands of the test split. Rated puzzles: classes by name, or numbers as "5-6" (5 <= rating < 6) and from
    16 on as "16-32" and "32-64", and "unrated". Generated puzzles: numbers of clues, as "25-29 clues". With test files
    the first group is "all".
    """

    Config = SudokuConfig
    presentation = frozenset({"augment", "loss", "on_bad_row", "tokens"})
    metric = "board"

    @classmethod
    def example_config(cls, folder: Path) -> SudokuConfig:
        return SudokuConfig(pool=64)

    def __init__(self, config: SudokuConfig) -> None:
        super().__init__(config)
        self.side = config.box**2
        self.candidates = config.tokens == "candidates"
        symbols, cells = self.side + 1, self.side**2
        self.spec = TaskSpec(vocab_size=symbols, output_size=symbols, max_seq_len=cells)
        if self.candidates:
            self.spec = TaskSpec(vocab_size=3, output_size=2, max_seq_len=cells * self.side)

    @cached_property
    def graphs(self) -> dict[str, Float[torch.Tensor, "seq seq"]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """1 for positions in one row, column or box. Candidates must also be of one digit; or be in one cell."""
        cell, digit, box = torch.arange(self.side**2), torch.arange(self.side), self.config.box
        row, column = cell // self.side, cell % self.side
        units = {"row": row, "column": column, "box": row // box * box + column // box}
        if self.candidates:
            units = {name: (unit[:, None] * self.side + digit).flatten() for name, unit in units.items()}
            units["cell"] = cell.repeat_interleave(self.side)
        return {name: (unit[:, None] == unit).float() for name, unit in units.items()}

    # Drawing

    def sources(self) -> dict[str, str]:
        """The sha256 of each puzzle file.

        Raises:
            ValueError: a file cannot be read.
        """
        return {file: sha256(Path(file)) for file in (*self.config.test_files, *self.config.files)}

    def prepare(self) -> None:
        """Read or generate the pool. Call this before worker processes get copies of the task.

        Raises:
            ValueError: a file is bad (see `read_file`), no puzzle is left, or no puzzle can be generated.
        """
        _ = self._members

    @cached_property
    def pool(self) -> Puzzles:
        """All puzzles, of all splits. Raises as `prepare`."""
        config = self.config
        if not config.files:
            low, high = CLUES[config.box]
            low = config.min_clues or min(low, config.max_clues or low)
            high = config.max_clues or max(high, low)
            _check_memory(config.pool, config.box)
            rng = np.random.default_rng(config.pool_seed)
            return Puzzles(*generate(config.pool, config.box, low, high, rng), [""] * config.pool)
        names = (*config.test_files, *config.files)
        files = ", ".join(names)
        read = [read_file(file, config.box, config.on_bad_row) for file in names]
        rows = joined(read, files)
        of_test = sum(len(part.puzzles) for part in read[: len(config.test_files)])
        clues = (rows.puzzles > 0).sum(1)
        ratings = np.array([_number(rating) for rating in rows.ratings])
        keep = np.ones(len(clues), bool)
        for values, low, high in (
            (clues, config.min_clues, config.max_clues),
            (ratings, config.min_rating, config.max_rating),
        ):
            # A missing rating is NaN, which is in no range.
            keep &= True if low is None else values >= low
            keep &= True if high is None else values <= high
        if not keep.any():
            raise ValueError(
                f"{files}: none of the {len(keep)} puzzles is in the range of clues and ratings of the configuration"
            )
        in_range = np.flatnonzero(keep)
        kept = in_range[distinct(rows.puzzles[in_range])]
        if copies := len(in_range) - len(kept):
            print(f"{files}: {copies} puzzles are copies of others and do not count", file=sys.stderr)
        ratings, held_out = [rows.ratings[i] for i in kept], int((kept < of_test).sum())
        return Puzzles(rows.puzzles[kept], rows.solutions[kept], ratings, rows.skipped, held_out)

    @cached_property
    def _members(self) -> dict[tuple[Split, str | None], Int[np.ndarray, " rows"]]:
        """The rows of the pool in each split (group None), and in each band of each split.

        A generated pool may hold copies. They are drawn in training, but evaluation is on different puzzles.
        """
        keys = split_key(self.pool.puzzles, self.pool.solutions)
        splits = np.array([split_of(key.to_bytes(8, "little")) for key in keys.tolist()], dtype=object)
        if self.config.test_files:
            test, rest = np.split(np.arange(len(keys)), [self.pool.held_out])
            splits[rest[splits[rest] == "test"]] = "train"
            splits[rest[np.isin(keys[rest], keys[test])]] = "none"  # perhaps symmetric copies of test puzzles
            splits[test] = "test"
        if self.config.train_puzzles:
            rows = np.random.default_rng(self.config.pool_seed).permutation(np.flatnonzero(splits == "train"))
            splits[rows[self.config.train_puzzles :]] = "none"
        if self.config.files:
            bands = np.array([_rating_band(rating) for rating in self.pool.ratings])
        else:
            width = 2 * self.config.box - 1
            lows = (self.pool.puzzles > 0).sum(1) // width * width
            bands = np.array([f"{low}-{low + width - 1} clues" for low in lows.tolist()])
        first = np.zeros(len(keys), bool)
        first[distinct(self.pool.puzzles)] = True
        members: dict[tuple[Split, str | None], np.ndarray] = {}
        for split in SPLITS:
            inside = (splits == split) & (first | (split == "train"))
            members[split, None] = np.flatnonzero(inside)
            if self.config.test_files:
                members[split, "all"] = members[split, None]
            for band in sorted(set(bands[inside].tolist()), key=_order):
                members[split, band] = np.flatnonzero(inside & (bands == band))
        return members

    @cached_property
    def groups(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]: known with the pool
        return tuple(band for split, band in self._members if split == "test" and band is not None)

    def available(self, split: Split, group: str | None = None) -> int:
        rows = self._members.get((split, group))
        return 0 if rows is None else len(distinct(self.pool.puzzles[rows]))

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[Puzzle]:
        """Draw puzzles; see `Task.sample`.

        Raises:
            ValueError: the group is unknown, or has no puzzle in the split.
        """
        if group is not None and group not in self.groups:
            raise ValueError(f"group={group!r}: expected one of {', '.join(self.groups)}")
        members = self._members.get((split, group), np.zeros(0, int))
        if not len(members):
            source = f"{split} split" if group is None else f"group {group!r} of the {split} split"
            raise ValueError(
                f"no Sudoku puzzle in the {source}: there are only {len(self.pool.puzzles)} puzzles in all, "
                "and the content of each decides its split"
            )
        rows = rng.choice(members, size, replace=split == "train" or size > len(members))
        puzzles, solutions = self.pool.puzzles[rows], self.pool.solutions[rows]
        if self.config.augment and split == "train":
            puzzles, solutions = symmetry(puzzles, solutions, rng)
        ratings = [self.pool.ratings[row] or None for row in rows.tolist()]
        return list(map(Puzzle, puzzles, solutions, ratings))

    # Encoding and scoring

    def encode(self, problems: Sequence[Puzzle]) -> Batch:
        inputs = torch.from_numpy(np.stack([p.given for p in problems])).long()
        targets = torch.from_numpy(np.stack([p.solution for p in problems])).long()
        if self.candidates:
            digits = torch.arange(1, self.side + 1)
            inputs, targets = inputs[..., None], targets[..., None]
            inputs = ((inputs > 0).long() + ((inputs > 0) & (inputs != digits))).flatten(1)
            targets = (targets == digits).long().flatten(1)
        everywhere = torch.ones_like(inputs, dtype=torch.bool)
        return Batch(inputs, targets, inputs == 0 if self.config.loss == "blanks" else everywhere, everywhere)

    def _board(self, tokens: Int[torch.Tensor, "batch seq"]) -> Int[torch.Tensor, "batch cells"]:
        """The digit of each cell, from the inputs or targets of a batch; 0 is blank."""
        if not self.candidates:
            return tokens
        digits = torch.arange(1, self.side + 1, device=tokens.device)
        return ((tokens == 1).unflatten(-1, (-1, self.side)) * digits).sum(-1)

    def _digit_logits(
        self, logits: Float[torch.Tensor, "*batch seq output"]
    ) -> Float[torch.Tensor, "*batch cells side"]:
        """The logits of the digits in each cell. A candidate's is its log odds."""
        if not self.candidates:
            return logits[..., 1:]
        return (logits[..., 1] - logits[..., 0]).unflatten(-1, (-1, self.side))

    def score(
        self, batch: Batch, logits: Float[torch.Tensor, "batch seq output"]
    ) -> dict[str, Float[torch.Tensor, " batch"]]:
        """board: all blanks are right. cells: share of right blanks. valid: the board keeps the rules and the givens.

        The prediction is the most probable digit. With loss="blanks" the model is not trained on the givens, so they
        are copied from the input. With loss="all" the model must predict them itself to be valid.
        """
        digits, given = self._digit_logits(logits).argmax(-1) + 1, self._board(batch.inputs)
        blank = given == 0
        wrong = ((digits != self._board(batch.targets)) & blank).sum(1)
        obeys = valid(self._filled(given, digits).cpu().numpy(), given.cpu().numpy())
        return {
            "board": (wrong == 0).float(),
            "cells": 1 - wrong / blank.sum(1).clamp(min=1),
            "valid": torch.from_numpy(obeys).to(logits.device).float(),
        }

    def _filled(
        self, given: Int[torch.Tensor, "*batch cells"], digits: Int[torch.Tensor, "*batch cells"]
    ) -> torch.Tensor:
        return torch.where(given > 0, given, digits) if self.config.loss == "blanks" else digits

    def _predicted(
        self, problem: Puzzle, logits: Float[torch.Tensor, "*loops seq output"]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The predicted digit of each cell, and its probability among the digits (1 for copied givens)."""
        given = torch.from_numpy(problem.given).long()
        confidence, digits = self._digit_logits(logits.double().cpu()).softmax(-1).max(-1)
        filled = self._filled(given.expand_as(digits), digits + 1)
        copied = (given > 0) & (self.config.loss == "blanks")
        return filled, confidence.masked_fill(copied, 1.0)

    def answer(self, problem: Puzzle, logits: Float[torch.Tensor, "seq output"]) -> dict[str, Any]:
        """The filled board as a row of digits. The confidence is that of the least certain cell."""
        filled, confidence = self._predicted(problem, logits)
        return {
            "answer": "".join(map(str, filled.tolist())),
            "valid": bool(valid(filled[None].numpy(), problem.given[None])[0]),
            "confidence": float(confidence.min()),
        }

    # Reading and showing

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[list[Puzzle], int]:
        """Puzzles in any format of `sudoku/formats.py`; each must have exactly one solution."""
        rows = read_lines(lines, source, self.config.box, on_bad_row)
        ratings = [rating or None for rating in rows.ratings]
        return list(map(Puzzle, rows.puzzles, rows.solutions, ratings)), rows.skipped

    def to_text(self, problem: Puzzle) -> dict[str, str]:
        return {
            name: "".join(map(str, cells.tolist()))
            for name, cells in (("input", problem.given), ("expected", problem.solution))
        }

    def describe(self, problem: Puzzle, logits: Float[torch.Tensor, "seq output"] | None = None) -> str:
        boards = {"puzzle": problem.given.tolist(), "solution": problem.solution.tolist()}
        note = []
        if logits is not None:
            filled, _ = self._predicted(problem, logits)
            boards["prediction"] = filled.tolist()
            blanks = problem.given == 0
            wrong = int(((filled.numpy() != problem.solution) & blanks).sum())
            note = [f"{wrong} of {int(blanks.sum())} blanks wrong"]
        columns = [self._drawn(name, cells) for name, cells in boards.items()]
        return "\n".join(["    ".join(line).rstrip() for line in zip(*columns, strict=True)] + note)

    def _drawn(self, name: str, cells: Sequence[int]) -> list[str]:
        """A board as lines of text of equal width."""
        side, box = self.side, self.config.box
        rows = []
        for start in range(0, side**2, side):
            digits = [str(cell or ".") for cell in cells[start : start + side]]
            rows.append(" | ".join(" ".join(digits[i : i + box]) for i in range(0, side, box)))
        rule = "".join("+" if mark == "|" else "-" for mark in rows[0])
        bands = [[*rows[i : i + box], rule] for i in range(0, side, box)]
        return [name.ljust(len(rule)), *[line for band in bands for line in band][:-1]]

    def visualise(self, problem: Puzzle, logits: Float[torch.Tensor, "loops seq output"]) -> dict[str, Any]:
        filled, confidence = self._predicted(problem, logits)
        return {
            "kind": "board",
            "side": self.side,
            "box": self.config.box,
            "given": problem.given.tolist(),
            "solution": problem.solution.tolist(),
            "rating": problem.rating,
            "loops": [
                {"loop": loop, "cells": cells, "confidence": probabilities}
                for loop, (cells, probabilities) in enumerate(
                    zip(filled.tolist(), confidence.tolist(), strict=True), start=1
                )
            ],
        }


def _check_memory(pool: int, box: int) -> None:
    """Raise ValueError if a generated pool would take more than half of the machine's memory."""
    memory = machine_memory()
    needed, most = pool * box**4 * CELL_BYTES, memory // (2 * box**4 * CELL_BYTES)
    if pool > most:
        raise ValueError(
            f"pool={pool}: takes about {needed / 1e9:.0f} GB of the {memory / 1e9:.0f} GB of memory; "
            f"expected at most {most}"
        )


def _number(rating: str) -> float:
    return float(rating) if NUMBER.fullmatch(rating) else math.nan


def _rating_band(rating: str) -> str:
    if math.isfinite(_number(rating)):
        low = math.floor(_number(rating))
        if low < 16:
            return f"{low}-{low + 1}"
        low = 1 << low.bit_length() - 1
        return f"{low}-{2 * low}"
    return rating or "unrated"


def _order(band: str) -> tuple[bool, float | int, str]:
    """Sort key of bands: numbers, then class names from easy to hard, then the others."""
    number = _number(band.split("-")[0])
    if math.isfinite(number):
        return False, number, band
    return True, CLASSES.index(band.lower()) if band.lower() in CLASSES else len(CLASSES), band
