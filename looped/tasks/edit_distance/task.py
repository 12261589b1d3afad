"""Weighted edit distance: inserting or deleting a letter costs 2, replacing one costs 3."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from looped.tasks.edit_distance.config import EditDistanceConfig
from looped.tasks.registry import register
from looped.tasks.strings import StringTask, Tokens, corrected_tokens

GAP, REPLACE = 2, 3


def edit_distance(pairs: Sequence[tuple[str, str]]) -> Int[np.ndarray, " pairs"]:
    """The distances of the pairs, of shape (pairs,)."""
    from rapidfuzz.distance import Levenshtein  # imported here because the list of tasks does not need it

    return np.array([Levenshtein.distance(*pair, weights=(GAP, GAP, REPLACE)) for pair in pairs], np.int64)


def published_distance(pairs: Sequence[tuple[str, str]], border: int = 1) -> Int[np.ndarray, " pairs"]:
    """The distances as the public generator computes them, of many pairs at once.

    `border` is the cost of a gap before the first letter of a string. With border=2, the cost of other gaps, the result
    is the edit distance.
    """
    if not pairs:
        return np.zeros(0, np.int64)
    lengths = np.array([(len(first), len(second)) for first, second in pairs])
    height, width = lengths.max(0).tolist()
    # Position-major arrays, so each step is one operation over contiguous pairs. Padding letters never agree.
    first = _letters([pair[0] for pair in pairs], height, "<")
    second = _letters([pair[1] for pair in pairs], width, ">")
    column = np.arange(width + 1, dtype=np.int16)[:, None]
    row = np.repeat(border * column, len(pairs), axis=1)
    distances = row[lengths[:, 1], np.arange(len(pairs))].astype(np.int64)
    for i in range(1, height + 1):
        best = np.empty_like(row)
        best[0] = border * i
        substituted = row[:-1] + np.where(second == first[i - 1], 0, REPLACE).astype(np.int16)
        np.minimum(row[1:] + GAP, substituted, out=best[1:])
        # best[j] = min over k <= j of best[k] + GAP * (j - k): the gaps along the row, all at once
        row = np.minimum.accumulate(best - GAP * column, axis=0) + GAP * column
        done = np.flatnonzero(lengths[:, 0] == i)
        distances[done] = row[lengths[done, 1], done]
    return distances


def _letters(strings: list[str], height: int, padding: str) -> np.ndarray:
    text = "".join(string.ljust(height, padding) for string in strings).encode()
    return np.ascontiguousarray(np.frombuffer(text, np.uint8).reshape(len(strings), height).T)


@register("edit_distance")
class EditDistance(StringTask):
    """The edit distance of two strings that share an alphabet.

    Example: `kitten` and `sitting` have distance 8: k and e are replaced (3 each), g is inserted (2). The input is
    `k i t t e n | s i t t i n g <sep>`, and the target at `<sep>` is class 8. The published version charges 1 instead
    of 2 for each letter left out at the very start of a string.

    Pairs: the first string has n letters from an alphabet drawn for the pair. In 40% of draws the second string has
    independent letters; otherwise it is a copy after 1 to n edits. Equal strings, and copies whose length is not in
    n-3 .. n+2, are drawn again. The shorter string comes first.
    """

    Config = EditDistanceConfig
    edits = ("delete", "replace", "insert")
    shorter_first = True

    def _tokens(self) -> Tokens:
        n = self.longest
        if self.version == "corrected":  # at most all n letters replaced and 2 inserted: 3n + 4
            return corrected_tokens(3 * n + 5)
        # pad 0, sep 1, eos 2, | 3, comma 4, a-z 5..30, k = 31 + k below 3n; 2n + 7 tokens, the last is no input
        size = 3 * n + 31
        return Tokens(bar=3, letter_a=5, first_answer=31, num_answers=3 * n, vocab_size=size, output_size=size, extra=4)

    def answers(self, pairs: Sequence[tuple[str, str]]) -> Int[np.ndarray, " pairs"]:
        return edit_distance(pairs) if self.version == "corrected" else published_distance(pairs)

    def _num_edits(self, strength: Int[np.ndarray, " pairs"], rng: np.random.Generator) -> Int[np.ndarray, " pairs"]:
        return strength
