"""Sudoku on many boards at once: check, generate, transform and distinguish grids.

Boards are the rows of a uint8 array `(boards, cells)`. The cells are in row-major order, 0 = blank. The number of cells
determines the box: 81 cells have boxes of 3x3 and digits 1 to 9, 16 cells boxes of 2x2 and digits 1 to 4.
"""

from itertools import combinations, product
from math import isqrt

import numpy as np
from jaxtyping import Bool, Int, Integer, UInt8, UInt64

from looped.tasks.sudoku.solver import UNITS, Boards, Counts, bits, search, solve

Keys = UInt64[np.ndarray, " boards"]

# `generate` tries this many rounds of at least so many full grids to reach the clue counts that it has drawn.
ROUNDS, GRIDS = 8, 500
# Boards for which `canonical` holds all arrangements at once; limits the memory.
PART = 1024


def valid(
    filled: Integer[np.ndarray, "boards cells"], given: Integer[np.ndarray, "boards cells"]
) -> Bool[np.ndarray, " boards"]:
    """Whether each filled board obeys the rules and keeps the given digits (0 = blank)."""
    boards, cells = filled.shape
    box, masks = isqrt(isqrt(cells)), bits(cells)
    grid = np.where(filled > 0, masks[filled], 0).reshape(boards, box, box, box, box)
    whole = [(np.bitwise_or.reduce(grid, (a + 1, b + 1)) == masks[0]).all((1, 2)) for a, b in UNITS]
    return np.logical_and.reduce(whole) & ((given == 0) | (given == filled)).all(1)


