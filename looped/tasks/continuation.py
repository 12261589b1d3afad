"""Texts that a model continues: their tokens, and the text that new tokens add."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


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


def as_tokenizer(given: Any, end_token: str) -> Tokenizer:
    """Convert a tokenizer object to a `Tokenizer`.

    Args:
        given: a fast tokenizer of transformers, whose `eos_token` is the end of text; a `tokenizers.Tokenizer`, whose
            end of text is `end_token`; or an object with the methods and attributes of `Tokenizer`.

    Raises:
        ValueError: any other object, or a tokenizer without an end of text.
    """
    from looped.tasks.text.tokenizer import BPETokenizer

    if (inner := getattr(given, "backend_tokenizer", None)) is not None:
        if given.eos_token is None:
            raise ValueError("tokenizer: has no eos_token; expected one, the end of text")
        return BPETokenizer(inner.to_str(), given.eos_token, "tokenizer")
    if hasattr(given, "to_str"):
        return BPETokenizer(given.to_str(), end_token, "tokenizer")
    if missing := [name for name in ("encode", "decode", "vocab_size", "end") if not hasattr(given, name)]:
        raise ValueError(
            f"tokenizer: a {type(given).__name__} without {', '.join(missing)}; expected a fast tokenizer of "
            "transformers, a tokenizers.Tokenizer, or what looped.tasks.base.Tokenizer describes"
        )
    return given


def continuation(tokenizer: Tokenizer, before: Sequence[int], new: Sequence[int]) -> str:
    """The text that the ids `new` add after the ids `before`. Some tokenizers decode an id differently at the start."""
    start, whole = tokenizer.decode(before), tokenizer.decode([*before, *new])
    return whole[common_start(start, whole) :]


def common_start(one: str, other: str) -> int:
    """The number of characters that two texts have in common at their start."""
    if other.startswith(one):
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))
