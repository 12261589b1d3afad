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
FEW = "12" + "0" * 79
WRONG_ANSWER = changed(ANSWERS[1], BLANK, str(int(ANSWERS[1][BLANK]) % 9 + 1))
HEADER = "puzzle,solution,difficulty"
BAD_ROWS = {
    "too short": (None, TEXTS[1][:-1], "expected 81 characters, not 80"),
    "too long": (None, TEXTS[1] + "1", "expected 81 characters, not 82"),
    "a small board": (None, SMALL, "expected 81 characters, not 16"),
    "a letter": (None, changed(TEXTS[1], 5, "x"), "expected digits 1 to 9, and . or 0 for a blank, not 'x'"),
    "a strange digit": (None, changed(TEXTS[1], 5, "٣"), "expected digits 1 to 9, and . or 0 for a blank, not '٣'"),
    "a broken hash": (None, f"{digest(TEXTS[0])} {TEXTS[1]} 5.0", "does not belong to these digits"),
    "no rating": (None, f"{digest(TEXTS[1])} {TEXTS[1]}", "expected 81 characters, not 94"),
    "clues that contradict": (None, TWICE, "the puzzle has no solution"),
    "no solution": (None, OTHER, "the puzzle has no solution"),
    "several solutions": (None, FEW, "the puzzle has more than one solution"),
    "an empty board": (None, "." * 81, "the puzzle has more than one solution"),
    "wrong solution": (HEADER, f"{TEXTS[1]},{WRONG_ANSWER},1", "the stated solution is not that of the puzzle"),
    "short solution": (HEADER, f"{TEXTS[1]},{ANSWERS[1][:-1]},1", "the stated solution is not that of the puzzle"),
    "no puzzle": (HEADER, ",,1", "expected 81 characters, not 0"),
    "several in CSV": (HEADER, f"{FEW},{ANSWERS[1]},1", "the puzzle has more than one solution"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row_stops_or_is_skipped(name, tmp_path):
    header, row, reason = BAD_ROWS[name]
    path = tmp_path / "puzzles.txt"
    path.write_text(
        "\n".join([*([header] if header else []), TEXTS[0], row, "", TEXTS[2], "also bad"]), encoding="utf-8"
    )
    line = 3 if header else 2
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}, line {line}: .*{re.escape(reason)}$") as error:
        read_file(path, 3)
    assert "\n" not in str(error.value)
    rows = read_file(path, 3, "skip")
    assert (rows.puzzles == PUZZLES[[0, 2]]).all()
    assert (rows.solutions == SOLUTIONS[[0, 2]]).all()
    assert rows.skipped == 2


def test_first_bad_row_is_named_whatever_its_fault():
    with pytest.raises(ValueError, match=r"text, line 1: the puzzle has more than one solution"):
        read_lines([FEW, "short"], "text", 3)
    with pytest.raises(ValueError, match=r"text, line 1: expected 81 characters"):
        read_lines(["short", FEW], "text", 3)


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
    "a CSV without header": (f"{TEXTS[0]},{ANSWERS[0]}".encode(), "line 1: expected the header"),
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
