"""Function classes learned in context: linear, sparse linear, decision trees, two-layer ReLU networks."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from looped.tasks.base import Batch, Predict, Split, rows_of_part
from looped.tasks.in_context.config import InContextConfig
from looped.tasks.in_context.prompts import Prompt, PromptTask, encode_arrays
from looped.tasks.in_context.table_files import Choices, prompts_to_solve, read_table
from looped.tasks.registry import register

Points = Float[np.ndarray, "batch points dim"]
Values = Float[np.ndarray, "batch points"]

TREE_DEPTH, HIDDEN, NONZERO = 4, 100, 3
LINEAR = ("linear", "noisy_linear", "sparse_linear")
OWN_NOISE = 0.1  # standard deviation of the noise of function=noisy_linear
SHIFT_NOISE, SHIFT_SCALE = 1.0, 3.0  # noise and scale of the groups noise and scaled


@register("in_context")
class InContext(PromptTask):
    """A new function and new points, x ~ N(0, I), in every prompt (Garg et al. 2022; Xu & Sato 2025, section 6).

    Example: for the linear function w = (2, -1) the prompt x = (1, 0), y = 2, x = (0, 1), y = -1, x = (1, 1)
    has the answer 1.

    Functions:

    - linear: y = w x, w ~ N(0, I).
    - noisy_linear: the same plus N(0, 0.1^2).
    - sparse_linear: only 3 coordinates of w are not zero.
    - decision_tree: complete, of depth 4. Each inner node tests the sign of a random coordinate, and positive goes
      right. The leaves are N(0, 1).
    - relu: sqrt(2 / 100) w2 relu(W1 x) with 100 hidden units and Gaussian weights.

    The groups are the training distribution (standard) and three shifts of it, which Garg et al. 2022 (section 4) and
    Yang et al. 2024 (who introduced these looped models) also test. noise: N(0, 1) is added to all values. skewed: the
    covariance of the points has eigenvalues proportional to 1 / i^2, with the same trace, in a random basis. scaled:
    the points are three times larger. In training, prompts may grow in coordinates and points (see the settings).
    Splits are disjoint, because two draws of real numbers never agree.
    """

    Config = InContextConfig
    title = "In-context learning"
    presentation = frozenset(
        {"start_dim", "dim_step", "dim_every", "start_points", "points_step", "points_every", "truncation"}
    )
    metric = "squared_error"
    lower_is_better = True
    groups = ("standard", "noise", "skewed", "scaled")

    @classmethod
    def example_config(cls, folder: Path) -> InContextConfig:
        return InContextConfig(dim=4, points=6)

    def __init__(self, config: InContextConfig) -> None:
        super().__init__(config)

    @property
    def question(self) -> str:
        return f"in-context {self.config.function.replace('_', ' ')}"

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> Sequence[Prompt]:
        """Draw `size` prompts of full size.

        Raises:
            ValueError: the group is unknown.
        """
        x, y = self._draw(size, rng, group, self.dim, self.points)
        return list(map(Prompt, x, y))

    def batch(
        self,
        split: Split,
        step: int,
        size: int,
        *,
        seed: int,
        group: str | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> Batch:
        """The batch of a step; a training batch has the size of the curriculum. Arguments as in `Task.batch`."""
        dim, points = self.sizes_at(step) if split == "train" else (self.dim, self.points)
        x, y = self._draw(size, self.rng(split, step, seed, group), group, dim, points)
        rows = rows_of_part(size, part)
        return encode_arrays(x[rows], y[rows])

    def sizes_at(self, step: int) -> tuple[int, int]:
        """Number of coordinates and points at a training step, counted from 0."""
        c = self.config
        dim = c.dim if c.start_dim is None else c.start_dim + step // (c.dim_every or 1) * c.dim_step
        points = c.points if c.start_points is None else c.start_points + step // (c.points_every or 1) * c.points_step
        return min(dim, c.dim), min(points, c.points)

    def _draw(
        self, size: int, rng: np.random.Generator, group: str | None, dim: int, points: int
    ) -> tuple[Points, Values]:
        """Prompts of `points` points in which only the first `dim` coordinates are in use."""
        if group is not None and group not in self.groups:
            raise ValueError(f"group={group!r}: expected one of {', '.join(self.groups)}")
        function, published = self.config.function, self.config.truncation == "published"
        if published and function == "decision_tree":
            dim = self.dim
        x = rng.standard_normal((size, points, self.dim), np.float32)
        if group == "skewed":
            x = x @ skew(size, self.dim, rng)
        elif group == "scaled":
            x *= SHIFT_SCALE
        x[..., dim:] = 0
        y = FUNCTIONS[function](x, self.dim if published else dim, rng)
        noise = OWN_NOISE * (function == "noisy_linear") + SHIFT_NOISE * (group == "noise")
        if noise:
            y = y + np.float32(noise) * rng.standard_normal(y.shape, np.float32)
        return x, y

    def extra_evaluation(
        self, predict: Predict, *, loops: Sequence[int], split: Split, group: str, seed: int
    ) -> dict[str, Iterable[dict[str, Any]]]:
        """in_context.jsonl, and for linear functions algorithms.jsonl: the model beside algorithms, by loop."""
        found = super().extra_evaluation(predict, loops=loops, split=split, group=group, seed=seed)
        if self.config.function not in LINEAR:
            return found
        from looped.tasks.in_context.algorithms import PROMPTS, against_algorithms

        examples = self.points - 1
        rng = self.rng(split, 1, seed, group)
        x, y = self._draw(PROMPTS, rng, group, self.dim, examples + 2 * self.dim)  # the others are fresh queries
        given = x[:, :examples], y[:, :examples], x[:, examples:]
        rows = against_algorithms(predict, *given, range(1, max(loops) + 1))
        return found | {"algorithms.jsonl": (row | {"group": group, "split": split} for row in rows)}

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[list[Prompt], int]:
        """Read a CSV or ARFF table with a column for each coordinate, and the value in the last column.

        Rows without a value are the problems. Rows with a value are the context of each problem.
        """
        table, skipped = read_table(lines, source, Choices("number", dim=self.dim), on_bad_row=on_bad_row)
        return prompts_to_solve(table, source, self.dim, self.points), skipped


def linear(x: Points, dim: int, rng: np.random.Generator) -> Values:
    weights = rng.standard_normal((len(x), x.shape[2], 1), np.float32)
    return (x @ weights)[..., 0]


def sparse_linear(x: Points, dim: int, rng: np.random.Generator) -> Values:
    """Linear in 3 of the first `dim` coordinates."""
    weights = np.zeros((len(x), x.shape[2], 1), np.float32)
    kept = rng.random((len(x), dim)).argsort(1)[:, :NONZERO, None]
    np.put_along_axis(weights, kept, rng.standard_normal(kept.shape, np.float32), 1)
    return (x @ weights)[..., 0]


def decision_tree(x: Points, dim: int, rng: np.random.Generator) -> Values:
    """Splits at zero on the first `dim` coordinates. The children of node i are 2i + 1 and 2i + 2."""
    inner = 2**TREE_DEPTH - 1
    coordinates = rng.integers(dim, size=(len(x), inner))
    leaves = rng.standard_normal((len(x), inner + 1), np.float32)
    node = np.zeros(x.shape[:2], np.int64)
    for _ in range(TREE_DEPTH):
        coordinate = np.take_along_axis(coordinates, node, 1)
        right = np.take_along_axis(x, coordinate[..., None], 2)[..., 0] > 0
        node = 2 * node + 1 + right
    return np.take_along_axis(leaves, node - inner, 1)


def relu(x: Points, dim: int, rng: np.random.Generator) -> Values:
    hidden = np.maximum(x @ rng.standard_normal((len(x), x.shape[2], HIDDEN), np.float32), 0)
    return np.float32((2 / HIDDEN) ** 0.5) * (hidden @ rng.standard_normal((len(x), HIDDEN, 1), np.float32))[..., 0]


FUNCTIONS: dict[str, Callable[[Points, int, np.random.Generator], Values]] = {
    "linear": linear,
    "noisy_linear": linear,
    "sparse_linear": sparse_linear,
    "decision_tree": decision_tree,
    "relu": relu,
}


def skew(size: int, dim: int, rng: np.random.Generator) -> Float[np.ndarray, "size dim dim"]:
    """Matrices A. If x ~ N(0, I), the covariance of x A has eigenvalues proportional to 1 / i^2 and trace `dim`."""
    basis, _ = np.linalg.qr(rng.standard_normal((size, dim, dim)))
    deviations = 1 / np.arange(1, dim + 1)
    deviations *= (dim / (deviations**2).sum()) ** 0.5
    return (deviations[:, None] * basis.transpose(0, 2, 1)).astype(np.float32)
