"""The solver, the generator and the symmetries against brute force."""

from functools import cache
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looped.tasks.sudoku import solver as sudoku_solver
from looped.tasks.sudoku.board import canonical, generate, invariant, split_key, symmetry, valid
from looped.tasks.sudoku.solver import solve

WIKIPEDIA = (
    "530070000600195000098000060800060003400803001700020006060000280000419005000080079",
    "534678912672195348198342567859761423426853791713924856961537284287419635345286179",
)
INKALA = (
    "800000000003600000070090200050007000000045700000100030001000068008500010090000400",
    "812753649943682175675491283154237896369845721287169534521974368438526917796318452",
)
KNOWN = (WIKIPEDIA, INKALA)


def boards(*texts: str) -> np.ndarray:
    return np.array([[int(c) for c in text] for text in texts], np.uint8)


def allowed(board: list[int], cell: int) -> list[int]:
    """The digits that no row, column or box forbids, in the plainest way."""
    side = round(len(board) ** 0.5)
    box = round(side**0.5)
    row, column = divmod(cell, side)
    seen = {board[row * side + k] for k in range(side)} | {board[k * side + column] for k in range(side)}
    top, left = row // box * box, column // box * box
    seen |= {board[(top + i) * side + left + j] for i in range(box) for j in range(box)}
    return [digit for digit in range(1, side + 1) if digit not in seen]


def brute_force(board: list[int], limit: int) -> list[list[int]]:
    """Up to `limit` solutions by plain backtracking over the cell with fewest digits."""
    blanks = [cell for cell, digit in enumerate(board) if digit == 0]
    if not blanks:
        return [list(board)]
    cell = min(blanks, key=lambda c: len(allowed(board, c)))
    found: list[list[int]] = []
    for digit in allowed(board, cell):
        found += brute_force([*board[:cell], digit, *board[cell + 1 :]], limit - len(found))
        if len(found) >= limit:
            break
    return found


@cache
def small_grids() -> np.ndarray:
    return np.array(brute_force([0] * 16, 1000), np.uint8)


def small_puzzles(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return generate(count, 2, 4, 8, np.random.default_rng(seed))


@cache
def puzzles_9x9() -> tuple[np.ndarray, np.ndarray]:
    return generate(60, 3, 26, 40, np.random.default_rng(1))


# The solver


def test_there_are_288_small_grids():
    solutions, counts = solve(np.zeros((1, 16), np.uint8), limit=1000)
    assert len(small_grids()) == counts[0] == 288
    assert valid(solutions, solutions).all()


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_solver_counts_as_brute_force_on_small_boards(data):
    batch = np.array(data.draw(st.lists(st.lists(st.integers(0, 4), min_size=16, max_size=16), min_size=1, max_size=3)))
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=16, max_size=16)))
    # Boards of random digits hardly ever have a solution; parts of a grid always have one.
    part = np.where(keep, small_grids()[data.draw(st.integers(0, 287))], 0)
    batch = np.vstack([np.where(keep, 0, batch), part]).astype(np.uint8)
    limit = data.draw(st.integers(1, 300))
    solutions, counts = solve(batch, limit=limit)
    assert counts[-1] > 0
    for board, solution, count in zip(batch, solutions, counts, strict=True):
        fits = small_grids()[((board == 0) | (board == small_grids())).all(1)]
        assert count == min(len(fits), limit)
        assert (solution == fits).all(1).any() if count else not solution.any()


@pytest.mark.parametrize("chunk", [1, 3, 4096])
def test_known_puzzles_in_chunks_of_any_size(chunk, monkeypatch):
    monkeypatch.setattr(sudoku_solver, "CHUNK", chunk)
    solutions, counts = solve(boards(*(puzzle for puzzle, _ in KNOWN)))
    assert (solutions == boards(*(solution for _, solution in KNOWN))).all()
    assert counts.tolist() == [1, 1]


def test_solver_agrees_with_brute_force_on_9x9():
    puzzles, _ = puzzles_9x9()
    opened = puzzles[:10].copy()
    opened[:, :27] = 0  # without the first band there are several solutions
    for batch, expected in ((puzzles[:10], 1), (opened, 3)):
        _, counts = solve(batch, limit=3)
        assert counts.tolist() == [len(brute_force(board.tolist(), 3)) for board in batch]
        assert counts.max() == expected


