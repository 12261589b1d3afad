"""Sudoku with files of the test split, and with few training puzzles."""

import dataclasses

import numpy as np
import pytest
from test_sudoku import puzzles_9x9, small

from looped.tasks.sudoku import Sudoku, SudokuConfig
from looped.tasks.sudoku.board import invariant, symmetry


@pytest.fixture
def published(tmp_path) -> tuple[str, str]:
    """Two files in the format of Sudoku-Extreme. Five training puzzles are copies of test puzzles, five symmetric."""
    puzzles, solutions = puzzles_9x9()
    moved = symmetry(puzzles[:5], solutions[:5], np.random.default_rng(1))
    parts = {
        "test.csv": (puzzles[:60], solutions[:60]),
        "train.csv": tuple(
            np.concatenate([a[60:], a[5:10], b]) for a, b in zip((puzzles, solutions), moved, strict=True)
        ),
    }
    for name, boards in parts.items():
        rows = zip(*(("".join(map(str, board)) for board in part.tolist()) for part in boards), strict=True)
        lines = [f"list {i},{q.replace('0', '.')},{a},{2 * i}" for i, (q, a) in enumerate(rows)]
        (tmp_path / name).write_text("\n".join(["source,question,answer,rating", *lines]))
    return str(tmp_path / "train.csv"), str(tmp_path / "test.csv")


def test_test_files_are_the_test_split(published):
    train, test = published
    task = Sudoku(SudokuConfig(files=(train,), test_files=(test,), augment=False))
    assert task.groups[:4] == ("all", "0-1", "2-3", "4-5")
    assert task.groups[-3:] == ("16-32", "32-64", "64-128")
    assert task.available("test") == task.available("test", "all") == 60
    puzzles, solutions = puzzles_9x9()
    tested = {p.given.tobytes() for p in task.sample("test", 60, np.random.default_rng(0))}
    assert tested == {puzzle.tobytes() for puzzle in puzzles[:60]}
    assert task.available("test", "64-128") == 28  # 64, 66 .. 118
    keys = set(invariant(solutions[:60]).tolist())
    for split in ("train", "validation"):
        found = task.sample(split, task.available(split), np.random.default_rng(0))
        assert not keys & set(invariant(np.stack([p.solution for p in found])).tolist())
    assert task.available("train") + task.available("validation") == 500
    assert task.available("train") > 400
    assert list(task.sources()) == [test, train]


def test_training_puzzles_are_a_random_part(published):
    config = SudokuConfig(files=published[:1], test_files=published[1:], train_puzzles=7, augment=False)
    chosen = {}
    for seed in (0, 1):
        task = Sudoku(dataclasses.replace(config, pool_seed=seed))
        assert (task.available("train"), task.available("test")) == (7, 60)
        chosen[seed] = {p.given.tobytes() for p in task.sample("train", 200, np.random.default_rng(0))}
        assert len(chosen[seed]) == 7
    assert chosen[0] != chosen[1]
    generated = Sudoku(SudokuConfig(box=2, pool=400, train_puzzles=7))
    assert generated.available("train") == 7
    assert generated.available("test") == small().available("test")
    with pytest.raises(ValueError, match="test_files"):
        SudokuConfig(test_files=published[1:])
