"""Layouts of Sudoku puzzles in text: grids, comments, anything else."""

import re
import time

import numpy as np
import pytest

from looped.tasks.sudoku.board import generate, valid
from looped.tasks.sudoku.files import read_lines

PUZZLES, SOLUTIONS = generate(5, 3, 28, 34, np.random.default_rng(0))
TEXTS = ["".join(map(str, board)) for board in PUZZLES.tolist()]
ANSWERS = ["".join(map(str, board)) for board in SOLUTIONS.tolist()]
DOTS = [text.replace("0", ".") for text in TEXTS]
SMALL = "3102200002100320"


def grid(text: str, *, mark: str = "", between: str | None = None) -> list[str]:
    """A puzzle as nine lines: `mark` between the cells, and around the boxes; `between` the bands."""
    lines = []
    for row in (text[i : i + 9] for i in range(0, 81, 9)):
        boxes = [mark.strip("|").join(row[i : i + 3]) for i in (0, 3, 6)]
        lines.append(mark.join(["", *boxes, ""]) if "|" in mark else mark.join(boxes))
        if len(lines) in (3, 7) and between is not None:
            lines.append(between)
    return lines


GRIDS = {
    "Project Euler": lambda i: [f"Grid {i + 1:02}", *grid(TEXTS[i])],
    "without anything": lambda i: grid(DOTS[i]),
    "blank lines": lambda i: [*grid(TEXTS[i]), "", ""],
    "comments": lambda i: [f"# no. {i}", *(f"{row}  # a row" for row in grid(DOTS[i]))],
    "spaces": lambda i: grid(DOTS[i], mark=" "),
    "bands": lambda i: [*grid(TEXTS[i], between=""), ""],
    "bands without end": lambda i: grid(TEXTS[i], between=""),
    "rules": lambda i: grid(DOTS[i], between="------+-------+------"),
    "frames": lambda i: ["+---+---+---+", *grid(DOTS[i], mark=" | ", between="|===|===|"), "+---+---+---+"],
    "lines": lambda i: [
        "┌───┬───┐",
        *(row.replace("|", "│") for row in grid(DOTS[i], mark="|", between="├───┤")),
        "└─┘",
    ],
    "underscores": lambda i: [f"Puzzle #{i} (", *grid(TEXTS[i].replace("0", "_"))],
    "double spacing": lambda i: [line for row in grid(TEXTS[i]) for line in (row, "")],
}


@pytest.mark.parametrize("name", GRIDS)
def test_grids_of_nine_lines(name):
    rows = read_lines([line for i in range(5) for line in GRIDS[name](i)], "text", 3)
    assert (rows.puzzles == PUZZLES).all()
    assert (rows.solutions == SOLUTIONS).all()


def test_grids_of_four_lines_and_mixed_layouts():
    rows = read_lines(["Grid 1", "31|..", "2.|..", "--+--", ".2|1.", ".3|2.", SMALL, "3102 2000 0210 0320"], "text", 2)
    assert ["".join(map(str, puzzle)) for puzzle in rows.puzzles.tolist()] == ["3100200002100320", SMALL, SMALL]
    rows = read_lines([*grid(TEXTS[0]), TEXTS[1], "", *grid(TEXTS[2])], "text", 3)
    assert (rows.puzzles == PUZZLES[:3]).all()


BAD_GRIDS = {
    "a row is missing": (grid(TEXTS[0])[:-1], 1, "a grid of 8 rows begins here; expected 9"),
    "a band is missing": (grid(TEXTS[0])[:6], 1, "a grid of 6 rows begins here; expected 9"),
    "a row is short": ([*grid(DOTS[0])[:4], "..", *grid(DOTS[0])[5:]], 5, "expected 9 cells in a row of a grid, or 81"),
    "a row is long": (
        [*grid(DOTS[0])[:8], ".........."],
        9,
        "expected 9 cells in a row of a grid, or 81 in all, not 10",
    ),
    "a letter": ([*grid(DOTS[0])[:8], "....x...."], 9, "expected 9 cells in a row of a grid, or 81 in all, not 9"),
    "blanks are spaces": ([*grid(DOTS[0])[:8], "12  3 4 5 67"], 9, "expected 9 cells in a row of a grid"),
    "irregular": ([*grid(DOTS[0])[:3], "", *grid(DOTS[0])[3:]], 1, "a grid begins here whose rows are separated irreg"),
}


@pytest.mark.parametrize("name", BAD_GRIDS)
@pytest.mark.parametrize("separator", ["", "Grid 7", "# seven"])
def test_bad_grid_takes_no_row_of_another(name, separator, capsys):
    bad, line, reason = BAD_GRIDS[name]
    lines = [*bad, separator, *grid(TEXTS[1]), separator, *grid(TEXTS[2])]
    with pytest.raises(ValueError, match=rf"^text, line {line}: {re.escape(reason)}"):
        read_lines(lines, "text", 3)
    rows = read_lines(lines, "text", 3, "skip")
    assert (rows.puzzles == PUZZLES[1:3]).all()
    assert rows.skipped == 1
    assert capsys.readouterr().err == f"text: skipped the bad rows in lines {line}\n"


def test_short_rows_of_dots_are_no_puzzle():
    for lines in (["12.3"], ["puzzle,rating", "31.22....21..32,1"], ["puzzle", "..", "31.22....21..32"]):
        with pytest.raises(ValueError, match=r"text, line \d: "):
            read_lines(lines, "text", 2)
    # Digits are not filled up either, unless the solution confirms it.
    with pytest.raises(ValueError, match="text, line 2: expected 16 characters, not 15: '310220000210032'"):
        read_lines(["puzzle,solution", "310220000210032,3142243142131324"], "text", 2)
    with pytest.raises(ValueError, match="text, line 2: expected 16 characters, not 15"):
        read_lines(["puzzle,rating", "102200002100320,1"], "text", 2)


@pytest.mark.parametrize("seed", range(40))
def test_random_text_gives_puzzles_or_one_line(seed):
    rng = np.random.default_rng(seed)
    pieces = [
        *TEXTS, *DOTS, *ANSWERS, *grid(TEXTS[0]), ",", ";", "\t", " ", "\n", "\n", "\n", "#", '"', "'", "|", "-",
        "---+---", "Grid 01", "puzzle", "puzzle,solution", "question;answer", "rating", "quizzes", "1_2", "nan",
        "1e999", "9" * 5000, ".", "0", "*", "_", "\0", "\x0c", "\u2028", "٣", "\ufeff", "=1+1", "[/red]", "1" * 81,
    ]  # fmt: skip
    for _ in range(25):
        text = "".join(rng.choice(pieces, rng.integers(1, 40)).tolist())
        for box in (2, 3):
            for on_bad_row in ("stop", "skip"):
                try:
                    rows = read_lines(text.splitlines(), "text", box, on_bad_row)
                except ValueError as error:
                    assert re.match("text(, line [0-9]+)?: ", str(error)), text  # noqa: PT017
                    assert len(str(error).splitlines()) == 1, text  # noqa: PT017
                else:
                    assert valid(rows.solutions, rows.puzzles).all()


def test_long_lines_are_refused_quickly():
    begin = time.process_time()
    for line in (
        "-" * 10**6 + "x",
        TEXTS[0] + " " + "1" * 10**6 + "x",
        "." * 10**6,
        "puzzle" + "!" * 10**6,
        "|" * 10**6,
    ):
        with pytest.raises(ValueError, match=r"text(, line 1)?: "):
            read_lines([line], "text", 3)
    assert time.process_time() - begin < 5