def test_no_one_two_and_many_solutions():
    full = boards(WIKIPEDIA[1])[0]
    contradiction, stuck, two = full.copy(), np.zeros(81, np.uint8), full.copy()
    contradiction[0] = contradiction[1]
    stuck[[0, 1, 2, 3, 4, 5, 6, 7, 17]] = [1, 2, 3, 4, 5, 6, 7, 8, 9]  # no digit is left for the ninth cell
    # Two digits that stand crosswise in two rows and two columns of only two boxes can be swapped.
    grid = full.reshape(9, 9)
    corners = next(
        np.array([a * 9 + c, a * 9 + d, b * 9 + c, b * 9 + d])
        for a, b in product(range(9), repeat=2)
        for c, d in product(range(9), repeat=2)
        if a < b and a // 3 == b // 3 and c // 3 != d // 3 and grid[a, c] == grid[b, d] and grid[a, d] == grid[b, c]
    )
    two[corners] = 0
    batch = np.stack([contradiction, stuck, full, two, np.zeros(81, np.uint8)])
    solutions, counts = solve(batch, limit=7)
    assert counts.tolist() == [0, 0, 1, 2, 7]
    assert not solutions[:2].any()
    assert valid(solutions[2:], batch[2:]).all()
    assert solve(batch)[1].tolist() == [0, 0, 1, 2, 2]
    assert solve(batch, limit=1)[1].tolist() == [0, 0, 1, 1, 1]


def test_random_grids_are_valid_different_and_repeatable():
    empty = np.zeros((50, 81), np.uint8)
    grids, counts = solve(empty, limit=1, rng=np.random.default_rng(3))
    again, _ = solve(empty, limit=1, rng=np.random.default_rng(3))
    assert (counts == 1).all()
    assert valid(grids, empty).all()
    assert len(np.unique(grids, axis=0)) == 50
    assert (grids == again).all()


def test_valid_sees_each_broken_rule():
    given_clues, full = boards(WIKIPEDIA[0]), boards(WIKIPEDIA[1])
    assert valid(full, given_clues).all()
    grid = full.reshape(9, 9)
    none = np.zeros_like(given_clues)
    for broken in (
        np.roll(grid, 1, axis=0),  # rows and columns are right, boxes are not
        np.stack([grid[0]] * 9),  # rows only
        np.stack([grid[:, 0]] * 9, axis=1),  # columns only
        np.where(np.arange(9) == 8, 0, grid),  # blanks
    ):
        assert not valid(broken.reshape(1, 81), none).any()
    relabelled = (full % 9 + 1).astype(np.uint8)
    assert valid(relabelled, none).all()
    assert not valid(relabelled, given_clues).any()  # a good grid, but other clues


# The generator


def test_generated_9x9_puzzles_have_one_solution_and_the_clues_asked_for():
    puzzles, solutions = puzzles_9x9()
    clues = (puzzles > 0).sum(1)
    assert clues.min() >= 26
    assert clues.max() <= 40
    assert len(set(clues.tolist())) >= 10
    assert valid(solutions, puzzles).all()
    for puzzle, solution in zip(puzzles, solutions, strict=True):
        assert brute_force(puzzle.tolist(), 2) == [solution.tolist()]


def test_generated_small_puzzles_have_one_solution_and_uniform_clue_counts():
    puzzles, solutions = small_puzzles(600, 0)
    fits = (puzzles[:, None] == 0) | (puzzles[:, None] == small_grids())
    assert (fits.all(2).sum(1) == 1).all()
    assert valid(solutions, puzzles).all()
    counts = np.bincount((puzzles > 0).sum(1), minlength=9)
    assert counts[:4].sum() == 0
    assert counts[4:].min() > 80  # 120 expected, standard deviation 10


def test_generator_repeats_with_its_seed_only():
    first, same, other = (small_puzzles(20, seed)[0] for seed in (5, 5, 6))
    assert (first == same).all()
    assert (first != other).any()


