"""Texts that a model continues: their tokens, and the text that new tokens add."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """Conversion of texts to token ids and back. No text contains the id `end`."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, which are 0 to vocab_size - 1."""
        ...

    @property
    def end(self) -> int:
        """The id of the end of text."""
        ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some token ids."""
        ...


def continuation(tokenizer: Tokenizer, before: Sequence[int], new: Sequence[int]) -> str:
    """The text that the ids `new` add after the ids `before`. Some tokenizers decode an id differently at the start."""
    start, whole = tokenizer.decode(before), tokenizer.decode([*before, *new])
    return whole[common_start(start, whole) :]


def common_start(one: str, other: str) -> int:
    """The number of characters that two texts have in common at their start."""
    if other.startswith(one):
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))
