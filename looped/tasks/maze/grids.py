"""Mazes as arrays of cells: breadth-first search, shortest paths and the symmetries of the square."""

import itertools

import numpy as np
from jaxtyping import Bool, Int, Integer

SYMBOLS = "_#.SGo"
"""The printed symbol of each cell; files may have a space in place of a dot. The first is padding and never occurs."""
WALL, OPEN, START, GOAL, PATH = range(1, 6)

Grids = Integer[np.ndarray, "mazes side side"]


def distances(passable: Bool[np.ndarray, "mazes side side"], start: Bool[np.ndarray, "mazes side side"]) -> Grids:
    """Steps from the start to each passable cell, by breadth-first search; -1 where no way leads."""
    steps = np.where(start, 0, -1)
    new, unseen = start, passable & ~start
    for n in itertools.count(1):
        near = np.zeros_like(new)
        near[:, 1:] |= new[:, :-1]
        near[:, :-1] |= new[:, 1:]
        near[:, :, 1:] |= new[:, :, :-1]
        near[:, :, :-1] |= new[:, :, 1:]
        new = near & unseen
        if not new.any():
            return steps
        steps[new] = n
        unseen = unseen & ~new
    raise AssertionError


def path_lengths(grids: Grids) -> Int[np.ndarray, " mazes"]:
    """Steps of the shortest path from start to goal; -1 if there is no way."""
    return distances(grids != WALL, grids == START).max((1, 2), where=grids == GOAL, initial=-1)


def with_path(grids: Grids) -> Grids:
    """The mazes with one shortest path marked. From the goal back, it goes up, left, right or down, in this order."""
    steps = np.pad(distances(grids != WALL, grids == START), ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    marked = grids.copy()
    for maze, row, column in np.argwhere(grids == GOAL):
        while (left := steps[maze, row + 1, column + 1]) > 1:
            around = ((row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column))
            row, column = next((r, c) for r, c in around if steps[maze, r + 1, c + 1] == left - 1)
            marked[maze, row, column] = PATH
    return marked


def is_shortest(answers: Grids, grids: Grids) -> Bool[np.ndarray, " mazes"]:
    """Whether each answer is its maze with exactly the cells of one shortest path marked, any of them."""
    path = answers == PATH
    kept = ((answers == grids) | (path & (grids == OPEN))).all((1, 2))
    lengths = path_lengths(grids)
    few = path.sum((1, 2)) == lengths - 1
    return kept & few & (path_lengths(np.where(path | (grids == START) | (grids == GOAL), grids, WALL)) == lengths)


def symmetric(grids: Grids, which: int) -> Grids:
    """The mazes under one of the 8 symmetries of the square: transposition (4 and more), then quarter turns."""
    return np.rot90(grids.swapaxes(1, 2) if which >= 4 else grids, which % 4, (1, 2))
