"""Which step matrix A is best for L loops of gradient descent in context? Exact mathematics and experiments.

The n examples x_i ~ N(0, I_d), the query and the true weights w* are independent and isotropic, and y = X w* has no
noise. L loops of w <- w + A' X'(y - X w) / n leave the error (I - A'S)^L w* with S = X'X / n. The squared error of the
prediction, divided by that of predicting 0, is therefore

    loss(A) = E |(I - A'S)^L|^2 / d        (Frobenius norm).

This is the population loss of linear attention with the matrix A, see `looped.theory.learning.learners.descent`.
"""

import functools
import itertools
import math
from collections import defaultdict
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from scipy.optimize import minimize
from torch import Tensor

from looped.theory.learning.wishart import Letter, canonical, expectation, product

Matrix = Float[Tensor, "dim dim"]
Samples = Float[Tensor, "samples dim dim"]
Deviations = Float[Tensor, " dim"]
CHUNK = 2**22  # normal numbers that are drawn at once


class Estimate(NamedTuple):
    """A mean of independent samples and its standard error."""

    mean: float
    error: float


class Curvature(NamedTuple):
    """loss(a I + b B) = loss(a I) + c b^2 + ... for B'B = I without trace; c depends on the symmetry of B only."""

    symmetric: Fraction
    skew: Fraction


def loss_coefficients(n: int, d: int, loops: int) -> list[Fraction]:
    """The loss of A = a I as a polynomial in a, from the constant term on."""
    return [Fraction((-1) ** j * math.comb(2 * loops, j) * product(n, d, j), n**j * d) for j in range(2 * loops + 1)]


def scaled_loss(step: Fraction | float, n: int, d: int, loops: int) -> Fraction:
    """The loss of A = `step` I, exactly."""
    return _polynomial(loss_coefficients(n, d, loops), Fraction(step))


def best_step(n: int, d: int, loops: int) -> float:
    """The a with the smallest loss of A = a I, to 1e-12. For one loop it is 1 / (1 + (d + 1) / n).

    E tr (I - a S)^2L is convex in a, so the zero of its derivative is found by bisection, in fractions.
    """
    slope = [j * c for j, c in enumerate(loss_coefficients(n, d, loops))][1:]
    low, high = Fraction(0), Fraction(1)
    assert _polynomial(slope, high) > 0  # E tr S (S - I)^(2L-1) is a sum over pairings without negative terms
    while high - low > Fraction(1, 2**41):
        middle = (low + high) / 2
        low, high = (middle, high) if _polynomial(slope, middle) < 0 else (low, middle)
    return float((low + high) / 2)


def curvature(step: Fraction | float, n: int, d: int, loops: int) -> Curvature:
    """The second derivative (halved) of the loss at A = `step` I, exactly. Needs d >= 2.

    The loss does not change if A is replaced by O'AO for an orthogonal O. At a multiple of I, its Hessian is therefore
    one number on each of the three invariant subspaces: multiples of I, traceless symmetric, and skew matrices. With
    p(s) = 1 - a s, and s and t for an S to the left and to the right of B, the second-order terms of
    E |(I - (aI + bB)'S)^L|^2 are

        sum_m p(s)^m p(t)^(2L-2-m) (w_m s^2 +- 2 max(L-1-m, 0) s t),    w_m = 1 + min(m, 2L-2-m),

    with + for a symmetric B. The expectation of tr B' S^i B S^j follows from moments (`_pair`).
    """
    a = Fraction(step)
    last = 2 * loops - 2
    found = []
    for sign in (1, -1):
        total = Fraction(0)
        for m in range(last + 1):
            twice, mixed = 1 + min(m, last - m), 2 * sign * max(loops - 1 - m, 0)
            for i, p in enumerate(_power(a, m)):
                for j, q in enumerate(_power(a, last - m)):
                    pairs = twice * _pair(n, d, i + 2, j, sign) + mixed * _pair(n, d, i + 1, j + 1, sign)
                    total += p * q * pairs
        found.append(total)
    return Curvature(*found)


