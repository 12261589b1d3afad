"""Learners as weights against plain computations, after every loop."""

import math

import numpy as np
import pytest
import torch

from looped.theory.learning.comparisons import conditioning, predictions
from looped.theory.learning.learners import (
    chebyshev_steps,
    descent,
    interpolated,
    logistic,
    sigmoid,
    sigmoid_slope,
    tokens,
    with_pseudo_examples,
)
from looped.theory.learning.newton import newton_logistic, newton_schulz, newton_schulz_tokens, newton_tokens
from looped.theory.weights import write

RANDOM = np.random.default_rng(0)
BATCH, N, D = 3, 25, 4
X, W, QUERIES = RANDOM.normal(size=(BATCH, N, D)), RANDOM.normal(size=(BATCH, D)), RANDOM.normal(size=(BATCH, 2, D))
Y = np.einsum("bnd,bd->bn", X, W) + 0.3 * RANDOM.normal(size=(BATCH, N))
LABELS = (RANDOM.random((BATCH, N)) < 1 / (1 + np.exp(-Y))).astype(float)


def times(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.einsum("bnd,bd->bn", x, w)


def test_descent_with_a_matrix_momentum_and_a_schedule():
    step = 0.4 * np.eye(D) + 0.1 * RANDOM.normal(size=(D, D))
    schedule = [1.0, 0.5, 2.0, 0.7, 1.5, 0.1]
    program = descent(D, N, 6, step=step, momentum=0.6, schedule=schedule)
    cost = program.circuit.cost()
    assert (cost.registers, cost.heads, cost.head_size, cost.units) == (2 * D + 2, 1, D, 2)
    found = predictions(program, tokens(X, Y, QUERIES), 2)
    w = m = np.zeros((BATCH, D))
    for t, eta in enumerate(schedule):
        gradient = np.einsum("bnd,bn->bd", X, Y - times(X, w)) / N
        m = 0.6 * m + gradient @ step  # A' g
        w = w + eta * m
        assert found[t] == pytest.approx(times(QUERIES, w), abs=1e-12)
    # The circuit's own arithmetic is a second execution of the same program.
    assert program.run(tokens(X, Y, QUERIES))[:, -2:, 0] == pytest.approx(found[-1], abs=1e-12)


def test_pseudo_examples_give_ridge_regression():
    x, y = with_pseudo_examples(X, Y, 0.1)
    inverse = np.linalg.inv(np.swapaxes(X, 1, 2) @ X / N + 0.1 * np.eye(D))
    ridge = np.einsum("bij,bnj,bn->bi", inverse, X, Y) / N
    found = predictions(descent(D, N, 300, step=0.5), tokens(x, y, QUERIES), 2)[-1]
    assert found == pytest.approx(times(QUERIES, ridge), abs=1e-12)
    at_once = [predictions(descent(D, N, 1, step=a), tokens(x, y, QUERIES), 2)[0, b] for b, a in enumerate(inverse)]
    assert np.array(at_once) == pytest.approx(times(QUERIES, ridge), abs=1e-12)


def test_logistic_regression_is_descent_with_the_table_of_the_sigmoid():
    found = predictions(logistic(D, N, 40, step=0.8, ridge=0.05, width=0.25), tokens(X, LABELS, QUERIES), 2)
    w = np.zeros((BATCH, D))
    for t in range(40):
        slope = LABELS - interpolated(sigmoid, times(X, w), 0.25)
        w = w + 0.8 * (np.einsum("bnd,bn->bd", X, slope) / N - 0.05 * w)
        assert found[t] == pytest.approx(times(QUERIES, w), abs=1e-12)
    assert np.abs(found[-1]).max() > 0.5


def test_error_of_the_table():
    z = np.linspace(-20, 20, 100_001)
    for width, bound in ((1 / 8, 12.0), (1 / 4, 6.0)):
        error = np.abs(interpolated(sigmoid, z, width, bound) - 1 / (1 + np.exp(-z)))
        assert error.max() <= max(width**2 / (48 * math.sqrt(3)), math.exp(-bound))
        assert error.max() > 0.9 * width**2 / (48 * math.sqrt(3))


def test_newton_schulz_inverts():
    root = RANDOM.normal(size=(6, 6))
    s = root @ root.T + np.eye(6)
    program = newton_schulz(6, 25)
    assert program.circuit.cost()[1:3] == (1, 2)
    model, inputs = write(program, 6), newton_schulz_tokens(s)
    with torch.no_grad():
        result = model(torch.from_numpy(inputs), loop_logits="all").loop_logits[:, 0].mT.numpy()
    x = s / (np.abs(s).sum(0).max() * np.abs(s).sum(1).max())
    for found in result:
        x = 2 * x - x @ s @ x
        assert found == pytest.approx(x, abs=1e-12)
    assert np.abs(result[3] - np.linalg.inv(s)).max() > 1e-2
    assert result[-1] == pytest.approx(np.linalg.inv(s), abs=1e-12)


def test_newton_steps_as_a_block():
    largest = float(np.linalg.eigvalsh(np.swapaxes(X, 1, 2) @ X / N / 4).max()) + 0.05
    program = newton_logistic(D, N, 4, ridge=0.05, largest=largest, inner=10)
    found = predictions(program, newton_tokens(X, LABELS, QUERIES), 2)
    w = np.zeros((BATCH, D))
    for t in range(4):
        z = times(X, w)
        gradient = np.einsum("bnd,bn->bd", X, LABELS - interpolated(sigmoid, z)) / N - 0.05 * w
        hessian = np.einsum("bni,bn,bnj->bij", X, interpolated(sigmoid_slope, z), X) / N + 0.05 * np.eye(D)
        w = w + np.linalg.solve(hessian, gradient[..., None])[..., 0]
        assert found[t] == pytest.approx(times(QUERIES, w), abs=1e-12)
    assert program.circuit.cost().layers == 15


def test_chebyshev_steps_reach_the_root_of_the_condition_number():
    for condition in (10.0, 300.0):
        for row in conditioning(condition, seed=0, loops=32):
            assert row["tied"] <= row["tied_bound"]
            assert row["Chebyshev"] <= row["Chebyshev_bound"] + 1e-13
            assert row["root_rate"] < row["Chebyshev_bound"] <= 2 * row["root_rate"] + 1e-15
    last = conditioning(100.0, seed=0)[-1]
    assert last["Chebyshev"] < last["momentum"] < 0.01 * last["tied"]
    assert sorted(chebyshev_steps(1.0, 1.0, 4)) == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="loops=3: expected a power of two"):
        chebyshev_steps(0.1, 1.0, 3)


def test_linear_circuits_refuse_what_they_cannot_do():
    program = descent(2, 3, 1)
    with pytest.raises(ValueError, match="linear attention: expected a floating-point type"):
        program.run(np.zeros((1, 4, 5), dtype=object))
    with pytest.raises(ValueError, match="has no meaning for linear attention"):
        write(program, 4, inverse_temperature=8.0)
