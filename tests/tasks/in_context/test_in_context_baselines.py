"""Errors by number of points in context: the model's against scores, the baselines against other computations."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from looped.config import ModelConfig
from looped.evaluation.scores import predictor
from looped.models import LoopedTransformer
from looped.tasks.in_context import InContext, InContextConfig
from looped.tasks.in_context import baselines as in_context
from looped.tasks.in_context.baselines import SLOW, baselines, context_counts, predictions
from looped.tasks.in_context.prompts import PromptTask
from looped.tasks.tables import Tables, TablesConfig

DIM, POINTS = 3, 12
TASK = InContext(InContextConfig(function="noisy_linear", dim=DIM, points=POINTS))
BATCH = TASK.batch("test", 0, 8, seed=0, group="standard")


@pytest.fixture(scope="module", autouse=True)
def _few_slow_prompts() -> Iterator[None]:
    """Boosted trees take 60 ms a prompt, and these tests look at few of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_context, "SLOW_PROMPTS", 4)
        yield


@pytest.fixture(scope="module")
def rows(_few_slow_prompts: None) -> list[dict[str, Any]]:
    return rows_of(model_for(TASK), TASK, [1, 4])


def model_for(task: PromptTask) -> LoopedTransformer:
    sizes = {f.name: getattr(task.spec, f.name) for f in dataclasses.fields(task.spec)}
    model = LoopedTransformer(ModelConfig(d_model=16, num_heads=2, num_loops=3, **sizes))
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return model


def rows_of(model: LoopedTransformer, task: PromptTask, loops: list[int]) -> list[dict[str, Any]]:
    """The rows that an evaluation writes, by way of the task's own hook."""
    extra = task.extra_evaluation(predictor(model), loops=loops, split="test", group=task.groups[0], seed=0)
    return list(extra["in_context.jsonl"])


def by_hand(solve: Any, points: int) -> list[float]:
    """`solve(x, y, query)` for each prompt of the batch."""
    x, y = BATCH.inputs[:, ::2].double().numpy(), BATCH.targets[:, ::2].double().numpy()
    return [float(solve(a[:points], b[:points], a[points])) for a, b in zip(x, y, strict=True)]


def lasso(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
    """Proximal gradient descent on |y - x w|^2 / 2n + 0.1 |w|_1."""
    w, step = np.zeros(x.shape[1]), 1 / np.linalg.norm(x.T @ x / len(x), 2)
    for _ in range(20_000):
        w = w - step * x.T @ (x @ w - y) / len(x)
        w = np.sign(w) * np.maximum(abs(w) - step * 0.1, 0)
    return float(query @ w)


def nearest(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
    return float(np.mean([y[i] for i in sorted(range(len(x)), key=lambda i: sum((x[i] - query) ** 2))[:3]]))


@pytest.mark.parametrize(
    ("method", "solve"),
    [
        ("zero", lambda x, y, query: 0),
        ("least squares", lambda x, y, query: query @ np.linalg.lstsq(x, y)[0]),
        ("ridge", lambda x, y, query: query @ np.linalg.solve(x.T @ x + np.eye(DIM), x.T @ y)),
        ("lasso", lasso),
        ("nearest neighbours", nearest),
    ],
)
@pytest.mark.parametrize("points", [2, 9])
def test_baselines_equal_other_computations(method, solve, points):
    expected = by_hand(solve, points)
    assert method == "zero" or np.std(expected) > 0.1
    assert predictions(baselines()[method], BATCH, points).tolist() == pytest.approx(expected, abs=2e-3)


def test_trees_repeat_what_they_saw_and_learn_a_step():
    x = np.linspace(-1, 1, 11)[:, None]
    y = np.where(x[:, 0] > 0, 2.0, -1.0)
    for method in ("decision tree", SLOW):
        fitted = baselines()[method](x, y)
        assert fitted.predict([[-0.5], [0.7]]).tolist() == pytest.approx([-1, 2], abs=1e-3)


def test_rows_of_the_model_are_its_errors(rows):
    model = model_for(TASK)
    rows = [row for row in rows if row["method"] == "model"]
    assert [(row["num_loops"], row["points"]) for row in rows] == [(n, k) for n in (1, 4) for k in range(POINTS)]
    batch = TASK.batch("test", 0, 256, seed=0, group="standard")
    for loops in (1, 4):
        predicted = model(batch.inputs, num_loops=loops).logits[:, ::2, 0]
        expected = ((predicted - batch.targets[:, ::2]) ** 2).double().mean(0)
        mine = [row for row in rows if row["num_loops"] == loops]
        assert [row["value"] for row in mine] == pytest.approx(expected.tolist(), rel=1e-4)
        assert all(0 <= row["low"] < row["value"] < row["high"] and row["n"] == 256 for row in mine)
    assert rows[0]["value"] != rows[POINTS]["value"], "loops must matter"


def test_rows_of_the_baselines_are_theirs_on_the_same_prompts(rows):
    rows = [row for row in rows if row["method"] != "model"]
    assert {row["method"] for row in rows} == set(baselines())
    assert {row["points"] for row in rows} == set(context_counts(POINTS)) == {1, 2, 5, 10, 11}
    batch = TASK.batch("test", 0, 256, seed=0, group="standard")
    (zero,) = [row for row in rows if row["method"] == "zero" and row["points"] == 11]
    assert zero["value"] == pytest.approx(float((batch.targets[:, 22] ** 2).mean()), rel=1e-5)
    last = {row["method"]: row["value"] for row in rows if row["points"] == 11}
    assert last["least squares"] < 0.1 < last["nearest neighbours"] < last["zero"]
    assert {row["n"] for row in rows if row["method"] == SLOW} == {4}
    (boosted,) = [row for row in rows if row["method"] == SLOW and row["points"] == 11]
    first = batch.map(lambda tensor: tensor[:4])
    by_hand = predictions(baselines()[SLOW], first, 11) - first.targets[:, 22]
    assert boosted["value"] == pytest.approx(float((by_hand**2).mean()))


def test_classes_are_scored_by_accuracy():
    task = Tables(TablesConfig(points=12))
    rows = rows_of(model_for(task), task, [2])
    assert {(row["metric"], row["group"]) for row in rows} == {("accuracy", "wine")}
    last = {row["method"]: row["value"] for row in rows if row["points"] == 11}
    assert last["zero"] == 0, "zero has no sign"
    assert last["nearest neighbours"] > 0.85
    assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 for row in rows)
