"""Algorithms for linear functions against closed forms and circuits, and the measures that place a model among them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge

from looped.tasks.base import Batch
from looped.tasks.in_context import InContext, InContextConfig
from looped.tasks.in_context.algorithms import (
    PROMPTS,
    against_algorithms,
    algorithms,
    best_step,
    descent,
    least_squares,
    newton,
    ridge,
)
from looped.theory.learning import learners
from looped.theory.learning.comparisons import predictions
from looped.theory.learning.regression import best_step as exact_step

RANDOM = np.random.default_rng(0)
BATCH, N, DIM = 6, 9, 3
X, QUERIES = RANDOM.normal(size=(BATCH, N, DIM)), RANDOM.normal(size=(BATCH, 2 * DIM, DIM))
Y = (X @ RANDOM.normal(size=(BATCH, DIM, 1)))[..., 0] + 0.3 * RANDOM.normal(size=(BATCH, N))


def answers(weights: np.ndarray, queries: np.ndarray = QUERIES) -> np.ndarray:
    return (queries @ weights[..., None])[..., 0]


@pytest.mark.parametrize("step", [0.4, np.diag([0.2, 0.5, 0.3]) + 0.05 * RANDOM.normal(size=(DIM, DIM))])
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_descent_is_what_the_constructed_transformer_computes(step: Any, steps: int) -> None:
    program = learners.descent(DIM, N, steps, step=step)
    written = predictions(program, learners.tokens(X, Y, QUERIES), 2 * DIM)[-1]
    expected = answers(descent(X, Y, steps, step))
    assert np.std(expected) > 0.1
    assert written == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("points", [N, 2])
def test_newton_tends_to_least_squares_even_with_few_points(points: int) -> None:
    x, y = X[:, :points], Y[:, :points]
    limit = np.stack([np.linalg.lstsq(a, b)[0] for a, b in zip(x, y, strict=True)])
    errors = [abs(newton(x, y, steps) - limit).max() for steps in (2, 6, 10, 30)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[3] < 1e-9
    assert least_squares(x, y) == pytest.approx(limit, abs=1e-10)


def test_newton_squares_the_residual_of_the_inverse() -> None:
    s = X.swapaxes(1, 2) @ X / N
    start = s / np.array([np.linalg.norm(m, 1) * np.linalg.norm(m, np.inf) for m in s])[:, None, None]
    for steps in (1, 2, 3):
        residual = np.linalg.matrix_power(np.eye(DIM) - s @ start, 2**steps)
        inverse = np.linalg.inv(s) @ (np.eye(DIM) - residual)
        expected = (inverse @ (X.swapaxes(1, 2) @ Y[..., None]) / N)[..., 0]
        assert newton(X, Y, steps) == pytest.approx(expected, abs=1e-9)


def test_ridge_and_least_squares_equal_those_of_scikit_learn() -> None:
    for weights, method in ((ridge(X, Y, 0.7), Ridge(0.7, fit_intercept=False)),
                            (least_squares(X, Y), LinearRegression(fit_intercept=False))):  # fmt: skip
        expected = [method.fit(x, y).coef_ for x, y in zip(X, Y, strict=True)]
        assert weights == pytest.approx(np.stack(expected), abs=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_best_step_tends_to_the_exact_one_of_the_population(steps: int) -> None:
    x, queries = RANDOM.normal(size=(20_000, 20, 4)), RANDOM.normal(size=(20_000, 4, 4))
    assert best_step(x, queries, steps) == pytest.approx(exact_step(20, 4, steps), rel=0.01)


def test_the_best_step_is_the_best_on_a_grid_of_steps() -> None:
    scale = np.array([2.0, 1.0, 0.3])
    x, queries = RANDOM.normal(size=(400, 8, 3)) * scale, RANDOM.normal(size=(400, 6, 3)) * scale
    units = np.eye(3)
    for matrix in (None, np.array([[0.3, 0.1, 0.0], [0.1, 1.0, 0.2], [0.0, 0.2, 4.0]])):
        p = units if matrix is None else matrix

        def error(a: float, p: np.ndarray = p) -> float:
            """The mean over true weights, from the three unit vectors: errors are linear in w."""
            found = [answers(descent(x, (x @ w), 3, a * p) - w, queries) for w in units]
            return float(np.square(found).sum(0).mean())

        best = best_step(x, queries, 3, matrix)
        assert all(error(best) <= error(best * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2))


class Line:
    """A stand-in for a model: after k loops, it predicts at the last point with `weights(x, y, k)`, plus a curve."""

    def __init__(self, weights: Any, curve: float = 0.0) -> None:
        self.weights, self.curve = weights, curve

    def __call__(self, batch: Batch, loops: Any) -> torch.Tensor:
        x, y = batch.inputs[:, ::2].double().numpy(), batch.targets[:, ::2].double().numpy()
        assert not y[:, -1].any(), "the model must not see the value at the query"
        found = torch.zeros(len(loops), *batch.targets.shape, 1)
        for k, count in enumerate(loops):
            value = (self.weights(x[:, :-1], y[:, :-1], count) * x[:, -1]).sum(1) + self.curve * np.square(x[:, -1, 0])
            found[k, :, -2, 0] = torch.from_numpy(value)
        return found


def test_a_model_that_runs_an_algorithm_is_nearest_to_it() -> None:
    rows = list(against_algorithms(Line(newton), X, Y, QUERIES, [1, 2, 3, 4]))
    for loops in (1, 2, 3, 4):
        near = min((row for row in rows if row["num_loops"] == loops), key=lambda row: row["prediction_difference"])
        assert (near["algorithm"], near["steps"]) == ("Newton", loops)
        assert near["prediction_difference"] < 1e-9 > near["weight_difference"]
    assert {row["n"] for row in rows} == {BATCH}


def test_differences_are_those_of_the_definition() -> None:
    rows = list(against_algorithms(Line(lambda x, y, k: ridge(x, y, 5.0), curve=0.5), X, Y, QUERIES, [2]))
    w = ridge(X, Y, 5.0)
    values = answers(w) + 0.5 * QUERIES[..., 0] ** 2
    fitted = [np.linalg.lstsq(q, v)[0] for q, v in zip(QUERIES, values, strict=True)]
    for row, algorithm in zip(rows, algorithms(X, Y, QUERIES), strict=True):
        assert (row["algorithm"], row["steps"]) == algorithm[:2]
        expected = np.square(values - answers(algorithm.weights))
        assert row["prediction_difference"] == pytest.approx(expected.mean(), rel=1e-4)
        half = 1.959964 * expected.mean(1).std(ddof=1) / math.sqrt(BATCH)
        assert row["high"] - row["prediction_difference"] == pytest.approx(half, rel=1e-4)
        distance = np.square(np.stack(fitted) - algorithm.weights).sum(1).mean()
        assert row["weight_difference"] == pytest.approx(distance, rel=1e-4)
    zero = rows[0]["weight_difference"]
    assert zero == pytest.approx(np.square(fitted).sum(1).mean(), rel=1e-4)


def test_evaluation_compares_linear_functions_after_every_loop_on_the_groups_points() -> None:
    config = InContextConfig(function="linear", dim=2, points=5)
    line = Line(lambda x, y, k: least_squares(x, y))

    def rows(config: InContextConfig, group: str) -> list[dict[str, Any]] | None:
        extra = InContext(config).extra_evaluation(line, loops=[1, 3], split="test", group=group, seed=0)
        return list(extra["algorithms.jsonl"]) if "algorithms.jsonl" in extra else None

    found = rows(config, "scaled")
    assert found is not None
    assert {row["num_loops"] for row in found} == {1, 2, 3}
    assert {(row["group"], row["split"], row["n"]) for row in found} == {("scaled", "test", PROMPTS)}
    last = {row["algorithm"]: row for row in found}
    assert last["least squares"]["prediction_difference"] < 1e-6
    # y = w x with w ~ N(0, I_2): the square of predicting 0 is |w|^2 = 2, and 9 times that for scaled queries
    assert last["zero"]["weight_difference"] == pytest.approx(2, rel=0.4)
    assert last["zero"]["prediction_difference"] == pytest.approx(18, rel=0.5)
    assert rows(InContextConfig(function="relu", dim=2, points=5), "standard") is None
