"""Readers of the files that users bring: text, puzzles, tables, pairs of strings."""

import gzip
import hashlib
import json
import lzma
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from fuzz import Reader, WrongBehaviourError
from mutations import damaged, edited

from looped.reading import read_text
from looped.tasks.base import Task
from looped.tasks.countdown import Countdown, CountdownConfig
from looped.tasks.edit_distance import EditDistance, EditDistanceConfig
from looped.tasks.in_context.table_files import Choices, TargetType, load_table
from looped.tasks.lcs import LCSConfig, LongestCommonSubsequence
from looped.tasks.sudoku.board import generate
from looped.tasks.sudoku.files import read_file
from looped.tasks.tables import Tables, TablesConfig
from looped.tasks.text import Text, TextConfig
from looped.tasks.text.corpus import open_corpus, read_documents

WORDS = "The loop reads a line.\nIt ends.\n\nNaïve café, \U0001f600 and \u4e2d\u6587.\n" * 3


def _in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def write_and_read(content: bytes) -> object:
        Path(name).write_bytes(content)
        return read(Path(name))

    return write_and_read


def _problems(task: Task, name: str) -> Callable[[bytes], object]:
    """A user's problems, as `looped solve` reads them."""

    def read(path: Path) -> object:
        text = read_text(path)
        return task.read(text.split("\n"), str(path), "skip" if len(text) % 3 == 0 else "stop")

    return _in_file(name, read)


# Text and compression


def plain_text() -> Reader:
    contents = [WORDS.encode(), b"\xef\xbb\xbfone\r\ntwo", b"x"]
    return Reader(valid=contents, read=_in_file("in.txt", read_text), names=("in.txt",), cases=700)


def _compressed(text: bytes) -> list[bytes]:
    return [lzma.compress(text), gzip.compress(text, mtime=0), zstandard.compress(text)]


