"""The base of tasks with chains that a looped model also writes in rounds: round t is its output after loop t."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from looped.lazy import torch
from looped.tasks.base import Predict, Split
from looped.tasks.batch import IGNORED, Batch
from looped.tasks.chains import END, PAD, ChainTask, Problem, Words

EXAMPLES = 256  # examples of each group in rounds.jsonl


class RoundsTask(ChainTask):
    """A task with chains whose answers have one word, and which also has the form of RELAY (Yu et al., 2025).

    With answer=rounds the input is `<end> question`, and the output at <end> is the answer. After loop t, the words of
    round t should be at the right end of the question, after a <pad> that shows where they begin. Other positions are
    free. rounds.jsonl, written by `looped evaluate`, says how many words and whole chains are right.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.in_rounds = config.answer == "rounds"
        if self.in_rounds:
            self.generation = None
            self.spec = dataclasses.replace(self.spec, causal=False)

    def _width(self, question: int, chain: int, answer: int) -> int:
        return question + 1 if self.config.answer == "rounds" else super()._width(question, chain, answer)

    @abstractmethod
    def rounds(self, problem: Problem) -> list[Words]:
        """The rounds of a chain. Each has fewer words than the question."""

    @abstractmethod
    def chain(self, question: Words, rounds: Sequence[Words]) -> Words:
        """The chain that was cut into these rounds."""

    def loops_for(self, problem: Problem) -> int | None:
        """With answer=rounds, the number of rounds."""
        return len(self.rounds(problem)) if self.in_rounds else None

    def encode(self, problems: Sequence[Problem]) -> Batch:
        if not self.in_rounds:
            return super().encode(problems)
        ends = [1 + len(problem.question) for problem in problems]
        rounds = [self.rounds(problem) for problem in problems]
        width = next((w for w in self.widths if w >= max(ends)), max(ends))
        inputs, targets = np.full((2, len(problems), width), PAD)
        steps = np.full((len(problems), max(map(len, rounds)), width), IGNORED)
        for row, (problem, end) in enumerate(zip(problems, ends, strict=True)):
            inputs[row, :end] = [END, *(self.ids[word] for word in problem.question)]
            targets[row, 0] = self.ids[problem.answer[0]]
            for step, words in zip(steps[row], rounds[row], strict=False):
                step[end - len(words) - 1 : end] = [PAD, *(self.ids[word] for word in words)]
        mask = np.arange(width) == np.zeros((len(problems), 1))
        tensors = map(torch.from_numpy, (inputs, targets, mask, inputs != PAD))
        return Batch(*tensors, step_targets=torch.from_numpy(steps))

    def read_rounds(self, tokens: Int[np.ndarray, "loops seq"]) -> list[Words]:
        """The words that the outputs after each loop hold at the right end of a question: all after the last <pad>."""
        ends = [row.tolist() for row in tokens]
        starts = [len(row) - row[::-1].index(PAD) if PAD in row else 0 for row in ends]
        return [tuple(map(self.word, row[start:])) for row, start in zip(ends, starts, strict=True)]

    def extra_evaluation(
        self, predict: Predict, *, loops: Sequence[int], split: Split, group: str, seed: int
    ) -> dict[str, Iterable[dict[str, Any]]]:
        """rounds.jsonl: for each group the share of right words, by round and in all, and of right chains."""
        return (
            {"rounds.jsonl": [self._row(predict, split, name, seed) for name in self.groups]} if self.in_rounds else {}
        )

    def _row(self, predict: Predict, split: Split, group: str, seed: int) -> dict[str, Any]:
        problems = self.sample(split, EXAMPLES, self.rng(split, 0, seed, group), group)
        batch = self.encode(problems)
        assert batch.step_targets is not None
        counted = batch.step_targets != IGNORED
        written = predict(batch, range(1, counted.shape[1] + 1)).argmax(-1).transpose(0, 1)
        right = (written == batch.step_targets) & counted
        chains = 0
        for problem, tokens in zip(problems, written.numpy(), strict=True):
            own = tokens[: len(self.rounds(problem)), : 1 + len(problem.question)]
            chains += self.chain(problem.question, self.read_rounds(own)) == problem.chain
        by_round = (right.sum((0, 2)) / counted.sum((0, 2))).tolist()
        words = (right.sum() / counted.sum()).item()
        return {"group": group, "n": EXAMPLES, "chains": chains / EXAMPLES, "words": words, "words_by_round": by_round}
