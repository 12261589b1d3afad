"""The rows of Sudoku puzzles in text. The format is detected from the content.

CSV (fields separated by commas, semicolons or tabs, perhaps quoted), with names of the columns in the first line:

- the puzzle: puzzle, puzzles, question, quiz, quizzes, sudoku, grid or board (as in all names, in any case);
- the solution: solution, solutions, answer, answers or solved;
- a rating, the first that is there of: difficulty, rating, ratings, level, class.

Other columns are ignored, unless their names look like misspelt names of these. Without names, both fields of a row are
the puzzle and its solution. Leading zeros of a puzzle may be missing, because some programs drop them, if the stated
solution confirms the puzzle.

Text, with one of these for each puzzle:

- a line of 81 (4x4: 16) cells, perhaps after 12 hexadecimal digits of the puzzle's SHA-1 (the puzzle exchange), and
  perhaps before its solution or a numeric rating;
- a grid of nine (4x4: four) lines, each with nine cells. Each grid may have a line such as `Grid 01` above it.

A blank cell is `.`, `0`, `*` or `_`. Cells may be separated regularly by spaces or `|`, rows by lines of dashes. Blank
lines are ignored, and so are comments, which begin with `#`.
"""

import csv
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import isqrt
from typing import NamedTuple

NAMES = {
    "puzzle": ("puzzle", "puzzles", "question", "quiz", "quizzes", "sudoku", "grid", "board"),
    "solution": ("solution", "solutions", "answer", "answers", "solved"),
    "rating": ("difficulty", "rating", "ratings", "level", "class"),
}
BLANKS = ".*_"  # besides 0
COMMENT = re.compile(r"(^|\s)#.*")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Between the cells of a row; the range is the block of box-drawing characters. Then, lines between rows.
SEPARATORS = re.compile(r"[\s|\u2500-\u257f]+")
DASHES = frozenset("-+=") | frozenset(map(chr, range(0x2500, 0x2580)))
LABEL = re.compile(rf"\W*({'|'.join(NAMES['puzzle'])}|problem|number|no|nr)\W*[0-9]*\W*", re.IGNORECASE)
LONGEST_LABEL = 40
SHOWN = 60  # characters of a bad line in a message

Line = tuple[int, str]  # number, and text without surrounding space


class Row(NamedTuple):
    line: int
    puzzle: str
    solution: str = ""
    rating: str = ""
    digest: str = ""
    """Hexadecimal digits of the puzzle's SHA-1."""
    fault: str = ""
    """The reason why the text is not a puzzle."""


def rows(lines: Iterable[str], source: str, box: int) -> Iterator[Row]:
    """The puzzles in some lines of text, as they stand there.

    Raises:
        ValueError: the first line of a CSV is not as above; names `source` and the line.
    """
    numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    first = next(((number, line) for number, line in numbered if line and not line.startswith("#")), None)
    if first is None:
        return
    number, line = first
    delimiter = next((mark for mark in ",;\t" if mark in COMMENT.sub("", line)), "")
    expected = f"expected the header of a CSV with a column named {', '.join(NAMES['puzzle'])}"
    try:
        names = [name.lower() for name in _fields(line, delimiter)] if delimiter else []
        header = any(name in group for group in NAMES.values() for name in names)
        if header:
            columns = _columns(names, expected)
        elif delimiter in (",", ";") and (len(names) != 2 or not re.fullmatch(f"[0-9{BLANKS}]{{10,}}", names[0])):
            raise ValueError(f"{expected}, or a puzzle and its solution")
        else:
            columns = {"puzzle": 0, "solution": 1}
    except ValueError as error:
        raise ValueError(f"{source}, line {number}: {error}") from None
    if header:
        yield from _table(numbered, delimiter, columns, len(names), box)
    elif delimiter in (",", ";"):
        yield from _table(chain([first], numbered), delimiter, columns, 2, box)
    else:
        yield from _text(chain([first], numbered), box)


def _columns(names: Sequence[str], expected: str) -> dict[str, int]:
    """The positions of puzzle, solution and rating among the names of the columns.

    Raises:
        ValueError: a name is missing, empty, there twice, or looks misspelt.
    """
    known = [name for group in NAMES.values() for name in group]
    for i, name in enumerate(names):
        if not name:
            raise ValueError(f"column {i + 1} has no name; known names are {', '.join(known)}")
        if name in names[:i]:
            raise ValueError(f"two columns have the name {name!r}")
        if name not in known and (close := difflib.get_close_matches(name[:50], known, 1, cutoff=0.85)):
            raise ValueError(f"column {name!r}: expected {close[0]!r}? Known names are {', '.join(known)}")
    found = {what: [name for name in group if name in names] for what, group in NAMES.items()}
    for what in ("puzzle", "solution"):
        if len(found[what]) > 1:
            raise ValueError(f"the columns {' and '.join(found[what])} both name the {what}; expected one of them")
    if not found["puzzle"]:
        raise ValueError(expected)
    return {what: names.index(group[0]) for what, group in found.items() if group}


