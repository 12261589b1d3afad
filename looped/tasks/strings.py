"""The base of edit distance and longest common subsequence: drawing, encoding and reading pairs of strings."""

from __future__ import annotations

import itertools
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shown  # cuts what is long
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from looped.lazy import torch
from looped.tasks.base import BUCKETS, Batch, Split, Task, TaskSpec, split_of
from looped.tasks.pairs import StringPairs, by_length
from looped.tasks.registry import TaskConfig
from looped.tasks.string_config import StringConfig

PAD, SEPARATOR, END = 0, 1, 2  # END is <eos>, in the published versions only
CHUNK = 4096  # pairs processed at once; limits the memory
FRUITLESS = 200  # rounds without a pair of the requested split before drawing gives up
SHOWN = 12  # answers in a visualisation


class Pair(NamedTuple):
    """Two strings of the letters a-z, and their distance or common length (None if unknown)."""

    first: str
    second: str
    answer: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """The ids of a version. The class `first_answer` + k means the answer k."""

    bar: int
    letter_a: int
    first_answer: int
    num_answers: int
    vocab_size: int
    output_size: int
    extra: int
    """Number of positions besides the letters, of which there are at most 2n + 2."""


def corrected_tokens(num_answers: int) -> Tokens:
    """pad 0, <sep> 1, | 2, a-z 3..28. Answers are separate classes and never inputs."""
    return Tokens(
        bar=2, letter_a=3, first_answer=0, num_answers=num_answers, vocab_size=29, output_size=num_answers, extra=2
    )


