"""Exact expectations of traces of W = X'X, for X (n, d) of independent standard normal numbers.

Wick's theorem: the expectation of a product of normal numbers is the sum over all pairings of its factors, of the
products of the pairs' covariances. Both functions pair the first X with each other X in turn, which leaves traces with
one W less, and compute equal products of traces once. That is the sum over all pairings, of which there are (2j - 1)!!
for j factors W, in far fewer steps.
"""

import functools
from collections import Counter
from collections.abc import Iterable

Letter = tuple[int, int]
"""(p, q) stands for A^p A'^q, where A is a normal matrix: A A' = A'A."""
Word = tuple[Letter, ...]
"""tr (l1 W l2 W ... lk W) for letters l1, ..., lk."""


@functools.cache
def moment(n: int, d: int, powers: tuple[int, ...]) -> int:
    """E prod_k tr W^k over the powers k, which stand in descending order; a sum of n^i d^j over pairings."""
    if not powers:
        return 1
    k, *rest = powers
    if k == 0:
        return d * moment(n, d, tuple(rest))
    total = (n + k - 1) * product(n, d, k - 1, *rest)
    total += sum(product(n, d, i, k - 1 - i, *rest) for i in range(1, k))
    for place, other in enumerate(rest):
        if other:
            total += 2 * other * product(n, d, k - 1 + other, *rest[:place], *rest[place + 1 :])
    return total


def product(n: int, d: int, *powers: int) -> int:
    """`moment` of powers in any order."""
    return moment(n, d, tuple(sorted(powers, reverse=True)))


@functools.cache
def expectation(n: int, words: tuple[Word, ...]) -> Counter[tuple[Letter, ...]]:
    """E of the product of words: {letters: whole number}, a sum of products of tr A^p A'^q.

    The words are `canonical` and in ascending order.
    """
    if not words:
        return Counter({(): 1})
    (first, *word), rest = words[0], words[1:]
    found: Counter[tuple[Letter, ...]] = Counter()

    def leaves(*new: Word, others: tuple[Word, ...] = rest, closed: tuple[Letter, ...] = (), factor: int = 1) -> None:
        """Add factor * tr(closed) * E(new words, others)."""
        for letters, value in expectation(n, tuple(sorted((*map(canonical, new), *others)))).items():
            found[tuple(sorted((*letters, *closed)))] += factor * value

    def reversed_word(part: Iterable[Letter]) -> list[Letter]:
        return [(q, p) for p, q in reversed(list(part))]

    # tr (l1 X' X l2 X' X ... lk X' X): the first X' is paired with the X beside it,
    if word:
        leaves((_times(first, word[0]), *word[1:]), factor=n)
    else:
        leaves(closed=(_symmetric(first),), factor=n)
    for m, letter in enumerate(word):
        # with a later X', which turns the part between them round, or with the X behind it, which cuts the word in two,
        leaves((_times(first, *reversed_word([letter])), *reversed_word(word[:m]), *word[m + 1 :]))
        if m + 1 < len(word):
            leaves(tuple(word[: m + 1]), (_times(first, word[m + 1]), *word[m + 2 :]))
        else:
            leaves(tuple(word), closed=(_symmetric(first),))
    for place, other in enumerate(rest):
        # or with X' or X of another word, which joins the two.
        others = rest[:place] + rest[place + 1 :]
        for m in range(len(other)):
            start, *more = other[m:] + other[:m]
            leaves((_times(start, *reversed_word([first])), *reversed_word(word), *more), others=others)
            begin, *end = (*more, start)
            leaves((_times(first, begin), *end, *word), others=others)
    return found


def canonical(word: Word) -> Word:
    """The smallest of the words with the same trace: the rotations of the word and of its transpose."""
    turned = tuple((q, p) for p, q in reversed(word))
    return min(w[i:] + w[:i] for w in (word, turned) for i in range(len(word)))


def _times(*letters: Letter) -> Letter:
    return sum(p for p, _ in letters), sum(q for _, q in letters)


def _symmetric(letter: Letter) -> Letter:
    """tr A^p A'^q = tr A^q A'^p."""
    p, q = letter
    return max(p, q), min(p, q)
