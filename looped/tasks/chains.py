"""The base of tasks whose answers follow from a chain of steps: answered at once, or after the steps are written."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from reprlib import repr as shown  # cuts what is long
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from looped.lazy import torch
from looped.tasks.base import BUCKETS, Split, Task, TaskSpec, split_of
from looped.tasks.batch import Batch
from looped.tasks.chain_config import ChainConfig
from looped.tasks.generating import Generation
from looped.tasks.registry import TaskConfig

PAD, END, FIRST = 0, 1, 2  # word k has the id FIRST + k
FRUITLESS = 200  # rounds without a problem of the requested split before drawing gives up

Words = tuple[str, ...]


class Problem(NamedTuple):
    """A question with its solution. Question and steps end with the task's separator."""

    question: Words
    chain: Words
    """The steps from the question to the answer; () if they are unknown."""
    answer: Words


class ChainTask(Task):
    """Answer a question, with or without the steps of its solution before the answer (Feng et al., 2023).

    The model is causal. It reads the question and generates `answer <end>`, or `chain answer <end>` with
    answer=chain. The loss is on all that it generates. An answer counts as right if the words after the last separator
    are right, whatever was written before. Public code scores some chains in one pass with the right words up to each
    position. This score is teacher_forced; it is 1 exactly when generation writes the right chain.

    A subclass has `words`, draws problems (`draw`), reads questions (`solve`) and knows their sizes (`most_words`). The
    groups are lengths.
    """

    Config: ClassVar[type[TaskConfig]] = ChainConfig
    presentation = frozenset({"answer"})
    separator: str
    """The word that ends the question and each step."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        lengths = sorted({config.length, *config.eval_lengths})
        self.longest = lengths[-1]
        self.groups = tuple(map(str, lengths))
        self.words = self.vocabulary()
        self.ids = {word: FIRST + k for k, word in enumerate(self.words)}
        self.trained_lengths = range(config.min_length or config.length, config.length + 1)
        sizes = [self.most_words(n) for n in lengths]
        self.widths = [self._width(*size) for size in sizes]
        self.trained_seq_len = self._width(*self.most_words(config.length))
        size = FIRST + len(self.words)
        self.spec = TaskSpec(vocab_size=size, output_size=size, max_seq_len=self.widths[-1], causal=True)
        self.generation = Generation(END, self.widths[-1] - sizes[-1][0] + 1)

    def _width(self, question: int, chain: int, answer: int) -> int:
        """The largest number of inputs of a problem: all its words, because the end is no input."""
        return question + answer + (chain if self.config.answer == "chain" else 0)

    @abstractmethod
    def vocabulary(self) -> Sequence[str]:
        """The words of questions, steps and answers."""

    @abstractmethod
    def most_words(self, length: int) -> tuple[int, int, int]:
        """The largest numbers of words in the question, the chain and the answer of a problem of this length."""

    @abstractmethod
    def draw(self, length: int, count: int, rng: np.random.Generator) -> Sequence[Problem]:
        """`count` random problems of this length, of any split."""

    @abstractmethod
    def solve(self, words: Words) -> Problem:
        """The problem with a user's question, which has no separator at its end.

        Raises:
            ValueError: it is no question of this task, or has no answer.
        """

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[Problem]:
        """Draw `size` independent problems. The question decides the split.

        Raises:
            ValueError: the group is unknown, or the split has no problem of that length.
        """
        if group is not None and group not in self.groups:
            raise ValueError(f"group={group!r}: expected one of {', '.join(self.groups)}")
        return self._drawn(split, size, rng, self.trained_lengths if group is None else [int(group)])

    def sample_step(self, step: int, size: int, rng: np.random.Generator) -> list[Problem]:
        longest = self.config.longest_at(step, self.config.length)
        return self._drawn("train", size, rng, range(self.trained_lengths[0], longest + 1))

    def _drawn(self, split: Split, size: int, rng: np.random.Generator, among: Sequence[int]) -> list[Problem]:
        lengths = np.array(among)
        share = 1 - 2 / BUCKETS if split == "train" else 1 / BUCKETS
        found: list[Problem] = []
        fruitless = 0
        while len(found) < size:
            drawn = rng.choice(lengths, int(1.1 * (size - len(found)) / share) + 8, p=lengths / lengths.sum())
            new = [
                problem
                for length, count in zip(*np.unique(drawn, return_counts=True), strict=True)
                for problem in self.draw(int(length), int(count), rng)
                if split_of(hashlib.sha256(" ".join(problem.question).encode()).digest()) == split
            ]
            fruitless = 0 if new else fruitless + 1
            if fruitless == FRUITLESS:
                raise ValueError(f"length={lengths[-1]}: found no problem for the {split} split; expected longer ones")
            found += [new[i] for i in rng.permutation(len(new))]  # mixes the lengths
        return found[:size]

    def encode(self, problems: Sequence[Problem]) -> Batch:
        """Question, chain and answer without the end, padded on the right to the width of the longest length in it."""
        chain = self.config.answer == "chain"
        texts = [[*p.question, *(p.chain if chain else ()), *p.answer] for p in problems]
        needed = max(map(len, texts))
        width = next((w for w in self.widths if w >= needed), needed)
        inputs, targets = np.full((2, len(problems), width), PAD)
        mask = np.zeros(inputs.shape, bool)
        for row, (problem, text) in enumerate(zip(problems, texts, strict=True)):
            inputs[row, : len(text)] = [self.ids[word] for word in text]
            start = len(problem.question) - 1
            targets[row, start : len(text)] = [*inputs[row, start + 1 : len(text)], END]
            mask[row, start : len(text)] = True
        return Batch(*map(torch.from_numpy, (inputs, targets, mask, inputs != PAD)))

    # Scores and answers

    def final(self, tokens: Sequence[int]) -> list[int]:
        """The tokens after the last separator and before the end; [] if there is no end."""
        text = list(tokens)
        if END not in text:
            return []
        text = text[: text.index(END)]
        after = len(text) - text[::-1].index(self.ids[self.separator]) if self.ids[self.separator] in text else 0
        return text[after:]

    def score_generated(
        self, batch: Batch, answers: Sequence[Sequence[int]]
    ) -> dict[str, Float[torch.Tensor, " batch"]]:
        """accuracy: the words after the last separator are the answer."""
        right = [self.final(row[mask].tolist()) for row, mask in zip(batch.targets, batch.mask, strict=True)]
        equal = [float(self.final(tokens) == wanted) for tokens, wanted in zip(answers, right, strict=True)]
        return {"accuracy": torch.tensor(equal)}

    def generated_answer(self, problem: Problem, answer: Sequence[int]) -> dict[str, Any]:
        """The final answer, and all that was written."""
        written = super().generated_answer(problem, answer)
        return {**written, "answer": " ".join(map(self.word, self.final(answer))), "written": written["answer"]}

    def word(self, output: int) -> str:
        return self.words[output - FIRST] if output >= FIRST else ("<pad>", "<end>")[output]

    def to_text(self, problem: Problem) -> dict[str, str]:
        return {"input": " ".join(problem.question), "expected": " ".join(problem.answer)}

    def describe(self, problem: Problem, logits: Float[torch.Tensor, "seq output"] | None = None) -> str:
        chain = f"\nchain: {' '.join(problem.chain)}" if problem.chain else ""
        return super().describe(problem, logits).replace("\nanswer:", f"{chain}\nanswer:", 1)

    # Reading

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[list[Problem], int]:
        """Read one question a line, with or without white space between words; blank lines are ignored."""
        problems, bad = [], 0
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                problems.append(self._read(line))
            except ValueError as error:
                if on_bad_row == "stop":
                    raise ValueError(f"{source}, line {number}: {error}") from None
                bad += 1
        if not problems:
            raise ValueError(f"{source}: no question of the task {self.name} in it ({bad} bad rows)")
        return problems, bad

    def _read(self, line: str) -> Problem:
        words = tuple(self.split(line.strip().removesuffix(self.separator)))
        for word in words:
            if word not in self.ids:
                raise ValueError(f"{shown(word)}: expected words of {' '.join(self.words[:40])}")
        problem, most = self.solve(words), self.most_words(self.longest)[0]
        if len(problem.question) > most:
            raise ValueError(f"{len(problem.question)} words; expected at most {most}, those of the longest length")
        return problem

    def split(self, line: str) -> Sequence[str]:
        """The words of a question."""
        return line.split()
