"""Function classes against slow, independent ones, their distributions, and the curriculum."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from looped.tasks.in_context import InContext, InContextConfig
from looped.tasks.in_context import task as in_context
from looped.tasks.in_context.task import skew

FUNCTIONS = ("linear", "noisy_linear", "sparse_linear", "decision_tree", "relu")


def make(function: Any = "linear", **settings) -> InContext:
    return InContext(InContextConfig(function=function, **settings))


def draw(task: InContext, size: int, group: str | None = None, seed: int = 0):
    prompts = task.sample("test", size, np.random.default_rng(seed), group)
    return np.stack([p.x for p in prompts]).astype(float), np.stack([p.y for p in prompts]).astype(float)


class Recorded(np.random.Generator):
    """A generator that keeps what it drew, so that a test knows the weights of the functions."""

    def __init__(self, seed: int):
        super().__init__(np.random.PCG64(seed))
        self.drawn: list[np.ndarray] = []

    def keep(self, values: np.ndarray) -> np.ndarray:
        self.drawn.append(values)
        return values

    def integers(self, *args: Any, **kwargs: Any) -> Any:
        return self.keep(super().integers(*args, **kwargs))

    def standard_normal(self, *args: Any, **kwargs: Any) -> Any:
        return self.keep(super().standard_normal(*args, **kwargs))


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_trees_equal_a_walk_from_the_root(seed, dim):
    x = np.random.default_rng(seed).standard_normal((3, 8, 6)).astype(np.float32)
    rng = Recorded(seed)
    y = in_context.decision_tree(x, dim, rng)
    coordinates, leaves = rng.drawn
    assert coordinates.shape == (3, 15)
    assert coordinates.max() < dim
    assert leaves.shape == (3, 16)
    for b in range(3):
        for i in range(8):
            path = []  # one bit a level, the first split being the highest
            for _ in range(4):
                level, index = len(path), int("".join(map(str, [0, *path])), 2)
                node = 2**level - 1 + index
                path.append(int(x[b, i, coordinates[b, node]] > 0))
            assert y[b, i] == leaves[b, int("".join(map(str, path)), 2)]


@given(st.integers(0, 10**6))
def test_networks_equal_a_sum_over_hidden_units(seed):
    x = np.random.default_rng(seed).standard_normal((2, 3, 4)).astype(np.float32)
    rng = Recorded(seed)
    y = in_context.relu(x, 4, rng)
    first, second = rng.drawn
    assert first.shape == (2, 4, 100)
    for b in range(2):
        for i in range(3):
            units = [max(0.0, sum(x[b, i, c] * first[b, c, h] for c in range(4))) for h in range(100)]
            expected = (2 / 100) ** 0.5 * sum(u * second[b, h, 0] for h, u in enumerate(units))
            assert y[b, i] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("function", "nonzero"), [("linear", 6), ("sparse_linear", 3)])
def test_linear_functions_are_solved_by_their_weights(function, nonzero):
    x, y = draw(make(function, dim=6, points=9), 50)
    for points, values in zip(x, y, strict=True):
        weights = np.linalg.lstsq(points[:6], values[:6])[0]
        np.testing.assert_allclose(points[6:] @ weights, values[6:], atol=1e-3)
        assert (abs(weights) > 1e-3).sum() == pytest.approx(nonzero, abs=nonzero == 6)


def test_the_noise_of_noisy_functions_is_a_tenth():
    x, y = draw(make("noisy_linear", dim=2, points=60), 300)
    rest = [v - p @ np.linalg.lstsq(p, v)[0] for p, v in zip(x, y, strict=True)]
    assert np.std(rest) * (60 / 58) ** 0.5 == pytest.approx(0.1, rel=0.03)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_points_are_standard_normal_and_values_have_the_stated_variance(function):
    x, y = draw(make(function, points=10), 3000)
    assert abs(x.mean()) < 0.01
    np.testing.assert_allclose(np.cov(x.reshape(-1, 20).T), np.eye(20), atol=0.04)
    # Of linear functions as many as have weights; of networks 2 / 100 * 100 * 20 / 2; of trees that of a leaf.
    expected = {"linear": 20, "noisy_linear": 20.01, "sparse_linear": 3, "decision_tree": 1, "relu": 20}[function]
    assert abs(y.mean()) < 0.1 * expected**0.5
    assert y.var() == pytest.approx(expected, rel=0.08)


def test_trees_use_all_coordinates_equally():
    rng = Recorded(0)
    in_context.decision_tree(np.zeros((4000, 1, 20), np.float32), 20, rng)
    counts = np.bincount(rng.drawn[0].ravel(), minlength=20)
    np.testing.assert_allclose(counts / counts.sum(), 1 / 20, rtol=0.08)


# Shifts


def test_skewed_points_have_the_stated_spectrum_in_a_random_basis():
    matrices = skew(50, 8, np.random.default_rng(0)).astype(float)
    expected = 1 / np.arange(1, 9) ** 2
    for a in matrices:
        np.testing.assert_allclose(np.linalg.eigvalsh(a.T @ a)[::-1], 8 * expected / expected.sum(), rtol=1e-4)
    mean = (matrices.transpose(0, 2, 1) @ matrices).mean(0)
    np.testing.assert_allclose(mean, np.eye(8), atol=0.6)  # no direction is preferred
    x, _ = draw(make(dim=8, points=4), 2000, "skewed")
    assert (x**2).sum(-1).mean() == pytest.approx(8, rel=0.05)
    assert np.linalg.norm(x[:, 0], axis=1).std() > 1.5 * np.linalg.norm(draw(make(dim=8), 2000)[0][:, 0], axis=1).std()


def test_scaled_points_are_three_times_as_large_and_the_function_follows():
    x, y = draw(make(), 2000, "scaled")
    assert x.std() == pytest.approx(3, rel=0.01)
    assert y.var() == pytest.approx(9 * 20, rel=0.1)
    _, y = draw(make("decision_tree"), 2000, "scaled")
    assert y.var() == pytest.approx(1, rel=0.1)


def test_noise_is_added_to_every_value():
    _, y = draw(make("decision_tree", points=3), 30_000, "noise")
    np.testing.assert_allclose(y.var(0), 2, rtol=0.05)
    x, y = draw(make("linear", dim=2, points=60), 300, "noise")
    rest = [v - p @ np.linalg.lstsq(p, v)[0] for p, v in zip(x, y, strict=True)]
    assert np.std(rest) * (60 / 58) ** 0.5 == pytest.approx(1, rel=0.03)


def test_unknown_group():
    with pytest.raises(ValueError, match="group='standart': expected one of standard, noise, skewed, scaled"):
        make().batch("test", 0, 2, seed=0, group="standart")


# Encoding and scores


def test_prompts_interleave_points_and_values():
    batch = make(dim=3, points=4).batch("test", 0, 5, seed=0)
    assert batch.inputs.shape == (5, 8, 3)
    assert batch.mask[0].tolist() == [True, False] * 4
    torch.testing.assert_close(batch.inputs[:, 1::2, 0], batch.targets[:, ::2])
    assert (batch.inputs[:, 1::2, 1:] == 0).all()
    assert batch.inputs[:, ::2].std() > 0.5
    assert batch.attention_mask.all()


def test_scores_by_hand():
    task = make(dim=4, points=2)
    batch = task.batch("test", 0, 3, seed=0)
    logits = batch.targets[..., None].clone()
    logits[:, 0] += 1
    logits[:, 2] += torch.tensor([[0.0], [2.0], [3.0]])
    logits[:, 1::2] = 100  # outputs at values do not count
    scores = {name: values.tolist() for name, values in task.score(batch, logits).items()}
    assert scores["squared_error"] == pytest.approx([0, 4, 9], abs=1e-4)
    assert scores["squared_error_mean"] == pytest.approx([0.5, 2.5, 5], abs=1e-4)
    assert scores["squared_error_per_dim"] == pytest.approx([0, 1, 2.25], abs=1e-4)
    assert scores["squared_error_mean_per_dim"] == pytest.approx([0.125, 0.625, 1.25], abs=1e-4)


# Curriculum


@given(st.data())
def test_sizes_grow_to_the_full_ones(data):
    start, dim = sorted(data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20))))
    first, points = sorted(data.draw(st.tuples(st.integers(2, 40), st.integers(2, 40))))
    every, added = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 3))
    task = make(
        dim=dim, start_dim=start, dim_every=every, dim_step=added,
        points=points, start_points=first, points_every=7, points_step=2,
    )  # fmt: skip
    now = start, first
    for step in range(120):
        if step and step % every == 0:
            now = min(dim, now[0] + added), now[1]
        if step and step % 7 == 0:
            now = now[0], min(points, now[1] + 2)
        assert task.sizes_at(step) == now


def test_the_published_curriculum_is_full_at_step_75000():
    task = make(start_dim=5, dim_every=5000, start_points=26, points_step=5, points_every=5000)
    assert [task.sizes_at(step) for step in (0, 4999, 5000, 74_999, 75_000, 10**6)] == [
        (5, 26), (5, 26), (6, 31), (19, 96), (20, 101), (20, 101),
    ]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS)
def test_only_training_follows_the_curriculum(function):
    task = make(function, dim=8, points=9, start_dim=3, dim_every=10, start_points=4, points_every=10)
    batch = task.batch("train", 0, 64, seed=0)
    assert batch.inputs.shape == (64, 8, 8)
    assert (batch.inputs[:, ::2, 3:] == 0).all()
    assert (batch.inputs[:, ::2, :3] != 0).any(0).all()
    assert task.batch("train", 60, 64, seed=0).inputs.shape == (64, 18, 8)
    for split in ("validation", "test"):
        whole = task.batch(split, 0, 64, seed=0)
        assert whole.inputs.shape == (64, 18, 8)
        assert (whole.inputs[:, ::2] != 0).all()


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_in_use_coordinates_decide_the_corrected_functions_only(step):
    small = {"dim": 10, "points": 3, "start_dim": 1, "dim_every": 10_000}
    corrected = make("sparse_linear", **small).batch("train", step, 64, seed=1)
    published = make("sparse_linear", truncation="published", **small).batch("train", step, 64, seed=1)
    assert (corrected.targets != 0).any(1).all()  # of a prompt; one float32 draw in millions is exactly zero
    zero = (published.targets[:, ::2] == 0).all(1).float().mean()
    assert 0.4 < zero < 0.95  # 7 of 10 choices of 3 coordinates leave out the first


def test_published_trees_ignore_the_coordinates_in_use():
    small = {"dim": 6, "points": 30, "start_dim": 1, "dim_every": 10}
    assert (
        make("decision_tree", truncation="published", **small).batch("train", 0, 9, seed=0).inputs[:, ::2] != 0
    ).all()
    corrected = make("decision_tree", **small).batch("train", 0, 9, seed=0)
    for x, y in zip(corrected.inputs[:, ::2, 0], corrected.targets[:, ::2], strict=True):
        assert len(set(y[x > 0].tolist())) == len(set(y[x < 0].tolist())) == 1  # every split is on coordinate 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": 1}, "points=1: expected at least 2"),
        ({"start_dim": 21, "dim_every": 1}, "start_dim=21: expected at most dim=20"),
        ({"start_points": 5}, "points_every=None: expected a number of steps with start_points=5"),
        ({"dim_every": 5}, "dim_every=5: has no effect when start_dim=None"),
        ({"truncation": "published"}, "truncation='published': has no effect when start_dim=None"),
        (
            {"truncation": "published", "start_dim": 5, "dim_every": 5, "function": "relu"},
            "truncation='published': has no effect when function='relu'",
        ),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(InContextConfig(), **changes)
