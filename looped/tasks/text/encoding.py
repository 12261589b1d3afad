"""Encoding of documents: in pieces, with counts, and with a check that the tokens give the text back."""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from looped.tasks.base import SPLITS, Split
from looped.tasks.continuation import Tokenizer, common_start, continuation
from looped.tasks.text.sources import SplitPart, utf8

COUNTS: tuple[str, ...] = ("tokens", "documents", "words", "bytes")
PIECE = 1 << 16  # characters that are encoded at a time
LONGEST = 1 << 20  # characters of a piece at most
BATCH = 1 << 20  # characters of the pieces that the processor's cores encode together
# Long documents are cut between a word and white space, as tokenizers of GPT-2 and its successors end a word there too.
# A space nearby is better than other white space, because some tokenizers begin each piece with one.
CUT_AT_SPACE, CUT = re.compile(r"(?<=[^\W_]) "), re.compile(r"(?<=[^\W_])\s")
NEARBY = 1 << 12


def id_type(tokenizer: Tokenizer) -> type[np.unsignedinteger]:
    return np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32


def encode(
    parts: Iterable[SplitPart], tokenizer: Tokenizer, write: Callable[[Split, np.ndarray], None], name: str
) -> tuple[dict[str, dict[str, int]], int]:
    """Write the tokens of each split: an end of text, then each document followed by an end of text.

    Returns:
        The counts of each split, and the number of characters that the tokens do not give back (see `Corpus`).

    Raises:
        ValueError: a text cannot be encoded.
    """
    counts = {split: dict.fromkeys(COUNTS, 0) for split in SPLITS}
    loss = None if getattr(tokenizer, "lossless", False) else Loss(tokenizer)
    for split in SPLITS:
        write(split, np.array([tokenizer.end], id_type(tokenizer)))
    inside = False  # whether the last piece ends inside a word, perhaps
    for batch in _batches(pieces(parts)):
        ids: dict[Split, list[int]] = {split: [] for split in SPLITS}
        encoded = tokenizer.encode([text for _, text, _ in batch])
        for (split, text, last), found in zip(batch, encoded, strict=True):
            count = counts[split]
            ids[split] += found
            count["words"] += len(text.split()) - (inside and text[:1].strip() != "")
            count["bytes"] += len(text) if text.isascii() else len(utf8(text))
            inside = not last and text[-1:].strip() != ""
            if last:
                ids[split].append(tokenizer.end)
                count["documents"] += 1
            if loss:
                loss.add(text, found, last)
        for split, some in ids.items():
            write(split, np.fromiter(some, id_type(tokenizer), len(some)))
            counts[split]["tokens"] += len(some)
    if loss and loss.lost:
        print(f"{name}: {loss}", file=sys.stderr)
    return counts, loss.lost if loss else 0


class Loss:
    """The difference between texts and what their tokens give back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.before: list[int] = []
        self.characters = self.lost = 0
        self.example = ""

    def add(self, text: str, ids: list[int], last: bool) -> None:
        """Compare a piece of a document with the text that its tokens add after those of the piece before."""
        given = continuation(self.tokenizer, self.before, ids)
        self.before = [] if last else ids[-1:] or self.before
        self.characters += len(text)
        if given != text:
            self.lost += max(1, (Counter(text) - Counter(given)).total())
            if not self.example:
                start = max(0, common_start(text, given) - 10)
                self.example = f"{text[start : start + 30]!r} becomes {given[start : start + 30]!r}"

    def __str__(self) -> str:
        return (
            f"the tokenizer does not give the text back: {self.lost / max(1, self.characters):.2%} of the characters "
            f"are lost, as {self.example}; byte_perplexity and word_perplexity will not be reported"
        )


def pieces(parts: Iterable[SplitPart]) -> Iterator[SplitPart]:
    """The same documents in pieces of about PIECE characters; where they are cut depends on the document only."""
    text = ""
    for split, part, last in parts:
        text += part
        start = 0
        while len(text) - start > (PIECE if last else LONGEST) and (cut := _cut(text, start)):
            yield split, text[start:cut], False
            start = cut
        text = text[start:]
        if last:
            yield split, text, True
            text = ""


def _cut(text: str, start: int) -> int:
    """The end of the piece that begins at `start`; 0 if it is the rest of the text."""
    earliest, latest = start + PIECE, start + LONGEST
    if found := CUT_AT_SPACE.search(text, earliest, earliest + NEARBY) or CUT.search(text, earliest, latest):
        return found.start()
    if len(text) <= latest:
        return 0
    white = max(text.rfind(" ", earliest, latest), text.rfind("\n", earliest, latest))
    return white if white > 0 else latest


def _batches(pieces: Iterable[SplitPart]) -> Iterator[list[SplitPart]]:
    batch: list[SplitPart] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += 100 + len(piece[1])
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
