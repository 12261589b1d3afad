"""Sudoku puzzles from files and lines of text (see `formats.py`). Each is checked to have exactly one solution."""

import hashlib
import io
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from math import isqrt
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from looped.reading import read_text
from looped.tasks.sudoku.formats import BLANKS, SHOWN, Row, rows
from looped.tasks.sudoku.solver import FEWEST_CLUES, GUESSES, solve

BATCH = 50_000  # rows checked at once; limits the memory
NAMED = 5  # skipped rows that are named


class Puzzles(NamedTuple):
    """Puzzles with their unique solutions."""

    puzzles: UInt8[np.ndarray, "boards cells"]
    solutions: UInt8[np.ndarray, "boards cells"]
    ratings: list[str]
    """Ratings as in the file, numbers or names of classes; "" if there is none."""
    skipped: int = 0
    """Number of skipped bad rows."""
    held_out: int = 0
    """Number of puzzles, at the front, that files name as the test split."""


def read_file(path: str | Path, box: int, on_bad_row: Literal["stop", "skip"] = "stop") -> Puzzles:
    """All puzzles of a file.

    Raises:
        ValueError: the file cannot be read, is damaged or is not UTF-8; and as `read_lines`.
    """
    return read_lines(io.StringIO(read_text(Path(path)), newline=None), str(path), box, on_bad_row)


def read_lines(lines: Iterable[str], source: str, box: int, on_bad_row: Literal["stop", "skip"] = "stop") -> Puzzles:
    """All puzzles of some lines of text. Skipped rows are named on standard error.

    Raises:
        ValueError: a bad row (on_bad_row=stop), named by `source`, line and reason; or no puzzle at all.
    """
    found = rows(lines, source, box)
    parts: list[Puzzles] = []
    skipped: list[int] = []
    while batch := list(islice(found, BATCH)):
        reasons = [_malformed(row, box) for row in batch]
        formed = [i for i, reason in enumerate(reasons) if not reason]
        text = "".join(batch[i].puzzle for i in formed).translate(dict.fromkeys(map(ord, BLANKS), "0"))
        puzzles = np.frombuffer(text.encode(), np.uint8).reshape(-1, box**4) - np.uint8(ord("0"))
        solutions, counts = solve(puzzles)
        for i, solution, count in zip(formed, _texts(solutions), counts.tolist(), strict=True):
            reasons[i] = _wrong(batch[i], solution, count)
        bad = [i for i, reason in enumerate(reasons) if reason]
        if bad and on_bad_row == "stop":
            raise ValueError(f"{source}, line {batch[bad[0]].line}: {reasons[bad[0]]}")
        skipped += [batch[i].line for i in bad]
        good = np.array([not reasons[i] for i in formed], bool)
        ratings = [row.rating for row, reason in zip(batch, reasons, strict=True) if not reason]
        parts.append(Puzzles(puzzles[good], solutions[good], ratings, len(bad)))
    puzzles = joined(parts, source)
    if skipped:
        more = ", ..." if len(skipped) > NAMED else ""
        print(f"{source}: skipped the bad rows in lines {', '.join(map(str, skipped[:NAMED]))}{more}", file=sys.stderr)
    return puzzles


def joined(parts: Sequence[Puzzles], source: str) -> Puzzles:
    """Several sets of puzzles as one.

    Raises:
        ValueError: there is no puzzle; names `source`.
    """
    skipped = sum(part.skipped for part in parts)
    ratings = [rating for part in parts for rating in part.ratings]
    if not ratings:
        raise ValueError(f"{source}: no Sudoku puzzle in it ({skipped} bad rows)")
    puzzles, solutions = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return Puzzles(puzzles, solutions, ratings, skipped)


def _texts(boards: UInt8[np.ndarray, "boards cells"]) -> list[str]:
    """The digits of each board."""
    text, cells = (boards + np.uint8(ord("0"))).tobytes().decode(), boards.shape[1]
    return [text[start : start + cells] for start in range(0, len(text), cells)]


def _malformed(row: Row, box: int) -> str | None:
    """The reason why the text of a row is malformed, or has too few clues; None otherwise."""
    cells, side = box**4, box**2
    if row.fault:
        return row.fault
    if len(row.puzzle) != cells:
        return f"expected {cells} characters, not {len(row.puzzle)}: {row.puzzle[:SHOWN]!r}"
    if bad := re.search(f"[^{BLANKS}0-{side}]", row.puzzle):
        return f"expected digits 1 to {side}, and . or 0 for a blank, not {bad[0]!r}"
    if row.digest and hashlib.sha1(row.puzzle.encode()).hexdigest()[:12] != row.digest.lower():
        return f"the hash {row.digest!r} does not belong to these digits"
    clues = cells - sum(map(row.puzzle.count, "0" + BLANKS))
    if box == 3 and clues < FEWEST_CLUES:
        return f"{clues} clues; a puzzle with exactly one solution has at least {FEWEST_CLUES}"
    return None


def _wrong(row: Row, solution: str, count: int) -> str | None:
    """The reason why a row is wrong, from the number of solutions and one of them; None if it is right."""
    if count < 0:
        return f"the search for its solutions was given up after {GUESSES} guesses"
    if count == 0:
        return f"the puzzle has no solution{_twice(row.puzzle)}"
    if count > 1:
        return "the puzzle has more than one solution"
    if row.solution and row.solution != solution:
        return "the stated solution is not that of the puzzle"
    return None


def _twice(puzzle: str) -> str:
    """The first clue that a row, column or box has twice, as the end of a sentence; "" if there is none."""
    side = isqrt(len(puzzle))
    box = isqrt(side)
    seen: set[tuple[str, str]] = set()
    for i, clue in enumerate(puzzle):
        row, column = divmod(i, side)
        lines = (f"row {row + 1}", f"column {column + 1}", f"box {row // box * box + column // box + 1}")
        for line in lines if clue not in BLANKS + "0" else ():
            if (clue, line) in seen:
                return f": {clue} is twice in {line}"
            seen.add((clue, line))
    return ""
