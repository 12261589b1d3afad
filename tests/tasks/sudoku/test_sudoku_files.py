"""Readers of Sudoku files: every format, every bad row, and the real files."""

import csv
import gzip
import hashlib
import lzma
import re
from pathlib import Path

import numpy as np
import pytest

from looped.tasks.sudoku import files as sudoku_files
from looped.tasks.sudoku.board import generate, valid
from looped.tasks.sudoku.files import read_file, read_lines

DATA = Path(__file__).resolve().parents[3] / "shared/data/sudoku"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real puzzle files are not at {DATA}")

PUZZLES, SOLUTIONS = generate(5, 3, 28, 34, np.random.default_rng(0))
TEXTS = ["".join(map(str, board)) for board in PUZZLES.tolist()]
ANSWERS = ["".join(map(str, board)) for board in SOLUTIONS.tolist()]
DOTS = [text.replace("0", ".") for text in TEXTS]
SMALL = "3102200002100320"


def digest(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()[:12]


RADCLIFFE = ["id,puzzle,solution,clues,difficulty", *(f"{i},{DOTS[i]},{ANSWERS[i]},30,{i}.5" for i in range(5))]
NUMBERS = [f"{i}.5" for i in range(5)]
FORMATS = {
    "radcliffe": (RADCLIFFE, NUMBERS),
    "quoted": ([",".join(f'"{field}"' for field in line.split(",")) for line in RADCLIFFE], NUMBERS),
    "classes": (
        ["Puzzle,Solution,Givens,Difficulty", *(f"{DOTS[i]},{ANSWERS[i]},30,Expert," for i in range(5))],
        ["Expert"] * 5,
    ),
    "puzzle only": (["Rating, Puzzle", *(f"{i}.5, {TEXTS[i]}" for i in range(5))], NUMBERS),
    "Sudoku-Extreme": (
        ["source,question,answer,rating", *(f"list_a,{DOTS[i]},{ANSWERS[i]},{i}" for i in range(5))],
        [f"{i}" for i in range(5)],
    ),
    "Kaggle": (["quizzes,solutions", *(f"{TEXTS[i]},{ANSWERS[i]}" for i in range(5))], [""] * 5),
    "semicolons": (["Sudoku;Level", *(f"{TEXTS[i]};{i}" for i in range(5))], [f"{i}" for i in range(5)]),
    "tabs": (["board\trating", *(f"{TEXTS[i]}\t{i}" for i in range(5))], [f"{i}" for i in range(5)]),
    "pairs without header": ([f"{TEXTS[i]},{ANSWERS[i]}" for i in range(5)], [""] * 5),
    "pairs of text": ([f"{TEXTS[i]}\t{ANSWERS[i]}" for i in range(5)], [""] * 5),
    "commas in quotes": (
        ["puzzle,note,rating", *(f'{TEXTS[i]},"hard, they ""say""",{i}.5 # yes' for i in range(5))],
        NUMBERS,
    ),
    "comments in CSV": (
        ["# mine", "", RADCLIFFE[0], "# those", *(f"{line} # good" for line in RADCLIFFE[1:])],
        NUMBERS,
    ),
    "zeros lost, solution stated": (
        ["puzzle,solution", *(f"{TEXTS[i].lstrip('0')},{ANSWERS[i]}" for i in range(5))],
        [""] * 5,
    ),
    "comments": (["# my puzzles", *(f"{text} # easy, {text}" for text in TEXTS), "  #"], [""] * 5),
    "ratings": ([f"{text} {i}.5 # hard" for i, text in enumerate(DOTS)], NUMBERS),
    "hashes": ([f"{digest(text).upper()} {text}" for text in TEXTS], [""] * 5),
    "labels": ([line for i, text in enumerate(TEXTS) for line in (f"Puzzle #{i}:", text)], [""] * 5),
    "a name above": (["Puzzle", *TEXTS], [""] * 5),
    "stars and underscores": ([t.replace("0", "_*"[i % 2]) for i, t in enumerate(TEXTS)], [""] * 5),
    "rows in one line": ([" ".join(t[i : i + 9] for i in range(0, 81, 9)) for t in DOTS], [""] * 5),
    "cells in one line": ([" ".join(t) for t in TEXTS], [""] * 5),
    "dots": (DOTS, [""] * 5),
    "zeros": (["", *TEXTS, "  "], [""] * 5),
    "exchange": ([f"{digest(text)} {text}  {i}.5" for i, text in enumerate(TEXTS)], NUMBERS),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("pack", ["plain", "xz", "gz", "windows"])
def test_every_format_plain_and_packed(name, pack, tmp_path):
    lines, ratings = FORMATS[name]
    content = "\n".join(lines).encode()
    # The name does not matter, the content does.
    path = tmp_path / "puzzles"
    path.write_bytes(
        {
            "plain": lambda: content,
            "xz": lambda: lzma.compress(content),
            "gz": lambda: gzip.compress(content),
            "windows": lambda: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"),
        }[pack]()
    )
    for rows in (read_file(path, 3), read_lines(lines, "text", 3)):
        assert (rows.puzzles == PUZZLES).all()
        assert (rows.solutions == SOLUTIONS).all()
        assert rows.ratings == ratings
        assert rows.skipped == 0


def test_many_skipped_rows_are_named_in_part(capsys):
    read_lines([TEXTS[0], *["bad"] * 9], "text", 3, "skip")
    assert capsys.readouterr().err == "text: skipped the bad rows in lines 2, 3, 4, 5, 6, ...\n"


def test_small_boards_whose_leading_zeros_were_lost():
    small, answers = generate(200, 2, 4, 7, np.random.default_rng(0))
    texts = ["".join(map(str, board)) for board in small.tolist()]
    lines = ["Puzzle,Solution"]
    lines += [f"{int(t)},{''.join(map(str, a))}" for t, a in zip(texts, answers.tolist(), strict=True)]
    assert sum(len(str(int(t))) < 16 for t in texts) > 50
    rows = read_lines(lines, "text", 2)
    assert (rows.puzzles == small).all()
    assert (rows.solutions == answers).all()


def test_many_batches_are_put_together(monkeypatch):
    monkeypatch.setattr(sudoku_files, "BATCH", 2)
    rows = read_lines([*TEXTS[:3], "bad", *TEXTS[3:]], "text", 3, "skip")
    assert (rows.puzzles == PUZZLES).all()
    assert rows.skipped == 1
    with pytest.raises(ValueError, match="text, line 4: "):
        read_lines([*TEXTS[:3], "bad", *TEXTS[3:]], "text", 3)


def changed(text: str, cell: int, to: str) -> str:
    return text[:cell] + to + text[cell + 1 :]


CLUE = next(i for i, c in enumerate(TEXTS[1]) if c != "0")
BLANK = TEXTS[1].index("0")
TWICE = changed(TEXTS[1], BLANK, next(c for c in TEXTS[1][BLANK // 9 * 9 : BLANK // 9 * 9 + 9] if c != "0"))
OTHER = changed(TEXTS[1], BLANK, str(int(ANSWERS[1][BLANK]) % 9 + 1))
HOPELESS = ".....5.8....6.1.43..........1.5........1.6...3.......553.....61........4........."
FEW = "12" + "0" * 79
SEVERAL = "".join("0" if i in (0, 40, 80) or i % 9 < 3 else c for i, c in enumerate(ANSWERS[1]))
WRONG_ANSWER = changed(ANSWERS[1], BLANK, str(int(ANSWERS[1][BLANK]) % 9 + 1))
HEADER = "puzzle,solution,difficulty"
BAD_ROWS = {
    "too short": (None, TEXTS[1][:-1], f"expected 81 characters, not 80: '{TEXTS[1][:60]}'"),
    "too long": (None, TEXTS[1] + "1", f"expected 81 characters, not 82: '{TEXTS[1][:60]}'"),
    "a small board": (None, SMALL, f"expected 81 characters, not 16: '{SMALL}'"),
    "words": (None, "my best one", "expected 81 characters, not 11: 'my best one'"),
    "only dots": (None, "..", "expected 81 characters, not 2: '..'"),
    "a letter": (None, changed(TEXTS[1], 5, "x"), "expected digits 1 to 9, and . or 0 for a blank, not 'x'"),
    "a strange digit": (None, changed(TEXTS[1], 5, "٣"), "expected digits 1 to 9, and . or 0 for a blank, not '٣'"),
    "a broken hash": (None, f"{digest(TEXTS[0])} {TEXTS[1]} 5.0", "does not belong to these digits"),
    "text after it": (None, f"{TEXTS[1]} easy", "text after the puzzle: 'easy'; expected a number as rating, or"),
    "two ratings": (None, f"{TEXTS[1]} 7.1 7.2", "text after the puzzle: '7.1 7.2'; expected a number as rating, or"),
    "a rating of Python's": (None, f"{TEXTS[1]} 1_2", "text after the puzzle: '1_2'; expected a number as rating, or"),
    "rating instead of cells": (None, f"{TEXTS[1][:78]} 7.2", "expected 81 characters, not 82"),
    "clues that contradict": (None, TWICE, "the puzzle has no solution"),
    "no solution": (None, OTHER, "the puzzle has no solution"),
    "several solutions": (None, SEVERAL, "the puzzle has more than one solution"),
    "hopeless": (None, HOPELESS, "the search for its solutions was given up after 200000 guesses"),
    "few clues": (None, FEW, "2 clues; a puzzle with exactly one solution has at least 17"),
    "an empty board": (None, "." * 81, "0 clues; a puzzle with exactly one solution has at least 17"),
    "wrong solution": (HEADER, f"{TEXTS[1]},{WRONG_ANSWER},1", "the stated solution is not that of the puzzle"),
    "short solution": (HEADER, f"{TEXTS[1]},{ANSWERS[1][:-1]},1", "the stated solution is not that of the puzzle"),
    "no puzzle": (HEADER, ",,1", "expected 81 characters, not 0: ''"),
    "several in CSV": (HEADER, f"{SEVERAL},{ANSWERS[1]},1", "the puzzle has more than one solution"),
    "end lost in CSV": (HEADER, f"{TEXTS[1][:-1]},{ANSWERS[1]},1", "expected 81 characters, not 80"),
    "a field too few": (HEADER, f"{TEXTS[1]},{ANSWERS[1]}", "expected 3 fields, not 2"),
    "a field too many": (HEADER, f"{TEXTS[1]},{ANSWERS[1]},1,2", "expected 3 fields, not 4"),
    "an open quote": (HEADER, f'{TEXTS[1]},{ANSWERS[1]},"1', "not a row of a CSV: unexpected end of data"),
    "a long cell": (HEADER, f'{TEXTS[1]},{ANSWERS[1]},"{"1" * 200_000}"', "not a row of a CSV: field larger than"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row_stops_or_is_skipped(name, tmp_path, capsys):
    header, row, reason = BAD_ROWS[name]
    path = tmp_path / "puzzles.txt"
    good = [f"{TEXTS[i]},," if header else TEXTS[i] for i in (0, 2)]
    path.write_text("\n".join([*([header] if header else []), good[0], row, "", good[1], "also bad"]), encoding="utf-8")
    line = 3 if header else 2
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}, line {line}: .*{re.escape(reason)}") as error:
        read_file(path, 3)
    assert "\n" not in str(error.value)
    rows = read_file(path, 3, "skip")
    assert (rows.puzzles == PUZZLES[[0, 2]]).all()
    assert (rows.solutions == SOLUTIONS[[0, 2]]).all()
    assert rows.skipped == 2
    assert capsys.readouterr().err == f"{path}: skipped the bad rows in lines {line}, {line + 3}\n"


def test_first_bad_row_is_named_whatever_its_fault():
    with pytest.raises(ValueError, match=r"text, line 1: the puzzle has more than one solution"):
        read_lines([SEVERAL, "short"], "text", 3)
    with pytest.raises(ValueError, match=r"text, line 1: expected 81 characters"):
        read_lines(["short", SEVERAL], "text", 3)


def test_wrong_digits_of_small_boards():
    with pytest.raises(ValueError, match=r"line 1: expected digits 1 to 4.* not '5'"):
        read_lines(["5102200002100320"], "text", 2)
    assert read_lines([SMALL], "text", 2).solutions.shape == (1, 16)


PACKED = "\n".join(TEXTS).encode()
BAD_FILES = {
    "empty": (b"", "empty file"),
    "blank": (b"\n \n", "empty file"),
    "only a header": (HEADER.encode(), "no Sudoku puzzle in it (0 bad rows)"),
    "only bad rows": (b"bad\nworse", "no Sudoku puzzle in it (2 bad rows)"),
    "empty xz": (lzma.compress(b""), "empty file"),
    "a CSV of something else": (b"name,age\nx,3", "line 1: expected the header of a CSV with a column named puzzle"),
    "three fields without header": (f"1,{TEXTS[0]},{ANSWERS[0]}".encode(), "line 1: expected the header of a CSV"),
    "a rating without header": (f"{TEXTS[0]},7.1,".encode(), "line 1: expected the header of a CSV"),
    "solutions only": (b"id,solution\n1,2", "line 1: expected the header of a CSV with a column named puzzle"),
    "an index column": (f",puzzle\n0,{TEXTS[0]}".encode(), "line 1: column 1 has no name"),
    "a name twice": (f"puzzle,rating,Rating\n{TEXTS[0]},1,2".encode(), "line 1: two columns have the name 'rating'"),
    "two puzzles": (b"puzzle,question\n1,2", "line 1: the columns puzzle and question both name the puzzle"),
    "a misspelt name": (b"puzzle,ratng\n1,2", "line 1: column 'ratng': expected 'rating'? Known names are puzzle, "),
    "a misspelt puzzle": (b"puzle,solution\n1,2", "line 1: column 'puzle': expected 'puzzle'? Known names are"),
    "latin-1": ("Rätsel".encode("latin-1"), "not UTF-8 text"),
    "binary": (bytes(range(128, 256)), "not UTF-8 text"),
    "truncated xz": (lzma.compress(PACKED)[:-30], "damaged or cut short"),
    "truncated gz": (gzip.compress(PACKED)[:-20], "damaged or cut short"),
    "garbled xz": (lzma.compress(PACKED)[:60] + b"garbage" * 30, "damaged or cut short"),
    "garbled gz": (gzip.compress(PACKED)[:60] + b"garbage" * 30, "damaged or cut short"),
    "only the start of gz": (b"\x1f\x8b", "damaged or cut short"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_gives_one_clear_line(name, tmp_path):
    content, reason = BAD_FILES[name]
    path = tmp_path / "puzzles.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}.*{re.escape(reason)}") as error:
        read_file(path, 3, "skip")
    assert type(error.value) is ValueError
    assert "\n" not in str(error.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match="absent: No such file or directory"):
        read_file(tmp_path / "absent", 3)
    with pytest.raises(ValueError, match="Is a directory"):
        read_file(tmp_path, 3)


# The real files, with their solutions parsed here by other means


def column(name: str, key: str) -> list[str]:
    opener = lzma.open if name.endswith(".xz") else open
    with opener(DATA / name, "rt") as lines:
        return [row[key] for row in csv.DictReader(lines)]


def as_boards(texts: list[str]) -> np.ndarray:
    return np.array([list(text.replace(".", "0").encode()) for text in texts], np.uint8) - 48


@real
@pytest.mark.parametrize(
    ("name", "puzzle", "solution", "rating", "count"),
    [
        ("qqwing_30000.csv.xz", "Puzzle", "Solution", "Difficulty", 30_000),
        ("radcliffe_sample_100.csv", "puzzle", "solution", "difficulty", 100),
    ],
)
def test_real_csv_files(name, puzzle, solution, rating, count):
    rows = read_file(DATA / name, 3)
    assert len(rows.puzzles) == count
    assert (rows.puzzles == as_boards(column(name, puzzle))).all()
    assert (rows.solutions == as_boards(column(name, solution))).all()
    assert rows.ratings == column(name, rating)


@real
def test_real_exchange_file_and_its_solutions():
    solved = "exchange_diabolical_solved.csv.xz"
    rows = read_file(DATA / "exchange_diabolical.txt.xz", 3)
    assert len(rows.puzzles) == 39_719
    assert (rows.puzzles == as_boards(column(solved, "Puzzle"))).all()
    assert (rows.solutions == as_boards(column(solved, "Solution"))).all()
    assert set(column(solved, "Solution Count")) == {"1"}
    assert {float(rating) // 1 for rating in rows.ratings} == {5, 6, 7, 8, 9}


@real
def test_real_csv_of_solved_puzzles_is_read_too():
    rows = read_file(DATA / "exchange_diabolical_solved.csv.xz", 3)
    assert len(rows.puzzles) == 39_719
    assert set(rows.ratings) == {"Expert"}


@real
@pytest.mark.parametrize(("name", "count"), [("norvig_10k.txt", 10_000), ("norvig_easy50.txt", 50)])
def test_real_plain_files(name, count):
    rows = read_file(DATA / name, 3)
    assert len(rows.puzzles) == count
    assert (rows.puzzles == as_boards((DATA / name).read_text().split())).all()
    assert valid(rows.solutions, rows.puzzles).all()
    assert set(rows.ratings) == {""}


@real
def test_real_small_boards():
    """124 of the 500 rows have several solutions (also by brute force); they are named, or skipped and counted."""
    name = "sudoku_4x4_500.csv"
    with pytest.raises(ValueError, match=r"sudoku_4x4_500.csv, line 10: the puzzle has more than one solution"):
        read_file(DATA / name, 2)
    rows = read_file(DATA / name, 2, "skip")
    assert (len(rows.puzzles), rows.skipped) == (376, 124)
    given = as_boards([text.zfill(16) for text in column(name, "Puzzle")])
    stated = as_boards(column(name, "Solution"))
    assert valid(stated, given).all()
    known = {puzzle.tobytes(): solution for puzzle, solution in zip(given, stated, strict=True)}
    assert all((known[p.tobytes()] == s).all() for p, s in zip(rows.puzzles, rows.solutions, strict=True))
