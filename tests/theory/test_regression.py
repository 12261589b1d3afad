"""The exact loss of a step matrix against pairings, closed formulas and random data; rotations beat the best step."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from looped.theory.learning import regression
from looped.theory.learning.wishart import expectation, product

TURN = regression.rotation(4)
ONE = torch.eye(4, dtype=torch.float64)


def pairings(items: list[int]):
    if not items:
        yield []
        return
    first, *rest = items
    for i, other in enumerate(rest):
        for others in pairings(rest[:i] + rest[i + 1 :]):
            yield [(first, other), *others]


def components(size: int, edges: list[tuple[int, int]]) -> int:
    group = list(range(size))
    for a, b in edges:
        group = [group[a] if g == group[b] else g for g in group]
    return len(set(group))


def by_pairings(n: int, d: int, j: int) -> int:
    """E tr (X'X)^j: factor 2i is X' with sample i and coordinate i; factor 2i+1 is X with sample i, coordinate i+1."""
    total = 0
    for pairing in pairings(list(range(2 * j))):
        samples = [(a // 2, b // 2) for a, b in pairing]
        coordinates = [((a + a % 2) // 2 % j, (b + b % 2) // 2 % j) for a, b in pairing]
        total += n ** components(j, samples) * d ** components(j, coordinates)
    return total


def test_wishart_moments_equal_the_sum_over_pairings_and_closed_formulas():
    for n, d in ((1, 1), (3, 2), (2, 5), (20, 5)):
        assert product(n, d, 1) == n * d
        assert product(n, d, 2) == n * d * (n + d + 1)
        assert product(n, d, 3) == n * d * (n * n + d * d + 3 * n * d + 3 * n + 3 * d + 4)
        assert [product(n, d, j) for j in range(1, 6)] == [by_pairings(n, d, j) for j in range(1, 6)]
        # tr W is a chi-squared number with n d degrees of freedom.
        assert product(n, d, 1, 1, 1) == n * d * (n * d + 2) * (n * d + 4)


def test_words_of_the_identity_are_moments():
    for j in range(1, 5):
        found = expectation(7, (((0, 0),) * j,))
        assert sum(value * 3 ** len(letters) for letters, value in found.items()) == product(7, 3, j)


def test_best_steps():
    wanted = {
        (10, 5): ((0.6250, 0.5891, 0.5545), (0.3750, 0.2361, 0.1742)),
        (20, 5): ((0.7692, 0.7425, 0.7156), (0.2308, 0.0998, 0.0537)),
        (40, 5): ((0.8696, 0.8526, 0.8351), (0.1304, 0.0344, 0.0118)),
        (100, 10): ((0.9009, 0.8945, 0.8881), (0.0991, 0.0195, 0.0049)),
    }
    for (n, d), (steps, values) in wanted.items():
        found = [regression.best_step(n, d, loops) for loops in (1, 2, 3)]
        assert found[0] == pytest.approx(1 / (1 + (d + 1) / n), abs=1e-11)
        assert found == pytest.approx(steps, abs=5e-5)
        losses = [float(regression.scaled_loss(a, n, d, loops)) for loops, a in enumerate(found, start=1)]
        assert losses == pytest.approx(values, abs=5e-5)


def test_exact_losses_equal_means_over_random_data():
    s = regression.second_moments(20, 4, 20_000, torch.Generator().manual_seed(0))
    normal = 0.7 * ONE + 0.3 * TURN
    normal[2:, 2:] = torch.tensor([[0.9, 0.0], [0.0, 0.5]])
    for loops in (1, 2, 3):
        mean, error = regression.estimate(regression.losses(0.8 * ONE, s, loops))
        assert abs(mean - float(regression.scaled_loss(0.8, 20, 4, loops))) < 4 * error
        mean, error = regression.estimate(regression.losses(normal, s, loops))
        exact = regression.normal_loss(np.array([[0.7, 0.3], [0.7, -0.3], [0.9, 0], [0.5, 0]]), 20, loops)
        assert abs(mean - exact) < 4 * error < 0.2 * exact


def eigenvalues(a: Fraction, real: Fraction, imaginary: Fraction) -> np.ndarray:
    """Of a I + real * diag(1, -1, 1, -1) + imaginary * J in four dimensions."""
    return np.array([(a + sign * real, sign * imaginary) for sign in (1, -1, 1, -1)], dtype=object)


def test_the_exact_loss_of_a_normal_matrix_agrees_with_the_polynomial_and_the_curvature():
    small = Fraction(1, 10**5)
    for n, loops in ((5, 1), (5, 2), (40, 3)):
        a = Fraction(7, 10)
        at = regression.scaled_loss(a, n, 4, loops)
        zero = Fraction(0)
        assert regression.normal_loss(eigenvalues(a, zero, zero), n, loops) == at
        bend = regression.curvature(a, n, 4, loops)
        symmetric = (regression.normal_loss(eigenvalues(a, small, zero), n, loops) - at) / small**2
        skew = (regression.normal_loss(eigenvalues(a, zero, small), n, loops) - at) / small**2
        assert float(symmetric) == pytest.approx(float(bend.symmetric), rel=1e-4)
        assert float(skew) == pytest.approx(float(bend.skew), rel=1e-4)


def test_a_rotation_beats_the_best_step_exactly_and_on_paired_random_data():
    # Below these n, a small rotation raises the loss; for one loop, which is convex in A, it always does.
    for loops, threshold in ((2, 25), (3, 22), (4, 12)):
        signs = [regression.curvature(regression.best_step(n, 4, loops), n, 4, loops).skew < 0
                 for n in (threshold - 1, threshold)]  # fmt: skip
        assert signs == [False, True]
    assert regression.rotation_threshold(2, 4) == 9
    assert regression.rotation_threshold(2, 1, most=20) is None
    # A rotation of one plane, exactly.
    one_plane = np.array(
        [[Fraction(87, 100), Fraction(sign * 3, 10)] for sign in (1, -1)] + [[Fraction(85, 100), 0]] * 2
    )
    a = regression.best_step(40, 4, 3)
    assert regression.normal_loss(one_plane, 40, 3) < Fraction(94, 100) * regression.scaled_loss(a, 40, 4, 3)
    a = regression.best_step(40, 4, 4)
    s = regression.second_moments(40, 4, 20_000, torch.Generator().manual_seed(1))
    rotated = regression.losses(6 / 7 * ONE + 0.3 * TURN, s, 4)
    gain = regression.estimate(regression.losses(a * ONE, s, 4) - rotated)
    assert gain.mean > 10 * gain.error
    # For two loops and many examples the gain is 2 b^2 / n.
    n = 10**6
    assert n * float(regression.curvature(regression.best_step(n, 3, 2), n, 3, 2).skew) == pytest.approx(-2, rel=1e-4)


def test_the_best_symmetric_matrix_is_a_multiple_of_the_identity_and_the_best_normal_one_is_not():
    step = regression.best_step(40, 4, 3)
    for values in regression.best_normal(40, 4, 3, planes=0, starts=2):
        assert values == pytest.approx(np.array([[step, 0]] * 4), abs=1e-4)
    one_plane = regression.best_normal(40, 4, 3, planes=1, starts=1)[0]
    loss = regression.normal_loss(one_plane, 40, 3)
    assert loss < 0.95 * regression.scaled_loss(step, 40, 4, 3)
    assert loss < regression.normal_loss(eigenvalues(Fraction(87, 100), Fraction(0), Fraction(1, 4)), 40, 3)


def test_in_the_plane_a_rotation_solves_all_problems_of_two_eigenvalues_in_two_loops():
    a, b = Fraction(2, 5), Fraction(3, 10)  # for the eigenvalues 1 and 4
    step = np.array([[a, -b], [b, a]])
    for cosine, sine in (
        (Fraction(1), Fraction(0)),
        (Fraction(3, 5), Fraction(4, 5)),
        (Fraction(5, 13), Fraction(12, 13)),
    ):
        turn = np.array([[cosine, -sine], [sine, cosine]])
        s = turn @ np.diag(np.array([Fraction(1), Fraction(4)])) @ turn.T
        left = np.eye(2, dtype=int) - step.T @ s
        assert (left @ left == 0).all()
        assert (left != 0).any()


def test_the_best_preconditioner_of_one_loop():
    root = torch.tensor([[1.5, 0.0, 0.0], [0.4, 1.0, 0.0], [-0.3, 0.5, 0.4]], dtype=torch.float64)
    covariance, n = root @ root.mT, 8
    s = root @ regression.second_moments(n, 3, 100_000, torch.Generator().manual_seed(0)) @ root.mT

    def gradient(step: torch.Tensor) -> torch.Tensor:
        step = step.clone().requires_grad_()
        error = torch.linalg.cholesky(covariance).mT @ (torch.eye(3, dtype=torch.float64) - step.mT @ s)
        error.square().sum((-2, -1)).mean().backward()
        assert step.grad is not None
        return step.grad

    best = regression.best_preconditioner(covariance, n)
    assert gradient(best).norm() < 0.02 * gradient(torch.linalg.inv(covariance)).norm()
    isotropic = regression.best_preconditioner(torch.eye(5, dtype=torch.float64), 20)
    assert isotropic[0, 0].item() == pytest.approx(regression.best_step(20, 5, 1))


def test_training_finds_the_rotation():
    learned = regression.train(40, 2, 3, symmetric=False, steps=300, seed=0, batch=256)
    (wanted, *_) = regression.best_normal(40, 2, 3, planes=1, starts=2)
    assert wanted[-1, 1] > 0.2
    assert learned[0, 0].item() == pytest.approx(wanted[-1, 0], abs=0.03)
    assert (learned[0, 1] - learned[1, 0]).abs().item() / 2 == pytest.approx(wanted[-1, 1], abs=0.05)
    symmetric = regression.train(40, 2, 2, symmetric=True, steps=20, seed=0, batch=256)
    assert torch.equal(symmetric, symmetric.mT)