def _table(lines: Iterable[Line], delimiter: str, columns: dict[str, int], width: int, box: int) -> Iterator[Row]:
    at_puzzle, at_solution, at_rating = (columns.get(what) for what in NAMES)
    assert at_puzzle is not None
    for number, line in lines:
        if not line or line.startswith("#"):
            continue
        try:
            fields = _fields(line, delimiter)
        except ValueError as error:
            yield Row(number, "", fault=str(error))
            continue
        if len(fields) == width + 1 and not fields[-1]:  # qqwing ends its rows, but not the header, with a comma
            fields.pop()
        if len(fields) != width:
            yield Row(number, "", fault=f"expected {width} fields, not {len(fields)}")
            continue
        puzzle = fields[at_puzzle]
        solution = "" if at_solution is None else fields[at_solution]
        if len(puzzle) < box**4 == len(solution):
            filled = puzzle.zfill(box**4)
            if all(clue in ("0", digit) for clue, digit in zip(filled, solution, strict=True)):
                puzzle = filled
        yield Row(number, puzzle, solution, "" if at_rating is None else fields[at_rating])


def _fields(line: str, delimiter: str) -> list[str]:
    """The fields of one line of a CSV, without the comment after it.

    Raises:
        ValueError: a quoted field does not end, or is too long.
    """
    if "#" in line:
        quoted, quote, rest = line.rpartition('"')
        line = quoted + quote + COMMENT.sub("", rest)
    if '"' in line:
        try:
            fields = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True))
        except csv.Error as error:
            raise ValueError(f"not a row of a CSV: {error}") from None
    else:
        fields = line.split(delimiter)
    return [field.strip() for field in fields]


def _text(lines: Iterable[Line], box: int) -> Iterator[Row]:
    cells, side = box**4, box**2
    one_line = re.compile(
        rf"((?P<digest>[0-9a-fA-F]{{12}})\s+)?(?P<puzzle>[0-{side}{BLANKS}]{{{cells}}})"
        rf"(\s+(?P<solution>[1-{side}]{{{cells}}}))?(\s+(?P<rating>{NUMBER.pattern}))?"
    )
    grid = _Grid(side)
    for number, line in lines:
        match, text = one_line.fullmatch(line), line
        if "#" in line:
            text = COMMENT.sub("", line).rstrip()
            match = one_line.fullmatch(text)
        if match:
            yield from grid.end()
            yield Row(number, **match.groupdict(""))
        elif not text or _is_rule(text):
            yield from grid.gap()
        elif len(text) <= LONGEST_LABEL and LABEL.fullmatch(text):
            yield from grid.end()
        elif row := _cells(text, side, side):
            yield from grid.add(number, row)
        elif whole := _cells(text, cells, side):
            yield from grid.end()
            yield Row(number, whole)
        elif grid.rows:
            fault = f"expected {side} cells in a row of a grid, or {cells} in all, not {len(text)}: {text[:SHOWN]!r}"
            yield from grid.add(number, "", fault)
        elif one_line.fullmatch(text.split(maxsplit=1)[0]) and len(text) > cells:
            after = text[cells:].strip()[:SHOWN]
            fault = f"text after the puzzle: {after!r}; expected a number as rating, or a comment that begins with #"
            yield Row(number, text, fault=fault)
        else:
            yield Row(number, text)
    yield from grid.end()


def _is_rule(text: str) -> bool:
    """Whether a line only separates the rows of a grid."""
    marks = set(text)
    return not marks.isdisjoint(DASHES) and marks <= DASHES | set("|* \t")


def _cells(text: str, count: int, side: int) -> str:
    """The cells in a text, if there are `count`, separated everywhere in the same way; "" otherwise."""
    parts = [part for part in SEPARATORS.split(text) if part]
    joined = "".join(parts)
    regular = len(joined) == count and len(parts[0]) in (1, isqrt(side), side) and len(set(map(len, parts))) == 1
    return joined if regular and re.fullmatch(f"[0-{side}{BLANKS}]+", joined) else ""


class _Grid:
    """The rows of a grid that were read so far. Each method returns the puzzle that it completes or ends, if any.

    A grid with too few rows must never take rows of the next. The rows are therefore separated regularly: nowhere,
    between bands, or everywhere.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        self.regular = [set(), set(range(isqrt(side), side, isqrt(side))), set(range(1, side))]
        self.start = 0
        self.rows: list[str] = []
        self.gaps: set[int] = set()  # numbers of rows above a gap
        self.faults: list[Row] = []

    def add(self, number: int, row: str, fault: str = "") -> list[Row]:
        if not self.rows:
            self.start = number
        self.rows.append(row)
        self.faults += [Row(number, "", fault=fault)] if fault else []
        return self.end() if len(self.rows) == self.side else []

    def gap(self) -> list[Row]:
        count = len(self.rows)
        if not count:
            return []
        self.gaps.add(count)
        goes_on = any(self.gaps == {gap for gap in gaps if gap <= count} for gaps in self.regular)
        return [] if goes_on else self.end()

    def end(self) -> list[Row]:
        if not self.rows:
            return []
        count, puzzle, gaps, faults = len(self.rows), "".join(self.rows), self.gaps, self.faults
        self.rows, self.gaps, self.faults = [], set(), []
        if count < self.side:
            faults.append(Row(self.start, puzzle, fault=f"a grid of {count} rows begins here; expected {self.side}"))
        elif gaps not in self.regular:
            faults.append(Row(self.start, puzzle, fault="a grid begins here whose rows are separated irregularly"))
        return faults[:1] or [Row(self.start, puzzle)]
