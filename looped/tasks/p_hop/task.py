"""p-hop induction (Sanford, Hsu & Telgarsky, 2024): follow a chain of p lookups in a word."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from reprlib import repr as shown  # cuts what is long
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from looped.lazy import torch
from looped.tasks.base import Batch, Split, Task, TaskSpec, split_of
from looped.tasks.p_hop.config import PHopConfig
from looped.tasks.pairs import as_text
from looped.tasks.registry import TaskConfig, register

FRUITLESS = 200  # rounds without a word of the requested split before drawing gives up

Words = Int[np.ndarray, "words length"]


@register("p_hop")
class PHop(Task):
    """The letter that is reached from the end of a word by p hops. A problem is a word.

    One hop goes from a position to the last earlier occurrence of its letter, and then one to the right. In `abcadbca`
    the last earlier `a` is the fourth letter, so the answer for p=1 is `d`. For p=2 there is none, because `d` does not
    occur earlier. Words without an answer are not drawn.

    The first letter is uniform, and each further one is uniform among the letters that differ from the one before it.
    With repeats, a quarter of the words of 4 letters are trivial, because a hop from the second of two equal letters
    stays there. The published words are likely of that kind (Saunshi et al., 2025, Section 3: one layer has 49%, and
    the last letter is right in 44%). The model is causal. Its answer is the output at the last letter.

    >>> task = PHop(PHopConfig(hops=1, length=8))
    >>> print(task.describe("abcadbca"))
    p-hop induction: abcadbca
    answer: d
    """

    Config = PHopConfig
    title = "p-hop induction"
    presentation = frozenset({"loss"})

    @classmethod
    def example_config(cls, folder: Path) -> TaskConfig:
        return PHopConfig(hops=2, length=24)

    def __init__(self, config: PHopConfig) -> None:
        super().__init__(config)
        self.alphabet = string.ascii_lowercase[: config.letters]
        self.spec = TaskSpec(
            vocab_size=config.letters, output_size=config.letters, max_seq_len=config.length, causal=True
        )

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[str]:
        """Draw `size` independent words that have an answer.

        Raises:
            ValueError: the group is unknown, or hardly any word of the split has an answer.
        """
        if group not in (None, *self.groups):
            raise ValueError(f"group={group!r}: expected one of {', '.join(self.groups)}")
        config = self.config
        found: list[str] = []
        fruitless = 0
        while len(found) < size:
            least = 1 if config.version == "corrected" else 0
            steps = rng.integers(least, config.letters, (size + size // 4 + 32, config.length))
            steps[:, 0] = rng.integers(config.letters, size=len(steps))
            words = steps.cumsum(1) % config.letters
            kept = [word for word in as_text(words[hop(words, config.hops)[:, -1] > 0]) if _split(word) == split]
            fruitless = 0 if kept else fruitless + 1
            if fruitless == FRUITLESS:
                raise ValueError(
                    f"hops={config.hops}, length={config.length}, letters={config.letters}: found no word with an "
                    f"answer in the {split} split; expected fewer hops or longer words"
                )
            found += kept
        return found[:size]

    def encode(self, problems: Sequence[str]) -> Batch:
        """Each letter is a token. The target at a position is the letter that is reached by p hops from there."""
        words = codes(problems)
        reached = hop(words, self.config.hops)
        mask = reached > 0
        mask[:, :-1] &= self.config.loss == "dense"
        targets = np.where(reached > 0, np.take_along_axis(words, reached, 1), 0)
        return Batch(*map(torch.from_numpy, (words, targets, mask, np.ones_like(mask))))

    def score(
        self, batch: Batch, logits: Float[torch.Tensor, "batch seq output"]
    ) -> dict[str, Float[torch.Tensor, " batch"]]:
        """accuracy: the answer at the last letter is right, whatever `loss` is."""
        return {"accuracy": (logits[:, -1].argmax(-1) == batch.targets[:, -1]).float()}

    def reported(self, metric: str, mean: float, split: Split, group: str | None = None) -> dict[str, float]:
        """The accuracy, and that of the best guess from the last letter alone."""
        return {metric: mean, "majority_baseline": self.majority_baseline}

    @cached_property
    def majority_baseline(self) -> float:
        """The accuracy of the most frequent answer to words with the same last letter, from 10,000 training words.

        All letters are alike in the distribution of words. The best guess is therefore the last letter itself, or, if
        that is rare, any other one.
        """
        words = codes(self.sample("train", 10_000, np.random.default_rng(0)))
        answers = np.take_along_axis(words, hop(words, self.config.hops)[:, -1:], 1)[:, 0]
        same = float((answers == words[:, -1]).mean())
        return max(same, (1 - same) / (self.config.letters - 1))

    def answer(self, problem: str, logits: Float[torch.Tensor, "seq output"]) -> dict[str, Any]:
        """The letter with the highest probability at the last position."""
        confidence, letter = logits[-1].double().softmax(-1).max(-1)
        return {"answer": self.word(int(letter)), "valid": None, "confidence": float(confidence)}

    def word(self, output: int) -> str:
        return self.alphabet[output]

    def to_text(self, problem: str) -> dict[str, str]:
        word = codes([problem])
        return {"input": problem, "expected": self.word(int(word[0, hop(word, self.config.hops)[0, -1]]))}

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[list[str], int]:
        """Read one word a line; spaces in it and blank lines are ignored. Repeated letters are allowed."""
        words, bad = [], 0
        for number, line in enumerate(lines, start=1):
            word = "".join(line.split())
            reason = self._fault(word) if word else ""
            if reason and on_bad_row == "stop":
                raise ValueError(f"{source}, line {number}: {reason}")
            bad += bool(reason)
            if word and not reason:
                words.append(word)
        if not words:
            raise ValueError(f"{source}: no word of the task {self.name} in it ({bad} bad rows)")
        return words, bad

    def _fault(self, word: str) -> str:
        """Why a user's word is no problem of this task; '' if it is one."""
        if not set(word) <= set(self.alphabet):
            return f"{shown(word)}: expected the letters a-{self.alphabet[-1]}"
        if len(word) != self.config.length:
            return f"{len(word)} letters; expected {self.config.length}, the task's length"
        if not self.encode([word]).mask[0, -1]:
            return f"{shown(word)}: has no answer, because a hop finds no earlier occurrence of its letter"
        return ""


def codes(problems: Sequence[str]) -> Words:
    """The letters of words of equal length as numbers from 0."""
    letters = np.frombuffer("".join(problems).encode(), np.uint8)
    return letters.reshape(len(problems), -1).astype(np.int64) - ord("a")


def hop(words: Words, hops: int) -> Words:
    """The position that `hops` hops reach from each position, counted from 0; 0 if there is none.

    One hop from position i leads to the position after the last j < i with the same letter. It never leads to 0, and
    from 0 there is none, so 0 is its own successor.

    Args:
        words: letters as numbers from 0 (words, length).
    """
    successor = np.zeros_like(words)
    latest = np.zeros((len(words), int(words.max(initial=0)) + 1), words.dtype)  # the position after each letter
    rows = np.arange(len(words))
    for at in range(words.shape[1]):
        successor[:, at] = latest[rows, words[:, at]]
        latest[rows, words[:, at]] = at + 1
    reached = successor
    for _ in range(hops - 1):
        reached = np.take_along_axis(successor, reached, 1)
    return reached


def _split(word: str) -> Split:
    # split_of uses a checksum that is linear in the bits, so the letters themselves would depend on the split.
    return split_of(hashlib.sha256(word.encode()).digest())