def _damaged_compressed(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Damage of the compressed bytes, of the text inside, or many frames of zeros that grow a thousandfold."""
    kind = rng.random()
    if kind < 0.005:
        return _compressed(bytes(1 << 22))[rng.integers(3)] * 400
    if kind < 0.3:
        return _compressed(damaged(WORDS.encode(), [WORDS.encode()], rng))[rng.integers(3)]
    return damaged(content, valid, rng)


def compressed_text() -> Reader:
    contents = [*_compressed(WORDS.encode()), lzma.compress(b"one\n") * 2, zstandard.compress(b"one\n") * 2]
    return Reader(
        valid=contents, read=_in_file("in.txt", read_text), names=("in.txt",), cases=800, damage=_damaged_compressed
    )


# Puzzles


def _sudoku(box: int, clues: tuple[int, int], cases: int) -> Reader:
    puzzles, solutions = generate(4, box, *clues, np.random.default_rng(0))
    lines = ["".join(map(str, row.tolist())) for row in puzzles]
    answers = ["".join(map(str, row.tolist())) for row in solutions]
    dotted = [line.replace("0", ".") for line in lines]
    table = [
        "puzzle,solution,rating",
        *(f"{p},{s},{r}" for p, s, r in zip(lines, answers, ("1.5", "2", ""), strict=False)),
    ]
    exchange = [f"{hashlib.sha1(line.encode()).hexdigest()[:12]} {line} 3.4" for line in lines]
    contents = ["\n".join(rows).encode() for rows in (lines, dotted, table, exchange)]

    def read(path: Path) -> object:
        return read_file(path, box, "skip" if path.stat().st_size % 3 == 0 else "stop")

    def damage(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
        """Sometimes many digits become blanks, or other digits; such a board can need a long search."""
        if rng.random() < 0.7:
            return damaged(content, valid, rng)
        board = np.frombuffer(contents[rng.integers(2)].split(b"\n")[0], np.uint8).copy()
        board[rng.random(len(board)) < rng.uniform(0, 1)] = ord(".")
        clues = np.flatnonzero((board != ord(".")) & (board != ord("0")))
        board[rng.permutation(clues)[: rng.integers(3)]] = ord("1") + rng.integers(box**2)
        return board.tobytes()

    return Reader(valid=contents, read=_in_file("in.txt", read), names=("in.txt",), cases=cases, damage=damage)


def sudoku() -> Reader:
    return _sudoku(3, (28, 40), 700)


def small_sudoku() -> Reader:
    return _sudoku(2, (5, 9), 300)


def countdown() -> Reader:
    rows = [{"nums": [34, 19, 42, 7], "target": 28}, {"nums": [3, 5, 7, 9], "target": 24}]
    contents = [
        b"34 19 42 7 28\n3, 5, 7, 9, 24\n",
        json.dumps(rows).encode(),
        b"".join(json.dumps(row).encode() + b"\n" for row in rows),
        json.dumps([{**rows[0], "solution": ["34+42=76", "76-19=57", "57-7=50"], "target": 50}]).encode(),
    ]

    def damage(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
        return edited(content, valid, rng) if content[:1] in b"[{" else damaged(content, valid, rng)

    task = Countdown(CountdownConfig())
    return Reader(valid=contents, read=_problems(task, "in.json"), names=("in.json",), cases=700, damage=damage)


PAIRS = [b"kitten sitting\nabc,abd\n", b"k i t | s i t\n", b"a b c | a b d <sep> 3\n", b"abc\tabd\n\nab ba\n"]


def edit_distance() -> Reader:
    task = EditDistance(EditDistanceConfig(length=20))
    return Reader(valid=PAIRS, read=_problems(task, "in.txt"), names=("in.txt",), cases=500)


def lcs() -> Reader:
    task = LongestCommonSubsequence(LCSConfig(length=20))
    pairs = [PAIRS[0], PAIRS[1], b"a b c | a b d <sep> 2\n", PAIRS[3]]
    return Reader(valid=pairs, read=_problems(task, "in.txt"), names=("in.txt",), cases=300)


# Tables


def _table(classes: bool) -> list[bytes]:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(12, 3)).round(3).tolist()
    ends = [("low", "high's")[i % 2] if classes else str(i) for i in range(12)]
    rows = [",".join(map(str, row)) for row in numbers]
    comma = ["a,b,c,target", *(f"{row},{end}" for row, end in zip(rows, ends, strict=True))]
    quoted = ['"a","b, x",c,target', *(f'{row},"{end}"' for row, end in zip(rows, ends, strict=True))]
    kind = "{low,'high\\'s'}" if classes else "NUMERIC"
    escaped = [end.replace("high's", "'high\\'s'") for end in ends]
    arff = [
        "% a comment", "@relation test", "@attribute a numeric", "@attribute 'b x' real", "@ATTRIBUTE c integer",
        f"@attribute target {kind}", "@data", *(f"{row},{end}" for row, end in zip(rows, escaped, strict=True)),
    ]  # fmt: skip
    return ["\n".join(lines).encode() for lines in (comma, quoted, arff)]


def _loaded(target_type: TargetType) -> Callable[[bytes], object]:
    def read(path: Path) -> None:
        table = load_table(str(path), Choices(target_type))
        with np.errstate(over="ignore"):
            if not all(np.isfinite(values.astype(np.float32)).all() for values in (table.x, table.y)):
                raise WrongBehaviourError("the table is not finite in float32, the type of its use")

    return _in_file("in.csv", read)


def class_table() -> Reader:
    return Reader(valid=_table(True), read=_loaded("class"), names=("in.csv",), cases=700)


def number_table() -> Reader:
    return Reader(valid=_table(False), read=_loaded("number"), names=("in.csv",), cases=700)


def table_to_solve() -> Reader:
    for name in ("one.csv", "two.csv"):
        rows = [f"{i % 7}.5,{i % 5},{('low', 'high')[i % 2]}" for i in range(40)]
        Path(name).write_text("\n".join(["a,b,target", *rows]))
    task = Tables(TablesConfig(tables=("one.csv", "two.csv"), held_out="two.csv", dim=4, points=12))
    contents = [content.replace(b"low\n", b"?\n", 1) for content in _table(True)]
    contents = [b"a,b,target\n1,2,low\n2,3,high\n4,5,?\n6,7,\n", *contents[2:]]
    return Reader(valid=contents, read=_problems(task, "in.csv"), names=("in.csv",), cases=600)


# Text of language models


def prompts() -> Reader:
    task = Text.from_documents(TextConfig(context=64), [f"A document number {i}." * 9 for i in range(200)])
    contents = [b"Once upon a time\nThe loop\n", WORDS.encode()[:150], b"x"]
    return Reader(valid=contents, read=_problems(task, "in.txt"), names=("in.txt",), cases=400)


def _documents(name: str, **settings: Any) -> Callable[[bytes], object]:
    Path("other.txt").write_text("another text\n" * 9)
    others = Path("other.txt"), Path("last.txt")
    others[1].write_text("the last text\n" * 9)

    def read(path: Path) -> object:
        splits = {"validation_files": (str(others[0]),), "test_files": (str(others[1]),)}
        return list(read_documents(TextConfig(train_files=(str(path),), **splits, **settings), "reading"))

    return _in_file(name, read)


def corpus() -> Reader:
    return Reader(
        valid=[WORDS.encode(), lzma.compress(WORDS.encode()), b"one\ntwo\n\nthree"],
        read=_documents("in.txt", document="paragraph"), names=("in.txt",), cases=300,
    )  # fmt: skip


def json_lines() -> Reader:
    rows = [json.dumps({"text": f"line {i} é", "id": i, "tags": ["a", {"b": None}]}).encode() + b"\n" for i in range(4)]
    return Reader(
        valid=[b"".join(rows), rows[0] + b"\n" + rows[1], b"".join(rows[::-1])],
        read=_documents("in.jsonl", text_field="text"), names=("in.jsonl",), cases=500, damage=edited,
    )  # fmt: skip


def prepared_text() -> Reader:
    """The folder of a prepared corpus, of which one file is damaged."""
    Path("corpus.txt").write_text("".join(f"A document number {i}.\n" for i in range(400)))
    config = TextConfig(train_files=("corpus.txt",), document="line", context=16, cache="prepared")
    folder = open_corpus(config).folder
    assert folder is not None
    shutil.copytree(folder, "good")
    files = sorted(path.name for path in Path("good").iterdir())
    contents = [(Path("good") / name).read_bytes() for name in files]

    def damage(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
        return edited(content, [content], rng) if content[:1] == b"{" else damaged(content, [content], rng)

    def read(content: bytes) -> object:
        # The beginning tells which file it was; anything unknown is put in the place of the manifest.
        name = "train-00000.npy" if content[:6] == contents[-2][:6] else "manifest.json"
        (folder / name).write_bytes(content)
        try:
            return open_corpus(config)
        finally:
            (folder / name).write_bytes((Path("good") / name).read_bytes())

    valid = [
        content for name, content in zip(files, contents, strict=True) if name in ("manifest.json", "train-00000.npy")
    ]
    return Reader(valid=valid, read=read, names=("prepared/",), cases=400, damage=damage)
