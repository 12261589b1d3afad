"""The base of in-context tasks: prompts of points with their values, for a causal model."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from looped.lazy import torch
from looped.tasks.base import Batch, Predict, Split, Task, TaskSpec

SHOWN_POINTS, SHOWN_COORDINATES = 6, 5  # in a printed description


class Prompt(NamedTuple):
    """Points and the values of one function. The question is the last value."""

    x: Float[np.ndarray, "points dim"]
    y: Float[np.ndarray, " points"]
    """The values; the last one is NaN if the answer is unknown."""
    labels: tuple[str, str] | None = None
    """Names of the classes -1 and 1; None for real values."""
    offset: float = 0.0
    scale: float = 1.0
    """The value y is written as offset + scale * y."""

    def text(self, y: float) -> str | float:
        """A value to print: a label, or a number of four digits."""
        return float(f"{self.offset + self.scale * y:.4g}") if self.labels is None else self.labels[y > 0]


class PromptTask(Task):
    """Predict y_i from x_i and all earlier (x_j, y_j).

    A prompt is x_1, y_1, x_2, y_2, ..., each a vector of width `dim`, with y in coordinate 0 (Garg et al. 2022, section
    2). The first output at x_i is the prediction of y_i. Classes are -1 and 1, and the sign of the output decides.
    """

    classes: bool = False
    """Whether the values are classes. Otherwise the scores are squared errors."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.dim, self.points = config.dim, config.points
        self.spec = TaskSpec(
            inputs="vectors", input_dim=self.dim, output_size=1, max_seq_len=2 * self.points, causal=True
        )

    @property
    @abstractmethod
    def question(self) -> str:
        """The question, as text to print."""

    def encode(self, problems: Sequence[Prompt]) -> Batch:
        """Prompts with equal numbers of points as vectors; the real targets are at the positions of x."""
        x, y = np.stack([p.x for p in problems]), np.stack([p.y for p in problems])
        return encode_arrays(x, np.nan_to_num(y))

    def errors(
        self, batch: Batch, logits: Float[torch.Tensor, "batch seq output"]
    ) -> Float[torch.Tensor, "batch points"]:
        """The error at each point (batch, points): the squared error, or for classes 0 (right) or 1 (wrong)."""
        predicted, y = logits[:, ::2, 0], batch.targets[:, ::2]
        return (predicted * y <= 0).float() if self.classes else (predicted - y) ** 2

    def score(
        self, batch: Batch, logits: Float[torch.Tensor, "batch seq output"]
    ) -> dict[str, Float[torch.Tensor, " batch"]]:
        """Classes: accuracy at the last point, and its mean over the points.

        Real values: squared_error at the last point, its mean over the points, and both divided by the dimension, as
        reported by Xu & Sato (2025).
        """
        wrong = self.errors(batch, logits)
        last, mean = wrong[:, -1], wrong.mean(1)
        if self.classes:
            return {"accuracy": 1 - last, "accuracy_mean": 1 - mean}
        return {
            "squared_error": last,
            "squared_error_mean": mean,
            "squared_error_per_dim": last / self.dim,
            "squared_error_mean_per_dim": mean / self.dim,
        }

    def extra_evaluation(
        self, predict: Predict, *, loops: Sequence[int], split: Split, group: str, seed: int
    ) -> dict[str, Iterable[dict[str, Any]]]:
        """in_context.jsonl: the score by number of context points, of the model and of textbook methods."""
        from looped.tasks.in_context.baselines import errors_by_context  # imports this module

        return {"in_context.jsonl": errors_by_context(self, predict, loops=loops, split=split, group=group, seed=seed)}

    def answer(self, problem: Prompt, logits: Float[torch.Tensor, "seq output"]) -> dict[str, Any]:
        """The value at the last point. For classes, the more probable one and its probability, as y is -1 or 1."""
        value = float(logits[2 * len(problem.y) - 2, 0])
        confidence = None if problem.labels is None else min(1.0, (1 + abs(value)) / 2)
        return {"answer": problem.text(value), "valid": None, "confidence": confidence}

    def to_text(self, problem: Prompt) -> dict[str, str]:
        """The last point, and its value if it is known."""
        return {
            "input": " ".join(f"{value:g}" for value in problem.x[-1]),
            "expected": "" if math.isnan(problem.y[-1]) else str(problem.text(float(problem.y[-1]))),
        }

    def describe(self, problem: Prompt, logits: Float[torch.Tensor, "seq output"] | None = None) -> str:
        count, dim = problem.x.shape
        some = f"the last {min(dim, SHOWN_COORDINATES)} of {dim} coordinates"
        lines = [f"{self.question}: {count} points, {some} -> value, of which the last is asked for"]
        lines += ["..."] * (count > SHOWN_POINTS)
        for x, y in list(zip(problem.x, problem.y, strict=True))[-SHOWN_POINTS:]:
            shown = "unknown" if math.isnan(y) else problem.text(float(y))
            lines.append(f"{' '.join(f'{value:6.2f}' for value in x[-SHOWN_COORDINATES:])} -> {shown}")
        if logits is not None:
            lines.append(f"prediction of the last value: {self.answer(problem, logits)['answer']}")
        return "\n".join(lines)

    def visualise(self, problem: Prompt, logits: Float[torch.Tensor, "loops seq output"]) -> dict[str, Any]:
        known = np.nan_to_num(problem.y)
        predicted = logits[:, : 2 * len(known) : 2, 0].double().tolist()
        return {
            "kind": "points",
            "title": self.question,
            # Right means the right sign, or a distance from the truth of at most a tenth of the spread of the values.
            "tolerance": 1.0 if self.classes else 0.1 * float(known.std()),
            "truth": known.tolist(),
            "loops": [{"loop": loop, "predictions": row} for loop, row in enumerate(predicted, start=1)],
        }


def encode_arrays(x: Float[np.ndarray, "batch points dim"], y: Float[np.ndarray, "batch points"]) -> Batch:
    """Interleaved points and values; the mask is True at the points, and their targets are the values."""
    batch, points, dim = x.shape
    inputs = np.zeros((batch, 2 * points, dim), np.float32)
    inputs[:, ::2], inputs[:, 1::2, 0] = x, y
    targets, mask = np.zeros((batch, 2 * points), np.float32), np.zeros((batch, 2 * points), bool)
    targets[:, ::2], mask[:, ::2] = y, True
    return Batch(*map(torch.from_numpy, (inputs, targets, mask, np.ones_like(mask))))
