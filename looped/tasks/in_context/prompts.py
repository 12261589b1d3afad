"""What function classes and tables share: prompts of points with their values, as a causal model reads them."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looped.tasks.base import Batch, Predict, Split, Task, TaskSpec

SHOWN_POINTS, SHOWN_COORDINATES = 6, 5  # in a description


class Prompt(NamedTuple):
    """Points, and one function's value at each; what is asked for is the last value."""

    x: Float[np.ndarray, "points dim"]
    y: Float[np.ndarray, " points"]
    """NaN at the end where the answer is not known."""
    labels: tuple[str, str] | None = None
    """What -1 and 1 mean, where the values are classes."""


class PromptTask(Task):
    """Predict y_i from x_i and all (x_j, y_j) before it.

    A prompt is x_1, y_1, x_2, y_2, ..., a vector of width `dim` each, with y in coordinate 0 (Garg et al. 2022,
    section 2). The first output at x_i is the prediction of y_i. Classes are -1 and 1, told by the sign.
    """

    classes: bool = False
    """Whether the values are classes; else the scores are squared errors."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.dim, self.points = config.dim, config.points
        self.spec = TaskSpec(
            inputs="vectors", input_dim=self.dim, output_size=1, max_seq_len=2 * self.points, causal=True
        )

    @property
    @abstractmethod
    def question(self) -> str:
        """What is predicted, for a person."""

    def encode(self, problems: Sequence[Prompt]) -> Batch:
        """Prompts, all of the same number of points, as vectors and real targets at the places of x."""
        x, y = np.stack([p.x for p in problems]), np.stack([p.y for p in problems])
        return encode_arrays(x, np.nan_to_num(y))

    def errors(self, batch: Batch, logits: Float[Tensor, "batch seq output"]) -> Float[Tensor, "batch points"]:
        """What is wrong at each point: the squared error, or for classes 0 (right) or 1."""
        predicted, y = logits[:, ::2, 0], batch.targets[:, ::2]
        return (predicted * y <= 0).float() if self.classes else (predicted - y) ** 2

    def score(self, batch: Batch, logits: Float[Tensor, "batch seq output"]) -> dict[str, Float[Tensor, " batch"]]:
        """Classes: accuracy at the last point, and as a mean over the points.

        Else squared_error at the last point, its mean over the points, and both divided by the dimension,
        as Xu & Sato (2025) report them.
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
        """in_context.jsonl: the score by number of points in context, of the model and of textbook methods."""
        from looped.tasks.in_context.baselines import errors_by_context  # which knows prompts

        return {"in_context.jsonl": errors_by_context(self, predict, loops=loops, split=split, group=group, seed=seed)}

    def answer(self, problem: Prompt, logits: Float[Tensor, "seq output"]) -> dict[str, Any]:
        """The value at the last point; for classes the likelier one and, as y is -1 or 1, its probability."""
        value = float(logits[2 * len(problem.y) - 2, 0])
        confidence = None if problem.labels is None else min(1.0, (1 + abs(value)) / 2)
        return {"answer": text_of(value, problem.labels), "valid": None, "confidence": confidence}

    def to_text(self, problem: Prompt) -> dict[str, str]:
        """The last point, and its value if it is known."""
        return {
            "input": " ".join(f"{value:g}" for value in problem.x[-1]),
            "expected": "" if math.isnan(problem.y[-1]) else str(text_of(float(problem.y[-1]), problem.labels)),
        }

    def describe(self, problem: Prompt, logits: Float[Tensor, "seq output"] | None = None) -> str:
        count, dim = problem.x.shape
        some = f"the last {min(dim, SHOWN_COORDINATES)} of {dim} coordinates"
        lines = [f"{self.question}: {count} points, {some} -> value, of which the last is asked for"]
        lines += ["..."] * (count > SHOWN_POINTS)
        for x, y in list(zip(problem.x, problem.y, strict=True))[-SHOWN_POINTS:]:
            shown = "unknown" if math.isnan(y) else text_of(float(y), problem.labels)
            lines.append(f"{' '.join(f'{value:6.2f}' for value in x[-SHOWN_COORDINATES:])} -> {shown}")
        if logits is not None:
            lines.append(f"prediction of the last value: {self.answer(problem, logits)['answer']}")
        return "\n".join(lines)

    def visualise(self, problem: Prompt, logits: Float[Tensor, "loops seq output"]) -> dict[str, Any]:
        known = np.nan_to_num(problem.y)
        predicted = logits[:, : 2 * len(known) : 2, 0].double().tolist()
        return {
            "kind": "points",
            "title": self.question,
            # Right is the right sign, or what a tenth of the spread of the values does not tell from the truth.
            "tolerance": 1.0 if self.classes else 0.1 * float(known.std()),
            "truth": known.tolist(),
            "loops": [{"loop": loop, "predictions": row} for loop, row in enumerate(predicted, start=1)],
        }


def encode_arrays(x: Float[np.ndarray, "batch points dim"], y: Float[np.ndarray, "batch points"]) -> Batch:
    """Interleaved points and values; the mask is True at the points, whose targets are the values."""
    batch, points, dim = x.shape
    inputs = np.zeros((batch, 2 * points, dim), np.float32)
    inputs[:, ::2], inputs[:, 1::2, 0] = x, y
    targets, mask = np.zeros((batch, 2 * points), np.float32), np.zeros((batch, 2 * points), bool)
    targets[:, ::2], mask[:, ::2] = y, True
    return Batch(*map(torch.from_numpy, (inputs, targets, mask, np.ones_like(mask))))


def text_of(value: float, labels: tuple[str, str] | None) -> str | float:
    """A value as a person reads it: a label, or a number of four digits."""
    return float(f"{value:.4g}") if labels is None else labels[value > 0]