def test_clue_counts_out_of_reach():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"min_clues=2, max_clues=3: 5 of 5 puzzles"):
        generate(5, 2, 2, 3, rng)
    puzzles, _ = generate(40, 2, 2, 5, rng)  # 2 and 3 are impossible, 4 and 5 are not
    assert set((puzzles > 0).sum(1).tolist()) == {4, 5}


# Symmetries


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([2, 3]), st.integers(0, 2**32 - 1))
def test_symmetry_keeps_the_game(box, seed):
    puzzles, solutions = small_puzzles(30, 0) if box == 2 else puzzles_9x9()
    moved, answers = symmetry(puzzles, solutions, np.random.default_rng(seed))
    assert (moved != puzzles).any(1).mean() > 0.9
    assert valid(answers, moved).all()
    assert ((moved > 0).sum(1) == (puzzles > 0).sum(1)).all()
    assert (solve(moved)[1] == 1).all()
    assert (split_key(moved, answers) == split_key(puzzles, solutions)).all()
    assert (invariant(answers) == invariant(solutions)).all()


def test_symmetry_reaches_the_whole_orbit():
    # Essentially different 4x4 grids: two, with 96 and 192 forms.
    sizes = set()
    for grid in small_grids()[::20]:
        many = np.tile(grid, (4000, 1))
        moved, _ = symmetry(many, many, np.random.default_rng(0))
        sizes.add(len(np.unique(moved, axis=0)))
    assert sizes == {96, 192}
    # A single clue of a 9x9 board gets everywhere with every digit, equally often.
    clue = np.zeros((81 * 9 * 40, 81), np.uint8)
    clue[:, 7] = 3
    moved, _ = symmetry(clue, clue, np.random.default_rng(0))
    assert ((moved > 0).sum(1) == 1).all()
    counts = np.bincount(moved.argmax(1) * 9 + moved.max(1) - 1, minlength=729)
    chi_square = ((counts - 40) ** 2 / 40).sum()
    assert abs(chi_square - 728) < 5 * (2 * 728) ** 0.5


def test_symmetry_is_drawn_for_each_board():
    same = np.tile(boards(INKALA[1]), (200, 1))
    moved, answers = symmetry(same, same, np.random.default_rng(0))
    assert (moved == answers).all()
    assert len(np.unique(moved, axis=0)) == 200


def test_invariant_under_each_kind_of_symmetry():
    _, solutions = puzzles_9x9()
    grid = solutions.reshape(-1, 9, 9)
    bands, rows = [3, 4, 5, 0, 1, 2, 6, 7, 8], [1, 0, 2, 3, 4, 5, 6, 8, 7]
    digits = np.array([0, 4, 2, 9, 1, 3, 5, 8, 7, 6], np.uint8)
    keys = invariant(solutions)
    for moved in (
        grid[:, bands], grid[:, rows], grid[:, :, bands], grid[:, :, rows], grid.transpose(0, 2, 1), digits[grid]
    ):  # fmt: skip
        assert (moved != grid).any()
        assert (invariant(np.ascontiguousarray(moved).reshape(-1, 81)) == keys).all()


def test_invariant_tells_grids_apart():
    grids, _ = solve(np.zeros((2000, 81), np.uint8), limit=1, rng=np.random.default_rng(0))
    assert len(np.unique(invariant(grids))) > 1990
    assert len(np.unique(invariant(small_grids()))) == 2


def test_canonical_form_is_exact():
    puzzles, _ = small_puzzles(150, 2)
    puzzles = puzzles[(puzzles > 0).sum(1) == 4]
    orders = [[*a, *b] for pair in permutations(((0, 1), (2, 3))) for a, b in product(*map(permutations, pair))]
    assert len(orders) == 8

    def orbit(puzzle: np.ndarray) -> set[bytes]:
        grid = puzzle.reshape(4, 4)
        names = [np.array([0, *p], np.uint8) for p in permutations(range(1, 5))]
        return {n[g[r][:, c]].tobytes() for g in (grid, grid.T) for r in orders for c in orders for n in names}

    keys = canonical(puzzles)
    assert 1 < len(np.unique(keys)) < len(np.unique(puzzles, axis=0))  # some are equivalent, some are not
    for i in range(5):
        forms = orbit(puzzles[i])
        assert [puzzle.tobytes() in forms for puzzle in puzzles] == (keys == keys[i]).tolist()