@functools.cache
def _pair(n: int, d: int, i: int, j: int, sign: int) -> Fraction:
    """E tr (B' S^i B S^j) / d for B' = sign B, B'B = I, tr B = 0.

    By invariance E (S^i)_ab (S^j)_cd = x [a=b][c=d] + y ([a=c][b=d] + [a=d][b=c]). Two traces give x and y.
    """
    one = Fraction(product(n, d, i + j), n ** (i + j))
    two = Fraction(product(n, d, i, j), n ** (i + j))
    y = (d * one - two) / (d * (d - 1) * (d + 2))
    return (two - 2 * d * y) / d**2 + sign * y


def rotation_threshold(d: int, loops: int, most: int = 1000) -> int | None:
    """The smallest n at which a small rotation makes the best multiple of I better; None if it exceeds `most`."""
    return next((n for n in range(1, most + 1) if curvature(best_step(n, d, loops), n, d, loops).skew < 0), None)


def normal_loss(eigenvalues: Shaped[np.ndarray, "dim 2"], n: int, loops: int) -> Any:
    """The loss of a normal matrix A (A A' = A'A) with these eigenvalues, (d, 2) real and imaginary parts.

    Multiples of I, symmetric matrices and rotations are normal. The loss is a polynomial in the traces of A^p A'^q.
    Fractions as eigenvalues (dtype object) give an exact result. The time grows by 20 with each loop; 5 loops take 4 s.
    """
    factors, letters, places = _loss_terms(n, loops)
    traces = np.array([sum(_real_part(re, im, p, q) for re, im in eigenvalues) for p, q in letters] + [1])
    return (factors.astype(traces.dtype) * traces[places].prod(axis=1)).sum() / len(eigenvalues)


@functools.cache
def _loss_terms(n: int, loops: int) -> tuple[np.ndarray, list[Letter], np.ndarray]:
    """E |(I - A'S)^L|^2 = sum of factors * products of traces: factors, letters, places of each product's letters."""
    terms: dict[tuple[Letter, ...], Fraction] = defaultdict(Fraction)
    for p, q in itertools.product(range(loops + 1), repeat=2):
        factor = Fraction((-1) ** (p + q) * math.comb(loops, p) * math.comb(loops, q), n ** (p + q))
        # tr (A'W)^p (W A)^q
        both = ((1, 1), *((0, 1),) * (p - 1), (0, 0), *((1, 0),) * (q - 1))
        word = both if p and q else ((1, 0),) * (p + q)
        found = expectation(n, (canonical(word),)) if word else {((0, 0),): 1}
        for letters, value in found.items():
            terms[letters] += factor * value
    letters = sorted({letter for term in terms for letter in term})
    longest = max(map(len, terms))
    one = len(letters)  # the place of a factor 1
    places = [[letters.index(x) for x in term] + [one] * (longest - len(term)) for term in terms]
    return np.array(list(terms.values()), dtype=object), letters, np.array(places)


def best_normal(n: int, d: int, loops: int, planes: int, *, starts: int = 10, seed: int = 0) -> list[np.ndarray]:
    """Local minima of `normal_loss` with at most 2 `planes` eigenvalues that are not real, the best first.

    Each is found by BFGS from a random start; its eigenvalues (d, 2) stand in the order of their imaginary parts.
    """
    random = np.random.default_rng(seed)

    def eigenvalues(flat: np.ndarray) -> np.ndarray:
        pairs, real = flat[: 2 * planes].reshape(-1, 2), flat[2 * planes :]
        values = np.concatenate([pairs, pairs * [1, -1], np.stack([real, 0 * real], axis=1)])
        return values[np.lexsort((values[:, 0], values[:, 1]))]

    found = []
    for _ in range(starts):
        start = np.concatenate([random.uniform(0.2, 0.8, 2 * planes), random.uniform(0.2, 1, d - 2 * planes)])
        result = minimize(lambda flat: math.log(normal_loss(eigenvalues(flat), n, loops)), start)
        found.append((result.fun, eigenvalues(result.x)))
    return [values for _, values in sorted(found, key=lambda pair: pair[0])]


def best_preconditioner(covariance: Matrix, n: int) -> Matrix:
    """The best A of one loop for x ~ N(0, covariance) and true weights with the covariance I.

    The loss is a convex quadratic function of A, with E S^2 = (1 + 1/n) C^2 + tr(C) C / n for the covariance C. Its
    gradient is zero at A = ((1 + 1/n) C + tr(C) / n I)^-1.
    """
    one = torch.eye(len(covariance), dtype=covariance.dtype)
    return torch.linalg.inv((1 + 1 / n) * covariance + covariance.trace() / n * one)


