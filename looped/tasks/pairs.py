"""Random pairs of strings, as in the public code for edit distance and longest common subsequence."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

INDEPENDENT = 0.4  # share of draws with independent strings instead of an edited copy

Edit = Literal["delete", "replace", "insert"]


class StringPairs:
    """The drawing of pairs for tasks whose settings have min_letters, max_letters and letter_pool.

    In a pair of length n, the string that is drawn first has n letters and the other n-3 .. n+2.
    """

    config: Any
    edits: tuple[Edit, ...]
    """Possible edits of a letter in an edited copy, all equally likely."""
    shorter_first: bool
    """Whether pairs are ordered by length. Otherwise their order is random."""

    @abstractmethod
    def _num_edits(self, strength: Int[np.ndarray, " pairs"], rng: np.random.Generator) -> Int[np.ndarray, " pairs"]:
        """Number of edits for copies of the given strengths (1 .. n)."""

    def draw_pairs(self, n: int, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """`count` pairs of different strings, independent or edited copies, of any split."""
        strength = rng.integers(1, n + 1, count)
        pairs: list[tuple[str, str]] = [("", "")] * count
        pending = np.arange(count)
        while pending.size:  # a rejected pair is drawn again with its old strength
            drawn = self._candidates(n, strength[pending], rng)
            accepted = np.array([a != b and n - 3 <= len(b) < n + 3 for a, b in drawn])
            for i, pair, ok in zip(pending, drawn, accepted, strict=True):
                if ok:
                    pairs[i] = pair
            pending = pending[~accepted]
        if self.shorter_first:
            return [by_length(*pair) for pair in pairs]
        return [(b, a) if swap else (a, b) for (a, b), swap in zip(pairs, rng.random(count) < 0.5, strict=True)]

    def _candidates(
        self, n: int, strength: Int[np.ndarray, " pairs"], rng: np.random.Generator
    ) -> list[tuple[str, str]]:
        config, count = self.config, len(strength)
        alphabet = rng.permuted(np.tile(np.arange(config.letter_pool), (count, 1)), axis=1)
        num_letters = rng.integers(config.min_letters, config.max_letters + 1, (count, 1))

        def letters(width: int) -> list[str]:
            return as_text(np.take_along_axis(alphabet, rng.integers(num_letters, size=(count, width)), axis=1))

        first, second = letters(n), letters(n + 2)
        lengths = rng.integers(n - 3, n + 3, count).tolist()
        independent = (rng.random(count) < INDEPENDENT).tolist()
        num_edits = self._num_edits(strength, rng)
        most = int(num_edits.max())
        kinds = rng.integers(len(self.edits), size=(count, most)).tolist()
        places, new = rng.random((count, most)).tolist(), letters(most)
        # The edits are applied in Python, because on lists they are much cheaper than gathers over the whole batch.
        return [
            (first[i], second[i][: lengths[i]])
            if independent[i]
            else (first[i], self._edited(first[i], zip(kinds[i][:k], places[i], new[i], strict=False)))
            for i, k in enumerate(num_edits.tolist())
        ]

    def _edited(self, text: str, edits: Iterable[tuple[int, float, str]]) -> str:
        out = list(text)
        for kind, place, letter in edits:
            edit = self.edits[kind]
            if edit == "insert":
                out.insert(int(place * (len(out) + 1)), letter)
            elif edit == "replace":
                out[int(place * len(out))] = letter
            elif len(out) > 2:
                del out[int(place * len(out))]
        return "".join(out)


def as_text(letters: Int[np.ndarray, "rows width"]) -> list[str]:
    """Each row of letters (0 is a) as a string."""
    width = letters.shape[1]
    text = (letters + ord("a")).astype(np.uint8).tobytes().decode()
    return [text[i * width : (i + 1) * width] for i in range(len(letters))]


def by_length(first: str, second: str) -> tuple[str, str]:
    return (second, first) if len(first) > len(second) else (first, second)
