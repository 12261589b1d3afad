"""Sudoku puzzles from files and lines of text. Each puzzle is checked to have exactly one solution.

The format is detected from the content, plain, .xz or .gz:

- CSV whose header names a column `puzzle`, perhaps `solution` and `difficulty` or `rating` (in any case). Other
  columns are ignored. In 4x4 puzzles leading zeros may be missing, because some programs drop them.
- lines of 81 (4x4: 16) characters, `.` or `0` for a blank;
- lines of the puzzle exchange: 12 hexadecimal digits of the puzzle's SHA-1, the puzzle, a rating.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from looped.reading import read_text
from looped.tasks.sudoku.board import solve

BATCH = 50_000  # rows checked at once; limits the memory


class Puzzles(NamedTuple):
    """Puzzles with their unique solutions."""

    puzzles: UInt8[np.ndarray, "boards cells"]
    solutions: UInt8[np.ndarray, "boards cells"]
    ratings: list[str]
    """Ratings as in the file, numbers or names of classes; "" if there is none."""
    skipped: int = 0
    """Number of skipped bad rows."""


class Row(NamedTuple):
    line: int
    puzzle: str
    solution: str = ""
    rating: str = ""
    digest: str = ""


def read_file(path: str | Path, box: int, on_bad_row: Literal["stop", "skip"] = "stop") -> Puzzles:
    """All puzzles of a file.

    Raises:
        ValueError: the file cannot be read, is damaged or is not UTF-8; and as `read_lines`.
    """
    return read_lines(read_text(Path(path)).splitlines(), str(path), box, on_bad_row)


def read_lines(lines: Iterable[str], source: str, box: int, on_bad_row: Literal["stop", "skip"] = "stop") -> Puzzles:
    """All puzzles of some lines of text; blank lines are ignored.

    Raises:
        ValueError: a bad row (on_bad_row=stop), named by `source`, line and reason; or no puzzle at all.
    """
    rows = _rows(lines, source, box)
    parts: list[Puzzles] = []
    while batch := list(islice(rows, BATCH)):
        reasons = [_malformed(row, box) for row in batch]
        formed = [i for i, reason in enumerate(reasons) if not reason]
        text = "".join(batch[i].puzzle for i in formed).replace(".", "0")
        puzzles = np.frombuffer(text.encode(), np.uint8).reshape(-1, box**4) - np.uint8(ord("0"))
        solutions, counts = solve(puzzles)
        for i, solution, count in zip(formed, solutions, counts.tolist(), strict=True):
            reasons[i] = _wrong(batch[i], solution, count)
        bad = [i for i, reason in enumerate(reasons) if reason]
        if bad and on_bad_row == "stop":
            raise ValueError(f"{source}, line {batch[bad[0]].line}: {reasons[bad[0]]}")
        good = np.array([not reasons[i] for i in formed], bool)
        ratings = [row.rating for row, reason in zip(batch, reasons, strict=True) if not reason]
        parts.append(Puzzles(puzzles[good], solutions[good], ratings, len(bad)))
    return joined(parts, source)


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


def _rows(lines: Iterable[str], source: str, box: int) -> Iterator[Row]:
    numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip())
    columns: dict[str, int] | None = None
    for k, (number, line) in enumerate(numbered):
        if k == 0 and "," in line:
            columns = {name.lower(): i for i, name in enumerate(_fields(line))}
            if "puzzle" not in columns:
                raise ValueError(f"{source}, line {number}: expected the header of a CSV with a column named puzzle")
        elif columns is not None:
            fields = _fields(line)
            puzzle, solution, difficulty, rating = (
                fields[columns[name]] if columns.get(name, len(fields)) < len(fields) else ""
                for name in ("puzzle", "solution", "difficulty", "rating")
            )
            yield Row(number, puzzle.zfill(16) if box == 2 and puzzle else puzzle, solution, difficulty or rating)
        else:
            words = line.split()
            yield Row(number, words[1], "", words[2], words[0]) if len(words) == 3 else Row(number, line)


def _fields(line: str) -> list[str]:
    # Not the csv module: no field holds a comma, and a stray quote would make it join lines.
    return [field.strip(' "') for field in line.split(",")]


def _malformed(row: Row, box: int) -> str | None:
    """The reason why the text of a row is malformed; None if it is not."""
    cells, side = box**4, box**2
    if len(row.puzzle) != cells:
        return f"expected {cells} characters, not {len(row.puzzle)}"
    if bad := re.search(f"[^.0-{side}]", row.puzzle):
        return f"expected digits 1 to {side}, and . or 0 for a blank, not {bad[0]!r}"
    if row.digest and hashlib.sha1(row.puzzle.encode()).hexdigest()[:12] != row.digest.lower():
        return f"the hash {row.digest[:40]!r} does not belong to these digits"
    return None


def _wrong(row: Row, solution: UInt8[np.ndarray, " cells"], count: int) -> str | None:
    """The reason why a row is wrong, from the number of solutions and one of them; None if it is right."""
    if count == 0:
        return "the puzzle has no solution"
    if count > 1:
        return "the puzzle has more than one solution"
    if row.solution and row.solution != "".join(map(str, solution.tolist())):
        return "the stated solution is not that of the puzzle"
    return None