def generate(count: int, box: int, min_clues: int, max_clues: int, rng: np.random.Generator) -> tuple[Boards, Boards]:
    """Puzzles with exactly one solution, and their solutions.

    The number of clues of each puzzle is drawn uniformly from min_clues .. max_clues. If random digging does not reach
    it (9x9: hardly ever below 22), the puzzle gets another number of clues in the range.

    Raises:
        ValueError: some puzzles did not even reach max_clues.
    """
    puzzles = np.zeros((count, box**4), np.uint8)
    solutions = np.zeros_like(puzzles)
    wanted = rng.integers(min_clues, max_clues, count, endpoint=True)
    missing = np.arange(count)
    for attempt in range(ROUNDS):
        # Small batches take almost as long as large ones, so several grids are tried for each missing puzzle.
        tries = np.repeat(missing, -(-GRIDS // len(missing)) if attempt else 1)
        grids = solve(np.zeros((len(tries), box**4), np.uint8), limit=1, rng=rng)[0]
        dug, grids = symmetry(_dig(grids, wanted[tries], rng), grids, rng)
        ready = (dug > 0).sum(1) <= (wanted[tries] if attempt < ROUNDS - 1 else max_clues)
        puzzles[tries[ready]], solutions[tries[ready]] = dug[ready], grids[ready]
        missing = np.setdiff1d(missing, tries[ready])
        if not len(missing):
            return puzzles, solutions
    raise ValueError(
        f"min_clues={min_clues}, max_clues={max_clues}: {len(missing)} of {count} puzzles still had more than "
        f"{max_clues} clues after {ROUNDS} rounds of digging; expected a larger max_clues"
    )


def symmetry(puzzles: Boards, solutions: Boards, rng: np.random.Generator) -> tuple[Boards, Boards]:
    """Each puzzle and its solution under a random symmetry of Sudoku, drawn independently for each.

    The symmetries are the permutations of the digits, of the bands, of the stacks, of the rows in a band and of
    the columns in a stack, and transposition.
    """
    boards, cells = puzzles.shape
    side = isqrt(cells)
    rows, columns = _random_lines(boards, side, rng), _random_lines(boards, side, rng)
    source = rows[:, :, None] * side + columns[:, None, :]
    transposed = rng.random((boards, 1, 1)) < 0.5
    source = np.where(transposed, source.transpose(0, 2, 1), source).reshape(boards, cells)
    digits = np.zeros((boards, side + 1), np.uint8)  # 0 stays blank
    digits[:, 1:] = rng.random((boards, side)).argsort(1) + 1

    def move(old: Boards) -> Boards:
        return np.take_along_axis(digits, np.take_along_axis(old, source, 1).astype(np.intp), 1)

    return move(puzzles), move(solutions)


def distinct(puzzles: Boards) -> Int[np.ndarray, " rows"]:
    """The row of the first copy of each different puzzle, ascending."""
    first: dict[bytes, int] = {}
    for row, puzzle in enumerate(puzzles):
        first.setdefault(puzzle.tobytes(), row)
    return np.fromiter(first.values(), np.int64, len(first))


def split_key(puzzles: Boards, solutions: Boards) -> Keys:
    """A number that decides the split of a board. Boards that are equal up to a symmetry have equal numbers.

    Splits are therefore disjoint up to every symmetry. For 9x9 boards the number is the `invariant` of the solution, so
    two splits never share a solution, even up to a symmetry. There are only two 4x4 solutions up to symmetry, too few
    for three splits. For 4x4 boards the number is therefore the `canonical` form of the puzzle.
    """
    return canonical(puzzles) if solutions.shape[1] == 16 else invariant(solutions)


def invariant(solutions: Boards) -> Keys:
    """A hash of a full grid that is invariant under all symmetries and distinguishes most inequivalent grids.

    Two rows of a band define a permutation of the digits, from each digit to the one below it. Its cycle type is
    independent of the names of the digits, the order of the columns, and the order of the two rows. No symmetry except
    transposition therefore changes the collection of cycle types in each band, and the collection of these over the
    bands. The hash is that of the two collections for rows and for columns, as an unordered pair, because transposition
    swaps them.
    """
    boards, cells = solutions.shape
    side, box = isqrt(cells), isqrt(isqrt(cells))
    grid = solutions.reshape(boards, side, side)
    key = np.zeros(boards, np.uint64)
    for lines in (grid, grid.transpose(0, 2, 1)):
        bands = lines.reshape(boards, box, box, side)
        types = [_cycle_type(bands[:, :, a], bands[:, :, b]) for a, b in combinations(range(box), 2)]
        # A sum of hashes is a hash of an unordered collection.
        key += _mix(_mix(_mix(np.stack(types)).sum(0)).sum(1))
    return key


def canonical(puzzles: UInt8[np.ndarray, "boards 16"]) -> Keys:
    """A number for each 4x4 puzzle. Two puzzles have equal numbers exactly if a symmetry turns one into the other.

    It is the smallest number among the 128 arrangements of the puzzle. Each arrangement has its digits renamed in the
    order of their first appearance, and is read as a number in base 5.
    """
    orders = [(2 * a + i, 2 * a + 1 - i, 2 - 2 * a + j, 3 - 2 * a - j) for a, i, j in product((0, 1), repeat=3)]
    cells = np.arange(16).reshape(4, 4)
    sources = np.array(
        [
            c[rows][:, columns].ravel()
            for c in (cells, cells.T)
            for rows, columns in product(map(list, orders), repeat=2)
        ]
    )
    powers = 5 ** np.arange(16)
    keys = np.zeros(len(puzzles), np.uint64)
    for start in range(0, len(puzzles), PART):
        part = puzzles[start : start + PART, sources].astype(np.intp)  # (boards, 128, 16)
        first = np.stack([np.where(part == d, np.arange(16), 16).min(-1) for d in range(1, 5)], axis=-1)
        names = np.zeros((*part.shape[:2], 5), np.intp)
        names[..., 1:] = first.argsort(-1, kind="stable").argsort(-1) + 1
        keys[start : start + PART] = (np.take_along_axis(names, part, -1) @ powers).min(1)
    return keys


def _dig(grids: Boards, clues: Counts, rng: np.random.Generator) -> Boards:
    """Full grids with cells blanked in random order, down to `clues`. The solution always stays unique."""
    possible = bits(grids.shape[1])
    puzzles = grids.copy()
    left = np.full(len(grids), grids.shape[1])
    for cell in rng.permuted(np.tile(np.arange(grids.shape[1]), (len(grids), 1)), axis=1).T:
        tried = np.flatnonzero(left > clues)
        cell, here = cell[tried], np.arange(len(tried))
        # A cell may be blanked if no other digit fits there. For a naked or hidden single of the other clues, the
        # first sweeps of the search find this.
        masks = possible[puzzles[tried]]
        masks[here, cell] = possible[0] & ~masks[here, cell]
        free = search(masks, limit=1)[1] == 0
        puzzles[tried[free], cell[free]] = 0
        left[tried[free]] -= 1
    return puzzles


def _random_lines(boards: int, side: int, rng: np.random.Generator) -> Int[np.ndarray, "boards side"]:
    """Orders of the rows (or columns) of a board that keep bands (or stacks) together."""
    box = isqrt(side)
    bands = rng.random((boards, box, 1)).argsort(1)
    return (bands * box + rng.random((boards, box, box)).argsort(2)).reshape(boards, side)


def _cycle_type(
    above: UInt8[np.ndarray, "*lines side"], below: UInt8[np.ndarray, "*lines side"]
) -> UInt64[np.ndarray, "*lines"]:
    """The cycle type of the permutation from one line to another, as a number.

    The numbers of fixed points of its powers 1 .. side determine the cycle type.
    """
    step = np.take_along_axis(below, above.argsort(-1), -1).astype(np.intp) - 1
    power = step
    code = np.zeros(step.shape[:-1], np.uint64)
    for _ in range(step.shape[-1]):
        code = code * np.uint64(10) + (power == np.arange(step.shape[-1])).sum(-1, dtype=np.uint64)
        power = np.take_along_axis(step, power, -1)
    return code


def _mix(x: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """The finaliser of SplitMix64, which spreads each number over all 64 bits."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
