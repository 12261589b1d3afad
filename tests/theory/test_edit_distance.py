"""Edit distance and LCS as weights against rapidfuzz, in whole numbers and in the library's model."""

import numpy as np
import pytest
import torch
from rapidfuzz.distance import LCSseq, Levenshtein

from looped.tasks import TASKS
from looped.theory.circuit import RunnableLayer
from looped.theory.edit_distance import TOKENS, edit_distance, largest_number, lcs, loops_for
from looped.theory.weights import write

Pair = tuple[str, str]


def random_pairs(seed: int, count: int, longest: int) -> list[Pair]:
    """Pairs of any lengths, a third of them near-copies."""
    rng, pairs = np.random.default_rng(seed), []
    for _ in range(count):
        x, y = ("".join(rng.choice([*"abcxyz"], rng.integers(1, longest + 1))) for _ in range(2))
        at = int(rng.integers(len(x)))
        pairs.append((x, x[:at] + y[:1] + x[at + 1 :] if rng.random() < 1 / 3 else y))
    return pairs


def tokens(pairs: list[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """`x | y <sep>` with padding, as token numbers; and the positions of <sep>."""
    texts = [[*x, "|", *y, "<sep>"] for x, y in pairs]
    ends = np.array([len(text) - 1 for text in texts])
    rows = [text + ["pad"] * (ends.max() + 1 - len(text)) for text in texts]
    return np.array([[TOKENS.index(name) for name in row] for row in rows]), ends


def wrong(program, pairs: list[Pair], expected: list[int], extra: int = 0) -> int:
    """The number of pairs for which the program in whole numbers, with the loops of each pair, gives another answer."""
    count = 0
    for pair, answer in zip(pairs, expected, strict=True):
        ids, (end,) = tokens([pair])
        out = program.run(ids, loops=loops_for(len(pair[0] + pair[1])) + extra, dtype="int64")
        count += int(out[0, end].argmax()) != answer
    return count


@pytest.mark.parametrize(("gap", "replace"), [(1, 1), (2, 3), (1, 2), (3, 4), (2, 0), (1, 0)])
def test_whole_numbers_of_any_costs(gap, replace):
    pairs = random_pairs(gap * 10 + replace, 25, 11)
    expected = [Levenshtein.distance(*pair, weights=(gap, gap, replace)) for pair in pairs]
    program = edit_distance(3 * 40, 1, gap=gap, replace=replace)
    assert not wrong(program, pairs, expected)
    assert not wrong(program, pairs, expected, extra=17)


def test_whole_numbers_of_lcs():
    pairs = random_pairs(0, 30, 12)
    expected = [LCSseq.similarity(*pair) for pair in pairs]
    assert not wrong(lcs(20, 1), pairs, expected)
    assert not wrong(lcs(20, 1), pairs, expected, extra=9)
    assert wrong(lcs(20, 1), pairs, expected, extra=-1)
