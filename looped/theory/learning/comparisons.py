"""The learners of `learners` and `newton` as models, on random data, beside numpy and scikit-learn."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from looped.theory.arithmetic import Array
from looped.theory.circuit import Program
from looped.theory.learning.learners import chebyshev_steps, descent, logistic, tokens, with_pseudo_examples
from looped.theory.learning.newton import newton_logistic, newton_tokens
from looped.theory.learning.regression import best_step
from looped.theory.weights import write

RIDGE = 0.05


def predictions(
    program: Program, inputs: Float[Array, "batch seq inputs"], queries: int
) -> Float[Array, "loops batch queries"]:
    """The predictions of the model for the last `queries` tokens after each loop."""
    with torch.inference_mode():
        out = write(program, inputs.shape[1])(torch.from_numpy(inputs), loop_logits="all")
    return out.loop_logits[:, :, -queries:, 0].numpy()


def learners_against_references(n: int, d: int, seed: int) -> list[dict[str, Any]]:
    """Each learner's size and the largest difference of its last prediction from a plain computation."""
    from sklearn.linear_model import LogisticRegression, Ridge  # slow to import

    random = np.random.default_rng(seed)
    x, queries = random.normal(size=(n, d)), random.normal(size=(10, d))
    y = x @ random.normal(size=d)
    noisy = y + 0.3 * random.normal(size=n)
    labels = (random.random(n) < 1 / (1 + np.exp(-y))).astype(float)
    labels[:2] = 0, 1  # both classes occur
    smallest, largest = np.linalg.eigvalsh(x.T @ x / n)[[0, -1]].tolist()
    step = 1 / (largest + RIDGE)
    enough = math.ceil(37 / step / (smallest + RIDGE))  # then the error is exp(-37) = 1e-16
    with_ridge = np.linalg.inv(x.T @ x / n + RIDGE * np.eye(d))
    ridge = Ridge(alpha=RIDGE * n, fit_intercept=False, solver="cholesky").fit(x, noisy).predict(queries)
    classes = LogisticRegression(C=1 / (RIDGE * n), fit_intercept=False, tol=1e-12, max_iter=10_000).fit(x, labels)
    logits = classes.decision_function(queries)
    plain = tokens(x[None], y[None], queries[None])
    pseudo = tokens(*with_pseudo_examples(x[None], noisy[None], RIDGE), queries[None])
    binary = tokens(x[None], labels[None], queries[None])
    a = best_step(n, d, 8)
    cases = [
        ("gradient descent, best step", descent(d, n, 8, step=a), plain, "numpy, 8 steps",
         queries @ _descend(x, y, a, 0.0, 8)),
        ("momentum 0.5", descent(d, n, 30, step=a, momentum=0.5), plain, "numpy, 30 steps",
         queries @ _descend(x, y, a, 0.5, 30)),
        ("preconditioned", descent(d, n, 1, step=with_ridge), pseudo, "scikit-learn, ridge", ridge),
        ("ridge by d pseudo-examples", descent(d, n, enough, step=step), pseudo, "scikit-learn, ridge", ridge),
        ("logistic, gradient descent", logistic(d, n, 400, step=1.0, ridge=RIDGE), binary,
         "scikit-learn, logistic", logits),
        ("the same, knots 1/64", logistic(d, n, 400, step=1.0, ridge=RIDGE, width=1 / 64), binary,
         "scikit-learn, logistic", logits),
        ("logistic, Newton, knots 1/64",
         newton_logistic(d, n, 8, ridge=RIDGE, largest=largest / 4 + RIDGE, width=1 / 64),
         newton_tokens(x[None], labels[None], queries[None]), "scikit-learn, logistic", logits),
    ]  # fmt: skip
    rows = []
    for name, program, inputs, reference, wanted in cases:
        difference = float(np.abs(predictions(program, inputs, len(queries))[-1, 0] - wanted).max())
        rows.append({"learner": name, **program.circuit.cost()._asdict(), "loops": program.loops,
                     "reference": reference, "difference": difference})  # fmt: skip
    return rows


def conditioning(condition: float, seed: int, *, d: int = 20, n: int = 40, loops: int = 64) -> list[dict[str, Any]]:
    """Relative errors |w - w*| / |w*| for plain descent, momentum and Chebyshev steps after 1, 2, 4, ... loops.

    The eigenvalues of X'X / n are geometrically spaced from 1 / condition to 1, and w* has the same size along each
    eigenvector. The d queries are unit vectors, so their predictions are the weights.
    """
    random = np.random.default_rng(seed)
    low, root = 1 / condition, math.sqrt(condition)
    left = np.linalg.qr(random.normal(size=(n, d)))[0]
    right = np.linalg.qr(random.normal(size=(d, d)))[0]
    x = left * np.sqrt(n * np.geomspace(low, 1, d)) @ right.T
    truth = right.sum(axis=1)
    inputs = tokens(x[None], (x @ truth)[None], np.eye(d)[None])

    def errors(program: Program) -> Array:
        return np.linalg.norm(predictions(program, inputs, d)[:, 0] - truth, axis=-1) / np.linalg.norm(truth)

    tied = errors(descent(d, n, loops, step=2 / (1 + low)))
    momentum = errors(descent(d, n, loops, step=4 / (1 + math.sqrt(low)) ** 2, momentum=((root - 1) / (root + 1)) ** 2))
    rows = []
    for t in (2**i for i in range(loops.bit_length())):
        chebyshev = errors(descent(d, n, t, schedule=chebyshev_steps(low, 1.0, t)))[-1]
        rows.append({
            "loops": t, "tied": float(tied[t - 1]), "momentum": float(momentum[t - 1]), "Chebyshev": float(chebyshev),
            "tied_bound": ((condition - 1) / (condition + 1)) ** t,
            "Chebyshev_bound": 1 / math.cosh(t * math.acosh((condition + 1) / (condition - 1))),
            "root_rate": ((root - 1) / (root + 1)) ** t,
        })  # fmt: skip
    return rows


def _descend(x: Array, y: Array, step: float, momentum: float, steps: int) -> Array:
    """The weights after gradient descent in plain numpy."""
    w = m = np.zeros(x.shape[1])
    for _ in range(steps):
        m = momentum * m + step * x.T @ (y - x @ w) / len(x)
        w = w + m
    return w
