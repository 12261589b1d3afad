"""The solver against a plainer one, and on boards that are hard or hopeless."""

import time

import numpy as np
import pytest

from looped.tasks.sudoku import solver
from looped.tasks.sudoku.board import generate, symmetry, valid
from looped.tasks.sudoku.solver import solve

# Among the hardest puzzles that were published.
HARDEST = """
8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4..
1....7.9..3..2...8..96..5....53..9...1..8...26....4...3......1..4......7..7...3..
.......39.....1..5..3.5.8....8.9...6.7...2...1..4.......9.8..5..2....6..4..7.....
1.......2.9.4...5...6...7...5.9.3.......7.......85..4.7.....6...3...9.8...2.....1
.......12........3..23..4....18....5.6..7.8.......9.....85.....9...4.5..47...6...
12.3....435....1....4........54..2..6...7.........8.9...31..5.......9.7.....6...8
98.7.....6.....87...7.....5.4..3.5....65...9......2..1..86...5.....1.3.......4..2
12..3....4....1.2...52..1..5..4..2......6..7......3..8.5....9....9.7..3......8..6
"""
SEVENTEEN = """
.......1.4.........2...........5.4.7..8...3....1.9....3..4..2...5.1........8.6...
..............3.85..1.2.......5.7.....4...1...9.......5......73..2.1........4...9
"""
NO_SOLUTION = ".....5.8....6.1.43..........1.5........1.6...3.......553.....61........4........."


def boards(text: str) -> np.ndarray:
    return np.array([[int(c) for c in line.replace(".", "0")] for line in text.split()], np.uint8)


def forms(puzzles: np.ndarray, count: int) -> np.ndarray:
    """The puzzles under `count` random symmetries each."""
    many = np.repeat(puzzles, count, axis=0)
    return symmetry(many, many, np.random.default_rng(0))[0]


def spoilt(puzzles: np.ndarray, seed: int) -> np.ndarray:
    """Puzzles with a clue removed or changed, so many have no or several solutions."""
    rng = np.random.default_rng(seed)
    spoilt = puzzles.copy()
    for board in spoilt:
        cell = rng.choice(np.flatnonzero(board))
        board[cell] = rng.integers(0, round(len(board) ** 0.5), endpoint=True)
    return spoilt


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_same_as_singles_only(limit, monkeypatch):
    """Locked candidates and the choice of the cell change the way to the solutions, but not the solutions."""
    puzzles, _ = generate(600, 3, 24, 34, np.random.default_rng(limit))
    small, _ = generate(1000, 2, 4, 8, np.random.default_rng(limit))
    nine = np.vstack([puzzles, spoilt(puzzles, 0), forms(boards(HARDEST), 6), forms(boards(SEVENTEEN), 6)])
    for batch in (nine, np.vstack([small, spoilt(small, 0), spoilt(spoilt(small, 1), 2)])):
        solutions, counts = solve(batch, limit=limit)
        with monkeypatch.context() as patch:
            patch.setattr(solver, "_propagate", solver._singles)
            expected, numbers = solve(batch, limit=limit)
        assert set(range(limit + 1)) >= set(counts.tolist()) >= {0, limit}
        assert (counts == numbers).all()
        assert ((solutions == expected).all(1) | (counts > 1) | (limit == 1)).all()
        assert valid(solutions[counts > 0], batch[counts > 0]).all()
        assert not solutions[counts == 0].any()


def test_the_hardest_puzzles_take_few_guesses(monkeypatch):
    monkeypatch.setattr(solver, "GUESSES", 1000)
    assert (solve(forms(boards(HARDEST), 10))[1] == 1).all()
    for board in forms(boards(HARDEST), 3):
        assert solve(board[None])[1] == 1
    monkeypatch.setattr(solver, "GUESSES", 10)
    assert (solve(boards(HARDEST))[1] == -1).all()
    assert (solve(np.repeat(boards(SEVENTEEN), solver.FEW, axis=0))[1] == 1).all()  # these take none


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_one_at_a_time_as_in_a_list(limit, monkeypatch):
    """Few boards are guessed in without waiting for all that can be deduced. The answers are the same."""
    nine = np.vstack([boards(HARDEST), boards(SEVENTEEN), spoilt(boards(HARDEST), 0), spoilt(boards(SEVENTEEN), 1)])
    small, _ = generate(30, 2, 4, 8, np.random.default_rng(limit))
    empty, full = np.zeros((1, 16), np.uint8), solve(small, limit=1)[0][:1]
    for batch in (nine, np.vstack([small, spoilt(small, 0), spoilt(spoilt(small, 1), 2), empty, full])):
        one_by_one = [solve(board[None], limit=limit) for board in batch]
        solutions, counts = (np.concatenate([result[i] for result in one_by_one]) for i in (0, 1))
        monkeypatch.setattr(solver, "FEW", 0)
        expected, numbers = solve(batch, limit=limit)
        monkeypatch.undo()
        assert (counts == numbers).all()
        assert ((solutions == expected).all(1) | (counts > 1) | (limit == 1)).all()
        assert valid(solutions[counts > 0], batch[counts > 0]).all()
        assert not solutions[counts == 0].any()


def test_no_board_takes_long():
    """Boards of 17 to 25 clues, by the rules or not; a board that no plain search refutes within minutes."""
    rng = np.random.default_rng(0)
    full, _ = solve(np.zeros((200, 81), np.uint8), limit=1, rng=rng)
    clues = rng.integers(17, 25, (200, 1), endpoint=True)
    puzzles = np.where(rng.random((200, 81)).argsort(1).argsort(1) < clues, full, 0).astype(np.uint8)
    for batch in (puzzles, spoilt(puzzles, 0), spoilt(spoilt(puzzles, 0), 1)):
        assert (solve(batch)[1] >= 0).all()
    begin = time.process_time()
    assert solve(boards(NO_SOLUTION))[1].tolist() == [-1]
    assert time.process_time() - begin < 5
    assert solve(boards(NO_SOLUTION))[1].tolist() == [-1]