class StringTask(StringPairs, Task):
    """Predict a number that two strings determine. Subclasses define the number and the distribution of pairs.

    In a pair of length n, the string that is drawn first has n letters and the other n-3 .. n+2. The groups are the
    lengths. Sequences are padded on the right to the width of the shortest configured length that holds the batch.
    """

    metric = "accuracy"

    @classmethod
    def example_config(cls, folder: Path) -> TaskConfig:
        return cls.Config(length=12)  # pyright: ignore[reportCallIssue]: its base is StringConfig

    def __init__(self, config: StringConfig) -> None:
        super().__init__(config)
        lengths = sorted({config.length, *config.eval_lengths})
        self.length, self.longest = config.length, lengths[-1]
        self.version = config.version
        self.groups = tuple(map(str, lengths))
        self.tokens = self._tokens()
        self.widths = [2 * n + 2 + self.tokens.extra for n in lengths]
        self.spec = TaskSpec(
            vocab_size=self.tokens.vocab_size, output_size=self.tokens.output_size, max_seq_len=self.widths[-1]
        )

    @abstractmethod
    def _tokens(self) -> Tokens:
        """The ids for strings of length `self.longest`."""

    @abstractmethod
    def answers(self, pairs: Sequence[tuple[str, str]]) -> Int[np.ndarray, " pairs"]:
        """The right answers, of shape (pairs,)."""

    # Drawing

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[Pair]:
        """Draw `size` independent pairs with their answers.

        Raises:
            ValueError: the group is unknown, or the configuration has no pair of this split.
        """
        if group is not None and group not in self.groups:
            raise ValueError(f"group={group!r}: expected one of {', '.join(self.groups)}")
        n = self.length if group is None else int(group)
        share = 1 - 2 / BUCKETS if split == "train" else 1 / BUCKETS
        found: list[Pair] = []
        fruitless = 0
        while len(found) < size:
            count = min(int(1.1 * (size - len(found)) / share) + 8, CHUNK)
            pairs = [pair for pair in self.draw_pairs(n, count, rng) if split_of(_key(*pair)) == split]
            labelled = self._labelled(pairs)
            fruitless = 0 if labelled else fruitless + 1
            if fruitless == FRUITLESS:
                raise ValueError(
                    f"length={n}, min_letters={self.config.min_letters}, max_letters={self.config.max_letters}: found "
                    f"no pair of strings for the {split} split; expected longer strings or more letters"
                )
            found += labelled
        return found[:size]

    def _labelled(self, pairs: Sequence[tuple[str, str]]) -> list[Pair]:
        # The published vocabulary is too small for the largest distances. Such pairs are drawn again.
        answers = self.answers(pairs).tolist()
        return [Pair(*pair, k) for pair, k in zip(pairs, answers, strict=True) if k < self.tokens.num_answers]

    # Encoding

    def encode(self, problems: Sequence[Pair]) -> Batch:
        """`first | second <sep>`, with the answer as the target of <sep>.

        The published versions append the answer and <eos> to the input. The target of the answer is then <eos>, and
        both positions count in the loss.
        """
        published, tokens = self.version == "published", self.tokens
        texts = [f"{pair.first}|{pair.second}>" for pair in problems]
        needed = max(map(len, texts)) + 2 * published
        width = next((w for w in self.widths if w >= needed), None)
        if width is None:
            raise ValueError(f"a pair needs {needed} positions; this task has {self.widths[-1]}")
        ids = np.full(128, PAD)
        ids[ord(">")] = SEPARATOR
        ids[ord("|")] = tokens.bar
        ids[ord("a") : ord("z") + 1] = tokens.letter_a + np.arange(26)
        codes = np.frombuffer("".join(text.ljust(width, "\0") for text in texts).encode(), np.uint8)
        inputs = ids[codes].reshape(len(texts), width)
        targets, mask = np.zeros_like(inputs), np.zeros(inputs.shape, bool)
        for row, (text, pair) in enumerate(zip(texts, problems, strict=True)):
            at = len(text) - 1
            mask[row, at] = True
            if pair.answer is None:
                continue
            targets[row, at] = tokens.first_answer + pair.answer
            if published:
                inputs[row, at + 1 : at + 3] = tokens.first_answer + pair.answer, END
                targets[row, at + 1], mask[row, at + 1] = END, True
        return Batch(*map(torch.from_numpy, (inputs, targets, mask, inputs != PAD)))

    def score(
        self, batch: Batch, logits: Float[torch.Tensor, "batch seq output"]
    ) -> dict[str, Float[torch.Tensor, " batch"]]:
        """accuracy: the answer is exact. Published versions also have published_accuracy: <eos> must be exact too."""
        right = logits.argmax(-1) == batch.targets
        at = batch.mask.int().argmax(1, keepdim=True)  # the first supervised position
        scores = {"accuracy": right.gather(1, at).squeeze(1).float()}
        if self.version == "published":
            scores["published_accuracy"] = (right | ~batch.mask).all(1).float()
        return scores

    def _probabilities(
        self, pair: Pair, logits: Float[torch.Tensor, "*loops seq output"]
    ) -> Float[torch.Tensor, "*loops answers"]:
        at = int(self.encode([pair]).mask[0].int().argmax())
        start = self.tokens.first_answer
        return logits[..., at, start : start + self.tokens.num_answers].double().softmax(-1).cpu()

    def answer(self, problem: Pair, logits: Float[torch.Tensor, "seq output"]) -> dict[str, Any]:
        """The most probable number and its probability among all numbers."""
        confidence, answer = self._probabilities(problem, logits).max(-1)
        return {"answer": int(answer), "valid": None, "confidence": float(confidence)}

    def to_text(self, problem: Pair) -> dict[str, str]:
        expected = "" if problem.answer is None else str(problem.answer)
        return {"input": f"{problem.first} {problem.second}", "expected": expected}

    def describe(self, problem: Pair, logits: Float[torch.Tensor, "seq output"] | None = None) -> str:
        lines = [
            f"{self.title.lower()}: {problem.first} | {problem.second}",
            f"answer: {'unknown' if problem.answer is None else problem.answer}",
        ]
        if logits is not None:
            answer = self.answer(problem, logits)
            lines.append(f"prediction: {answer['answer']} ({answer['confidence']:.0%})")
        return "\n".join(lines)

    def visualise(self, problem: Pair, logits: Float[torch.Tensor, "loops seq output"]) -> dict[str, Any]:
        probabilities = self._probabilities(problem, logits)
        shown = probabilities.amax(0).topk(min(SHOWN, probabilities.shape[1])).indices.sort().values.tolist()
        return {
            "kind": "distribution",
            "title": self.title.lower(),
            "input": f"{problem.first} | {problem.second}",
            "answer": "" if problem.answer is None else str(problem.answer),
            "loops": [
                {"loop": loop, "probabilities": [[str(k), float(row[k])] for k in shown]}
                for loop, row in enumerate(probabilities, start=1)
            ],
        }

    # Reading

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[list[Pair], int]:
        """Read pairs as `kitten sitting`, `kitten,sitting`, `k i t | s i t` or `k i t | s i t <sep> 4`, one a line.

        Every pair gets its answer. An answer that the line states must agree with it. Blank lines are ignored.
        """
        rows: dict[int, Pair] = {}
        reasons: dict[int, str] = {}
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    rows[number] = self._parse(line)
                except ValueError as error:
                    reasons[number] = str(error)
        pairs: list[Pair] = []
        for start in range(0, len(rows), CHUNK):
            chunk = list(itertools.islice(rows.items(), start, start + CHUNK))
            answers = self.answers([(pair.first, pair.second) for _, pair in chunk]).tolist()
            for (number, pair), answer in zip(chunk, answers, strict=True):
                if answer >= self.tokens.num_answers:
                    reasons[number] = f"the answer {answer} does not fit the vocabulary of version={self.version!r}"
                elif pair.answer not in (None, answer):
                    reasons[number] = f"states {pair.answer}, but the answer of version={self.version!r} is {answer}"
                else:
                    pairs.append(pair._replace(answer=answer))
        if reasons and on_bad_row == "stop":
            number = min(reasons)
            raise ValueError(f"{source}, line {number}: {reasons[number]}")
        if not pairs:
            raise ValueError(f"{source}: no pair of strings in it ({len(reasons)} bad rows)")
        return pairs, len(reasons)

    def _parse(self, line: str) -> Pair:
        text, mark, stated = line.partition("<sep>")
        if "|" in text:
            strings = ["".join(part.split()) for part in text.split("|")]
        else:
            strings = re.split(r"\s*[,\t]\s*|\s+", text.strip())
        if len(strings) != 2:
            raise ValueError(f"expected two strings, not {len(strings)}")
        for string in strings:
            if not re.fullmatch("[a-z]+", string):
                raise ValueError(f"{shown(string)}: expected one or more of the letters a-z")
        total, most = sum(map(len, strings)), max(map(len, strings))
        if most > self.longest + 2 or total > 2 * self.longest + 2:
            raise ValueError(
                f"strings of {len(strings[0])} and {len(strings[1])} letters; the longest length {self.longest} allows "
                f"{self.longest + 2} letters in a string and {2 * self.longest + 2} in both"
            )
        stated = stated.strip()
        if mark and stated and not re.fullmatch("[0-9]{1,9}", stated):
            raise ValueError(f"the answer {shown(stated)} is no number of at most 9 digits")
        pair = by_length(*strings) if self.shorter_first else (strings[0], strings[1])
        return Pair(*pair, int(stated) if stated else None)


def _key(first: str, second: str) -> bytes:
    """The content of a pair. It is equal for both orders, so no split has the mirror image of another split's pair."""
    return "|".join(sorted((first, second))).encode()
