"""The part of a task that is about answers which a model generates token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Float

from looped.lazy import torch
from looped.tasks.batch import Batch


class Generation(NamedTuple):
    """Answers are generated greedily, one token at a time, until the token `end`."""

    end: int
    max_new_tokens: int
    """The longest answer, with its end."""


class Generates:
    """The base of `Task` for tasks whose answers are generated."""

    metric: str
    generation: Generation | None = None
    """How a causal model generates the answers; None if they are read from a single pass. The prompt of an example is
    its input up to the first supervised position, and the targets from there on are the right answer and its end."""

    @property
    def pass_metric(self) -> str:
        """The main score of a single pass: `metric`, unless answers are generated."""
        return self.metric if self.generation is None else "teacher_forced"

    def score_generated(
        self, batch: Batch, answers: Sequence[Sequence[int]]
    ) -> dict[str, Float[torch.Tensor, " batch"]]:
        """Score the generated answer to each example, as `score` does.

        By default accuracy is 1 if the answer equals the targets.

        Args:
            answers: token ids, with the end of the answer unless it became too long.
        """
        right = [row[mask].tolist() for row, mask in zip(batch.targets, batch.mask, strict=True)]
        equal = [float(list(answer) == wanted) for answer, wanted in zip(answers, right, strict=True)]
        return {"accuracy": torch.tensor(equal)}

    def generated_answer(self, problem: Any, answer: Sequence[int]) -> dict[str, Any]:
        """A generated answer as plain values with the keys of `answer`.

        Args:
            answer: token ids, with the end of the answer unless it became too long.
        """
        assert self.generation is not None
        words = [self.word(token) for token in answer if token != self.generation.end]
        return {"answer": " ".join(words), "valid": None, "confidence": None}

    def word(self, output: int) -> str:
        """The printed name of an output class."""
        return str(output)
