"""Encoding of many texts word by word, for byte-level tokenizers that cut text by GPT-2's pattern.

The pattern ends a token wherever white space begins. A word with the white space before it therefore has the same
tokens everywhere, and is encoded only once. Most words of a text are among those that came before.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain, filterfalse

import numpy as np
from jaxtyping import Int

WORD = re.compile(r"\s*\S+|\s+")
NO_SPACE = "\x1c\x1d\x1e\x1f"  # white space in Python, but not in the pattern
MOST, LONGEST = 1 << 17, 32  # words that are remembered, in about 25 MB, and their characters at most
TOGETHER = 1 << 8  # new words that are encoded as one text


class Words:
    """The tokens of the words of texts.

    Args:
        encode: the tokens of each text.
        lengths: the number of bytes of each token.
        kind: the type of the arrays of tokens.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], list[list[int]]],
        lengths: Int[np.ndarray, " tokens"],
        kind: type[np.unsignedinteger],
    ) -> None:
        self.encode, self.lengths, self.kind = encode, lengths, kind
        self.known: dict[str, bytes] = {}

    def packed(self, texts: Sequence[str]) -> list[bytes]:
        """The tokens of each text, as the bytes of an array.

        Raises:
            ValueError: as `encode`.
        """
        if any(character in text for text in texts for character in NO_SPACE):
            return self._each(texts)
        words = [WORD.findall(text) for text in texts]
        if len(self.known) > MOST:  # only the words of these texts are kept
            self.known = {word: self.known[word] for word in self.known.keys() & set().union(*words)}
        new = set(filterfalse(self.known.__contains__, chain.from_iterable(words)))
        inner = [word for word in new if word[0].isspace() and not word[-1].isspace()]
        for number in range(0, len(inner), TOGETHER):
            some = inner[number : number + TOGETHER]
            self.known.update(zip(some, self._together(some), strict=True))
        others = list(new.difference(inner))
        self.known.update(zip(others, self._each(others), strict=True))
        found = [b"".join(map(self.known.__getitem__, some)) for some in words]
        for word in new:
            if len(word) > LONGEST:
                del self.known[word]
        return found

    def _each(self, texts: Sequence[str]) -> list[bytes]:
        return [np.array(ids, self.kind).tobytes() for ids in self.encode(texts)]

    def _together(self, words: Sequence[str]) -> list[bytes]:
        """The tokens of each word. The bytes of the tokens say where one text of them all is to be cut."""
        (ids,) = self.encode(["".join(words)])
        array = np.array(ids, self.kind)
        ends = np.cumsum(list(map(len, map(str.encode, words))))
        places = (1 + np.searchsorted(np.cumsum(self.lengths[array]), ends)) * array.itemsize
        packed = array.tobytes()
        return [packed[i:j] for i, j in zip([0, *places.tolist()], places.tolist(), strict=False)]
