"""A model in context against algorithms for linear functions: gradient descent, Newton's method, (ridge) least squares.

The measures are those of Akyurek et al. 2023 (section 4.1). All algorithms here return weights w; they predict q'w at
a query q. S is X'X / n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from looped.intervals import interval
from looped.lazy import torch
from looped.tasks.base import Predict
from looped.tasks.in_context.prompts import encode_arrays

PROMPTS = 64
DESCENT_STEPS, NEWTON_STEPS = (1, 2, 4, 8, 16, 32), (1, 2, 3, 4, 6, 8, 12)
PENALTY = 1.0  # of ridge regression, as in in_context.jsonl

Points = Float[np.ndarray, "batch points dim"]
Values = Float[np.ndarray, "batch points"]
Queries = Float[np.ndarray, "batch queries dim"]
Weights = Float[np.ndarray, "batch dim"]


class Algorithm(NamedTuple):
    """The weights that an algorithm finds after some steps; None for algorithms without steps."""

    name: str
    steps: int | None
    weights: Weights


def descent(x: Points, y: Values, steps: int, step: Float[np.ndarray, "dim dim"] | float) -> Weights:
    """Gradient descent from 0: w <- w + A' X'(y - X w) / n.

    Args:
        step: A, a number or a matrix. With the inverse covariance of the points as a factor, it is preconditioned.
    """
    s, xy = _moments(x, y)
    matrix = np.asarray(step) if np.ndim(step) else step * np.eye(x.shape[2])
    w = np.zeros_like(xy)
    for _ in range(steps):
        w = w + (xy - (s @ w[..., None])[..., 0]) @ matrix
    return w


def best_step(x: Points, queries: Queries, steps: int, matrix: Float[np.ndarray, "dim dim"] | None = None) -> float:
    """The a for which `descent` with the matrix aP has the smallest mean squared error, to about eight digits.

    The mean is over the queries and over true weights ~ N(0, I), without noise. An error is q'(I - aPS)^k w.

    Args:
        matrix: a symmetric positive P; None is I.
    """
    from scipy.optimize import minimize_scalar

    p = np.eye(x.shape[2]) if matrix is None else matrix
    s = x.swapaxes(1, 2) @ x / x.shape[1]
    root = np.linalg.cholesky(p)
    # PS = root (root' S root) root^-1, and the matrix in brackets is symmetric.
    rates, vectors = np.linalg.eigh(root.T @ s @ root)
    left = queries @ root @ vectors
    right = vectors.swapaxes(1, 2) @ np.linalg.inv(root)

    def log_error(a: float) -> float:
        errors = (left * (1 - a * rates[:, None]) ** steps) @ right
        return math.log((errors**2).mean() + 1e-300)

    fastest = float(rates.max())
    found = minimize_scalar(log_error, bounds=(0, 2 / float(rates.mean())), options={"xatol": 1e-9 / fastest})
    return float(found.x)


def newton(x: Points, y: Values, steps: int) -> Weights:
    """Least squares with the inverse of S by Newton's iteration Z <- Z (2I - S Z), from S / (|S|_1 |S|_inf).

    Source: Giannou et al. 2024. If S has no inverse, the iteration tends to the pseudoinverse.
    """
    s, xy = _moments(x, y)
    size = abs(s).sum(1).max(1)  # |S|_1 = |S|_inf, as S is symmetric
    z = s / (size**2)[:, None, None]
    for _ in range(steps):
        z = z @ (2 * np.eye(x.shape[2]) - s @ z)
    return (z @ xy[..., None])[..., 0]


def ridge(x: Points, y: Values, penalty: float) -> Weights:
    """The minimum of |y - X w|^2 + penalty |w|^2."""
    transposed = x.swapaxes(1, 2)
    return np.linalg.solve(transposed @ x + penalty * np.eye(x.shape[2]), transposed @ y[..., None])[..., 0]


def least_squares(x: Points, y: Values) -> Weights:
    """The least squares solution; the shortest one if there are several."""
    return (np.linalg.pinv(x) @ y[..., None])[..., 0]


def algorithms(x: Points, y: Values, queries: Queries) -> Iterator[Algorithm]:
    """The weights of every algorithm on the same examples. Gradient descent has its best step for these points."""
    yield Algorithm("zero", None, np.zeros((len(x), x.shape[2])))
    for steps in DESCENT_STEPS:
        yield Algorithm("gradient descent", steps, descent(x, y, steps, best_step(x, queries, steps)))
    for steps in NEWTON_STEPS:
        yield Algorithm("Newton", steps, newton(x, y, steps))
    yield Algorithm("ridge", None, ridge(x, y, PENALTY))
    yield Algorithm("least squares", None, least_squares(x, y))


def against_algorithms(
    predict: Predict, x: Points, y: Values, queries: Queries, loops: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Rows of algorithms.jsonl: how far the model is from each algorithm after each of these loops.

    prediction_difference is the mean of (f(q) - q'w)^2 over prompts and queries, for the model f and the algorithm's w.
    weight_difference is the mean of |v - w|^2 over prompts, where v are the weights that fit f best at the queries of
    the prompt. For q ~ N(0, I) and a linear f, both are about equal.

    Args:
        predict: the model's logits for a batch after some loop counts.
        x: the examples of each prompt.
        queries: fresh points of each prompt, more than the dimension; the model sees one at a time.
    """
    prompts, count, dim = queries.shape
    n = x.shape[1]
    points = np.concatenate([np.repeat(x, count, 0), queries.reshape(-1, 1, dim)], 1)
    values = np.concatenate([np.repeat(y, count, 0), np.zeros((prompts * count, 1))], 1)
    logits = predict(encode_arrays(points, values), loops)
    answers = logits[:, :, 2 * n, 0].double().numpy().reshape(len(loops), prompts, count)
    found = list(algorithms(*(part.astype(np.float64) for part in (x, y, queries))))
    inverse = np.linalg.pinv(queries.astype(np.float64))
    for num_loops, predicted in zip(loops, answers, strict=True):
        fitted = (inverse @ predicted[..., None])[..., 0]
        for name, steps, weights in found:
            distances = ((predicted - (queries @ weights[..., None])[..., 0]) ** 2).mean(1)
            mean, low, high = interval(torch.from_numpy(distances), math.inf)
            yield {
                "num_loops": num_loops, "algorithm": name, "steps": steps, "prediction_difference": mean, "low": low,
                "high": high, "weight_difference": float(((fitted - weights) ** 2).sum(1).mean()), "n": prompts,
            }  # fmt: skip


def _moments(x: Points, y: Values) -> tuple[Float[np.ndarray, "batch dim dim"], Weights]:
    """S = X'X / n and X'y / n."""
    transposed = x.swapaxes(1, 2)
    return transposed @ x / x.shape[1], (transposed @ y[..., None])[..., 0] / x.shape[1]
