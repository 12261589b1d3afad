"""Solutions of countdown problems: the canonical one by exhaustive search, and the rules for any solution."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

BLANK, SIGNS, OFFSET = 0, "+-*/=", 5  # ids: blank 0, signs 1 .. 5, the value v is v + 5
STEP = 5  # slots of a step: a op b = c
SEARCH = "+*-/"  # the operations in the order of the search
ROWS = 128  # problems searched at once: the 1152 leaves of each then stay in the processor's cache


class Step(NamedTuple):
    """`a sign b = result`."""

    a: int
    sign: str
    b: int
    result: int

    def __str__(self) -> str:
        return f"{self.a}{self.sign}{self.b}={self.result}"


def canonical_solutions(
    numbers: Int[np.ndarray, "batch count"], targets: Int[np.ndarray, " batch"]
) -> list[tuple[Step, ...] | None]:
    """The canonical solution of each row: the first one that a depth-first search finds; None if there is none.

    The search tries pairs i < j of the list of numbers in lexicographic order, and for each pair + * - /. Minus and
    divide take the larger number first, and a division must have a whole result. The result goes to the end of the
    list. All numbers (positive) must be used. Zero and large intermediate results are allowed.
    """
    leaves = _first_leaf(numbers.astype(np.int64), targets.astype(np.int64)).tolist()
    return [_steps(row, leaf) if leaf >= 0 else None for row, leaf in zip(numbers.tolist(), leaves, strict=True)]


def _first_leaf(numbers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The index of the first solution among the leaves of the search tree in depth-first order, or -1."""
    batch, count = numbers.shape
    found = np.full(batch, -1)
    if count <= 4:
        for start in range(0, batch, ROWS):
            part = slice(start, start + ROWS)
            hits = _hits(numbers[part], targets[part])
            found[part] = np.where(hits.any(1), hits.argmax(1), -1)
        return found
    # Too many leaves for the memory: search child by child, with the problems that no earlier child has solved.
    children = _children(numbers.T[..., None])
    below = _num_leaves(count - 1)
    for child in range(children.shape[-1]):
        rows = np.flatnonzero((found < 0) & (children[-1, :, child] >= 0))
        if not rows.size:
            continue
        leaf = _first_leaf(children[:, rows, child].T, targets[rows])
        found[rows] = np.where(leaf >= 0, child * below + leaf, -1)
    return found


def _hits(numbers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Whether each leaf equals the target: (batch, leaves), leaves in depth-first order."""
    nodes = numbers.T[..., None]
    while len(nodes) > 2:
        nodes = _children(nodes)
    a, b = nodes
    targets = targets[:, None]
    large, small = np.maximum(a, b), np.minimum(a, b)
    # In the order of SEARCH. Targets are positive, so products can replace divisions, except 0 / 0.
    divides = (large == targets * small) & (small > 0)
    hits = np.stack([a + b == targets, a * b == targets, large - small == targets, divides], axis=-1)
    return (hits & (small >= 0)[..., None]).reshape(len(targets), -1)


def _children(nodes: np.ndarray) -> np.ndarray:
    """All lists after one more step: (count, batch, nodes) to (count - 1, batch, nodes * pairs * 4).

    The result of an impossible division is -1. Results computed from it are -1 too.
    """
    count, batch, width = nodes.shape
    pairs = list(itertools.combinations(range(count), 2))
    children = np.empty((count - 1, batch, width, len(pairs), 4), nodes.dtype)
    for k, (i, j) in enumerate(pairs):
        a, b = nodes[i], nodes[j]
        large, small = np.maximum(a, b), np.minimum(a, b)
        quotient, rest = np.divmod(large, np.maximum(small, 1))
        quotient[(rest != 0) | (small == 0)] = -1
        others = [nodes[m] for m in range(count) if m not in (i, j)]
        children[:-1, :, :, k] = np.stack(others)[..., None]
        for operation, result in enumerate((a + b, a * b, large - small, quotient)):
            children[-1, :, :, k, operation] = np.where(small < 0, -1, result)
    return children.reshape(count - 1, batch, width * len(pairs) * 4)


def _num_leaves(count: int) -> int:
    return math.prod(len(SEARCH) * math.comb(k, 2) for k in range(2, count + 1))


def _steps(numbers: Sequence[int], leaf: int) -> tuple[Step, ...]:
    """The path to a leaf of the search tree."""
    remaining, steps = list(numbers), []
    while len(remaining) > 1:
        child, leaf = divmod(leaf, _num_leaves(len(remaining) - 1))
        pair, operation = divmod(child, len(SEARCH))
        i, j = list(itertools.combinations(range(len(remaining)), 2))[pair]
        a, b, sign = remaining[i], remaining[j], SEARCH[operation]
        if sign in "-/":
            a, b = max(a, b), min(a, b)
        result = {"+": a + b, "*": a * b, "-": a - b, "/": a // b if b else -1}[sign]
        steps.append(Step(a, sign, b, result))
        remaining = [x for k, x in enumerate(remaining) if k not in (i, j)] + [result]
    return tuple(steps)


def obeys_rules(
    numbers: Int[np.ndarray, "batch count"], targets: Int[np.ndarray, " batch"], slots: Int[np.ndarray, "batch slots"]
) -> Bool[np.ndarray, " batch"]:
    """Whether slots (token ids) are a solution, canonical or not: (batch,).

    Each number must be used exactly once, intermediate results included. Every step must be right, and the last one
    must reach the target.
    """
    rows = np.arange(len(numbers))
    pool = numbers.astype(np.int64)
    valid = np.ones(len(numbers), bool)
    for start in range(0, slots.shape[1], STEP):
        a, sign, b, equals, c = (slots[:, start + k].astype(np.int64) for k in range(STEP))
        a, b, c = a - OFFSET, b - OFFSET, c - OFFSET
        right = [a + b == c, a - b == c, a * b == c, (b > 0) & (a == b * c)]  # in the order of SIGNS
        valid &= (equals == SIGNS.index("=") + 1) & np.select([sign == k for k in range(1, 5)], right, False)
        for used in (a, b):
            at = (pool == used[:, None]).argmax(1)
            valid &= (used >= 0) & (pool[rows, at] == used)
            pool[rows, at] = -1
        pool[rows, at] = c  # replaces b
    return valid & (pool.max(1) == targets)
