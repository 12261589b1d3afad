"""Encoding of documents: in pieces, with counts, and with a check that the tokens give the text back."""

import contextlib
import functools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt

from looped.tasks.base import SPLITS, Split
from looped.tasks.continuation import Tokenizer, common_start, continuation
from looped.tasks.text.sources import SplitPart, utf8
from looped.tasks.text.tokenizer import BPETokenizer, ByteTokenizer, id_type
from looped.tasks.text.workers import in_order

COUNTS: tuple[str, ...] = ("tokens", "documents", "words", "bytes")
PIECE = 1 << 16  # characters that are encoded at a time
LONGEST = 1 << 20  # characters of a piece at most
BATCH = 1 << 18  # characters of the pieces that a process encodes at a time
# Long documents are cut between a word and white space, as tokenizers of GPT-2 and its successors end a word there too.
# A space nearby is better than other white space, because some tokenizers begin each piece with one.
CUT_AT_SPACE, CUT = re.compile(r"(?<=[^\W_]) "), re.compile(r"(?<=[^\W_])\s")
NEARBY = 1 << 12


class Pieces(NamedTuple):
    """Pieces of documents that are encoded together."""

    before: str
    """The piece before the first one, if that continues its document; else empty."""
    pieces: list[SplitPart]


class Loss(NamedTuple):
    """The difference between a text and what its tokens give back."""

    characters: int = 0
    lost: int = 0
    example: str = ""

    def __str__(self) -> str:
        return (
            f"the tokenizer does not give the text back: {self.lost / max(1, self.characters):.2%} of the characters "
            f"are lost, as {self.example}; byte_perplexity and word_perplexity will not be reported"
        )


class Encoded(NamedTuple):
    """The tokens of pieces, and counts by split."""

    ids: dict[Split, UInt[np.ndarray, " tokens"]]
    counts: dict[Split, Counter[str]]
    loss: Loss


def encode(
    parts: Iterable[SplitPart],
    tokenizer: Tokenizer,
    write: Callable[[Split, UInt[np.ndarray, " tokens"]], None],
    name: str,
    processes: int = 1,
) -> tuple[dict[str, dict[str, int]], int]:
    """Write the tokens of each split: an end of text, then each document followed by an end of text.

    They do not depend on the number of processes that encode them.

    Returns:
        The counts of each split, and the number of characters that the tokens do not give back (see `Corpus`).

    Raises:
        ValueError: a text cannot be encoded, or a process was killed.
    """
    counts, loss = {split: Counter[str]() for split in SPLITS}, Loss()
    for split in SPLITS:
        write(split, np.array([tokenizer.end], id_type(tokenizer)))
    work = functools.partial(encode_pieces, tokenizer)
    with contextlib.closing(in_order(work, _batches(pieces(parts)), processes)) as results:
        for found in results:
            for split in SPLITS:
                write(split, found.ids[split])
                counts[split].update(found.counts[split])
            characters, lost, example = found.loss
            loss = Loss(loss.characters + characters, loss.lost + lost, loss.example or example)
    if loss.lost:
        print(f"{name}: {loss}", file=sys.stderr)
    return {split: {name: count[name] for name in COUNTS} for split, count in counts.items()}, loss.lost


def encode_pieces(tokenizer: Tokenizer, batch: Pieces) -> Encoded:
    """The tokens of some pieces. They depend on nothing else."""
    ids: dict[Split, list[bytes]] = {split: [] for split in SPLITS}
    counts: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    kind = id_type(tokenizer)
    end = np.array([tokenizer.end], kind).tobytes()
    texts = [text for _, text, _ in batch.pieces]
    inside = batch.before[-1:].strip() != ""  # whether the last piece ended inside a word, perhaps
    for (split, text, last), found in zip(batch.pieces, _packed(tokenizer, texts), strict=True):
        count = counts[split]
        ids[split].append(found)
        count["words"] += len(text.split()) - (inside and text[:1].strip() != "")
        count["bytes"] += len(text) if text.isascii() else len(utf8(text))
        inside = not last and text[-1:].strip() != ""
        if last:
            ids[split].append(end)
            count["documents"] += 1
    joined: dict[Split, np.ndarray] = {split: np.frombuffer(b"".join(ids[split]), kind) for split in SPLITS}
    for split, some in joined.items():
        counts[split]["tokens"] = len(some)
    return Encoded(joined, counts, Loss() if getattr(tokenizer, "lossless", False) else _loss(tokenizer, batch))


def _packed(tokenizer: Tokenizer, texts: list[str]) -> list[bytes]:
    if isinstance(tokenizer, ByteTokenizer | BPETokenizer):
        return tokenizer.packed(texts)
    return [np.array(ids, id_type(tokenizer)).tobytes() for ids in tokenizer.encode(texts)]


def _loss(tokenizer: Tokenizer, batch: Pieces) -> Loss:
    """Compare each piece with the text that its tokens add after those of the piece before."""
    before, *encoded = tokenizer.encode([batch.before, *(text for _, text, _ in batch.pieces)])
    before, characters, lost, example = before[-1:], 0, 0, ""
    for (_, text, last), ids in zip(batch.pieces, encoded, strict=True):
        given = continuation(tokenizer, before, ids)
        before = [] if last else ids[-1:] or before
        characters += len(text)
        if given != text:
            lost += max(1, (Counter(text) - Counter(given)).total())
            if not example:
                start = max(0, common_start(text, given) - 10)
                example = f"{text[start : start + 30]!r} becomes {given[start : start + 30]!r}"
    return Loss(characters, lost, example)


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


def _batches(pieces: Iterable[SplitPart]) -> Iterator[Pieces]:
    before, batch, size = "", [], 0
    for piece in pieces:
        batch.append(piece)
        size += 100 + len(piece[1])
        if size >= BATCH:
            yield Pieces(before, batch)
            before, batch, size = "" if piece[2] else piece[1], [], 0
    if batch:
        yield Pieces(before, batch)
