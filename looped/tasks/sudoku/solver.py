"""A solver for many Sudoku boards at once.

Boards are the rows of a uint8 array `(boards, cells)`. The cells are in row-major order, 0 = blank. A node of the
search holds the possible digits of each cell as bit masks. Nodes are the columns of a uint16 array `(cells, nodes)`,
and each operation works on all of them. Only operations on bits are used in the inner loop: `np.where` takes 30 times
as long.
"""

from collections.abc import Sequence
from functools import cache
from itertools import permutations
from math import isqrt

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt16

Boards = UInt8[np.ndarray, "boards cells"]
Counts = Int[np.ndarray, " boards"]
Nodes = UInt16[np.ndarray, "cells nodes"]
Block = tuple[UInt16[np.ndarray, "cells _"], Int[np.ndarray, " _"]]  # nodes, and the board of each

# Nodes that are processed together. Fewer would not hide numpy's overhead, more would not fit into the cache.
CHUNK = 4096
# Fewer nodes take almost as long as this many. Each round then guesses in all of them, even if it also deduced digits.
FEW = 128
# The search of a board is given up after this many guesses. The hardest known puzzles take fewer than 1000.
GUESSES = 200_000
# The fewest clues of a 9x9 puzzle with one solution: McGuire et al. 2012, "There is no 16-Clue Sudoku",
# arXiv:1201.0749.
FEWEST_CLUES = 17
ONE = np.uint16(1)
# A board as (band, row in band, stack, column in stack): the axes within a row, a column, and a box.
UNITS = ((2, 3), (0, 1), (1, 3))


def solve(boards: Boards, *, limit: int = 2, rng: np.random.Generator | None = None) -> tuple[Boards, Counts]:
    """A solution of each board (zeros if none was found), and the number of solutions, counted up to `limit`.

    The number is -1 if the search was given up after `GUESSES` guesses.

    With `rng` digits are tried in random order, so an empty board becomes a random full grid.
    """
    return search(bits(boards.shape[1])[boards], limit, rng)


def bits(cells: int) -> UInt16[np.ndarray, " symbols"]:
    """Possible digits of a cell, as bit masks, by its clue: 0 (any digit), 1, 2, ..."""
    side = isqrt(cells)
    return np.array([(1 << side) - 1, *(1 << np.arange(side))], np.uint16)


def search(
    masks: UInt16[np.ndarray, "boards cells"], limit: int, rng: np.random.Generator | None = None
) -> tuple[Boards, Counts]:
    """`solve` for boards given as bit masks."""
    boards = np.arange(len(masks))
    solutions = np.zeros(masks.shape, np.uint8)
    counts, guesses = np.zeros((2, len(masks)), np.int64)
    columns = np.ascontiguousarray(masks.T)
    # Depth first, one chunk at a time: the stack holds at most the boards and one chunk for each depth.
    stack: list[Block] = [(columns[:, i : i + CHUNK], boards[i : i + CHUNK]) for i in range(0, len(masks), CHUNK)]
    while stack:
        nodes, board = _pop(stack)
        wanted = (counts[board] < limit) & (guesses[board] <= GUESSES)
        if not wanted.all():
            nodes, board = np.compress(wanted, nodes, 1), board[wanted]
        after, alive = _propagate(nodes) if rng is None else _singles(nodes)
        filled = ~(nodes & (nodes - ONE)).any(0)
        guess = unsolved = alive & ~filled
        if len(board) >= FEW or rng is not None:
            guess = unsolved & (after == nodes).all(0)

        if len(done := np.flatnonzero(alive & filled)):
            # The digit is the position of the only bit.
            solutions[board[done]] = np.bitwise_count(np.take(nodes, done, 1) - ONE).T + 1
            np.add.at(counts, board[done], 1)
        # The top of the stack is processed next: busy nodes first, then the chosen digits.
        if len(split := np.flatnonzero(guess)):
            np.add.at(guesses, board[split], 1)
            chosen, others = _branch(np.take(after, split, 1), rng)
            stack += [(others, board[split]), (chosen, board[split])]
        if len(busy := np.flatnonzero(unsolved & ~guess)):
            stack.append((np.take(after, busy, 1), board[busy]))
    return solutions, np.where((guesses > GUESSES) & (counts < limit), -1, np.minimum(counts, limit))


def _pop(stack: list[Block]) -> Block:
    """The topmost blocks of the stack as one block of at most a chunk."""
    blocks = [stack.pop()]
    size = len(blocks[0][1])
    while stack and (size := size + len(stack[-1][1])) <= CHUNK:
        blocks.append(stack.pop())
    return np.concatenate([n for n, _ in blocks], axis=1), np.concatenate([b for _, b in blocks])


def _propagate(nodes: Nodes) -> tuple[Nodes, Bool[np.ndarray, " nodes"]]:
    """The nodes after one round of naked singles, hidden singles and locked candidates; False at a contradiction.

    A node that is filled is alive exactly if it is a solution.
    """
    cells, count = nodes.shape
    box = isqrt(isqrt(cells))
    grid = nodes.reshape(box, box, box, box, count)
    fixed = grid & _where_zero(grid & (grid - ONE))
    in_three = np.bitwise_or.reduce(fixed, 3)
    in_row, in_box = np.bitwise_or.reduce(in_three, 2)[:, :, None], np.bitwise_or.reduce(in_three, 1)[:, None]
    left = (in_row | in_box)[:, :, :, None] | np.bitwise_or.reduce(fixed, (0, 1))
    np.bitwise_not(left, out=left)
    left &= grid
    left |= fixed
    _rows(left)
    _rows(left.transpose(2, 3, 0, 1, 4))
    # A digit that has no place in a band is removed from the band, then from all stacks.
    alive = (np.bitwise_or.reduce(left, (0, 1)) == (1 << box**2) - 1).all((0, 1))
    left = left.reshape(cells, count)
    return left, alive & (left.min(0) > 0)