def second_moments(
    n: int, d: int, samples: int, generator: torch.Generator, deviations: Deviations | None = None
) -> Samples:
    """Random S = X'X / n in float64, (samples, d, d), of points with these standard deviations; None is 1."""
    parts = []
    size = max(1, CHUNK // (n * d))
    for first in range(0, samples, size):
        x = torch.randn(min(size, samples - first), n, d, generator=generator, dtype=torch.float64)
        x = x if deviations is None else x * deviations
        parts.append(x.mT @ x / n)
    return torch.cat(parts)


def losses(step: Matrix, s: Samples, loops: int, deviations: Deviations | None = None) -> Float[Tensor, " samples"]:
    """|(I - A'S)^L|^2 / d for every S: the squared error at a query ~ N(0, I), over d.

    With `deviations`, D on a diagonal, the query is ~ N(0, D^2) like the points, and the error is |D (I - A'S)^L|^2.
    """
    left = torch.eye(len(step), dtype=step.dtype) - step.mT @ s
    power = left
    for _ in range(loops - 1):
        power = power @ left
    if deviations is not None:
        power = deviations[:, None] * power
    return power.square().sum((-2, -1)) / len(step)


def estimate(values: Float[Tensor, " samples"]) -> Estimate:
    return Estimate(values.mean().item(), values.std().item() / len(values) ** 0.5)


def rotation(d: int) -> Matrix:
    """J: a quarter turn in each of d // 2 planes. If d is odd, the last coordinate is mapped to zero."""
    turn = torch.zeros(d, d, dtype=torch.float64)
    for i in range(0, d - 1, 2):
        turn[i + 1, i], turn[i, i + 1] = 1, -1
    return turn


def fit_rotation(s: Samples, loops: int, start: tuple[float, float]) -> tuple[float, float]:
    """The a and b with the smallest mean loss of aI + bJ for these S, by L-BFGS."""
    one, turn = torch.eye(s.shape[-1], dtype=torch.float64), rotation(s.shape[-1])
    ab = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([ab], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = losses(ab[0] * one + ab[1] * turn, s, loops).mean().log()
        value.backward()
        return value

    optimiser.step(closure)
    a, b = ab.tolist()
    return a, b


def train(
    n: int, d: int, loops: int, *, symmetric: bool, steps: int, seed: int, batch: int = 1024,
    deviations: Deviations | None = None,
) -> Matrix:  # fmt: skip
    """A after Adam on the population loss, with new examples in every step. The start is 0.5 I plus noise.

    `deviations` are the standard deviations of the points' coordinates; None is 1.
    With `symmetric`, the symmetric part of the parameter is A. The gradient is that of log loss, whose size does not
    fall with the loss. The learning rate falls to 0 as a half cosine.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(d, d, generator=generator, dtype=torch.float64)
    parameter = (torch.eye(d, dtype=torch.float64) / 2 + 0.05 * noise).requires_grad_()
    optimiser = torch.optim.Adam([parameter], lr=0.01, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        a = (parameter + parameter.mT) / 2 if symmetric else parameter
        optimiser.zero_grad()
        losses(a, second_moments(n, d, batch, generator, deviations), loops, deviations).mean().log().backward()
        optimiser.step()
        schedule.step()
    return ((parameter + parameter.mT) / 2 if symmetric else parameter).detach()


def _polynomial(coefficients: list[Fraction], at: Fraction) -> Fraction:
    return functools.reduce(lambda total, c: total * at + c, reversed(coefficients), Fraction(0))


def _power(a: Fraction, exponent: int) -> list[Fraction]:
    """The coefficients of (1 - a s)^exponent."""
    return [math.comb(exponent, j) * (-a) ** j for j in range(exponent + 1)]


def _real_part(re: Any, im: Any, p: int, q: int) -> Any:
    """The real part of z^p z*^q for z = re + i im, in the arithmetic of its parts."""
    if p == q == 0:
        return 1 + 0 * re
    square = re * re + im * im
    power_re, power_im = square ** min(p, q), 0 * im
    for _ in range(abs(p - q)):
        power_re, power_im = power_re * re - power_im * im, power_re * im + power_im * re
    return power_re