def _rows(grid: UInt16[np.ndarray, "band row stack column nodes"]) -> None:
    """Restrict the cells, in place, by the rows and boxes of each band.

    In a band a digit has its places in three boxes and three rows, no two alike: the rows of the boxes are a
    permutation. Digits that fit into no permutation are removed from a row of a box (locked candidates). A digit that
    is left to only one cell of a row or box is the cell's (hidden single).
    """
    box = len(grid)
    stacks, through = _permutations(box)
    places = np.bitwise_or.reduce(grid, 3)  # (band, row, stack, nodes)
    fits = np.bitwise_and.reduce(places[:, np.arange(box), stacks], 2)  # (band, permutation, nodes)
    kept = np.bitwise_or.reduce(fits[:, through], 3)
    single = kept & _one(grid, 3) & _one(kept, 2)[:, :, None]
    grid &= kept[:, :, :, None]
    hidden = grid & single[:, :, :, None]
    grid &= hidden | _where_zero(hidden)


@cache
def _permutations(box: int) -> tuple[np.ndarray, np.ndarray]:
    """The stack for each row in each permutation, and the permutations (row, stack, :) that lead through both."""
    stacks = np.array(list(permutations(range(box))))
    through = [[np.flatnonzero(stacks[:, row] == stack) for stack in range(box)] for row in range(box)]
    return stacks, np.array(through)


def _one(members: UInt16[np.ndarray, "*shape"], axis: int) -> UInt16[np.ndarray, "*less"]:
    """The digits that exactly one of two or three members along an axis has."""
    return np.bitwise_xor.reduce(members, axis) & ~np.bitwise_and.reduce(members, axis)


def _once_and_twice(members: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The digits that at least one member has, and those that at least two have."""
    once, twice = members[0] | members[1], members[0] & members[1]
    for member in members[2:]:
        twice |= once & member
        once |= member
    return once, twice


def _where_zero(masks: UInt16[np.ndarray, "*shape"]) -> UInt16[np.ndarray, "*shape"]:
    """All bits set where a mask is 0, and no bit elsewhere. Masks are below 2**15."""
    below = (masks - ONE).view(np.int16)
    below >>= 15  # the sign in all bits
    return below.view(np.uint16)


def _singles(nodes: Nodes) -> tuple[Nodes, Bool[np.ndarray, " nodes"]]:
    """The nodes after one round of naked and hidden singles; False if a unit has no place for some digit.

    This is slower than `_propagate`. The random grids of a seed depend on each of its steps.
    """
    cells, count = nodes.shape
    box = isqrt(isqrt(cells))
    grid = nodes.reshape(box, box, box, box, count)
    fixed = grid & _where_zero(grid & (grid - ONE))
    fixed_digits = np.zeros_like(grid)  # digits already fixed in a unit of the cell
    alone = np.zeros_like(grid)  # digits with only one place in a unit of the cell
    alive = np.ones(count, bool)
    for axes in UNITS:
        members, known = np.moveaxis(grid, axes, (0, 1)), np.moveaxis(fixed, axes, (0, 1))
        once, twice = _once_and_twice([members[i] for i in np.ndindex(box, box)])
        alive &= (once == bits(cells)[0]).all((0, 1))
        np.moveaxis(fixed_digits, axes, (0, 1))[:] |= np.bitwise_or.reduce(known, (0, 1))
        np.moveaxis(alone, axes, (0, 1))[:] |= once & ~twice
    left = grid & ~fixed_digits | fixed
    hidden = left & alone
    return (left & (hidden | _where_zero(hidden))).reshape(cells, count), alive


def _branch(nodes: Nodes, rng: np.random.Generator | None) -> tuple[Nodes, Nodes]:
    """Each node with a digit chosen for one of its most constrained open cells, and with that digit excluded there.

    If no cell is open, these are the node itself and a node with an empty cell.

    The cell is the one with the most cells of two digits in its units. With `rng` it is the first.
    """
    # A cell's units hold at most 27 pairs. In uint8 -1 is 255, so the cells of one digit come last.
    score = (np.bitwise_count(nodes) - np.uint8(2)) * np.uint8(28)
    if rng is None:
        box = isqrt(isqrt(len(nodes)))
        pairs = (score == 0).view(np.uint8).reshape(box, box, box, box, -1)
        for axes in UNITS:
            score.reshape(pairs.shape)[:] -= pairs.sum(axes, np.uint8, keepdims=True)
        score += np.uint8(27)
    cell = score.argmin(0)
    here = np.arange(nodes.shape[1])
    options = nodes[cell, here]
    if rng is None:
        digit = options & -options
    else:
        digits = bits(len(nodes))[1:]
        digit = digits[(rng.random((len(options), len(digits))) * ((options[:, None] & digits) > 0)).argmax(1)]
    chosen, others = nodes.copy(), nodes.copy()
    chosen[cell, here] = digit
    others[cell, here] &= ~digit
    return chosen, others
