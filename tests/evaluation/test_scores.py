"""Evaluation against the plain way: one forward pass per loop count, one example at a time."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looped.config import ModelConfig
from looped.evaluation.answers import solve
from looped.evaluation.scores import evaluate, loop_logits, visualisations
from looped.intervals import interval
from looped.models import LoopedTransformer
from looped.runs import default_loops
from looped.tasks import TASKS
from looped.tasks.edit_distance import EditDistanceConfig
from looped.tasks.sudoku import SudokuConfig


def make(task_config, **options):
    task = TASKS[task_config.name](task_config)
    sizes = {f.name: getattr(task.spec, f.name) for f in dataclasses.fields(task.spec)}
    sizes.pop("input_dim")
    config = ModelConfig(d_model=16, num_heads=2, num_loops=3, **sizes, **options)
    model = LoopedTransformer(config)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return task, model


STRINGS = EditDistanceConfig(length=5, eval_lengths=(7,), min_letters=3, max_letters=3)


@pytest.mark.parametrize("timestep", ["index", "fraction"])
def test_rows_equal_separate_passes(timestep):
    task, model = make(STRINGS, modulation="scale_gate", timestep=timestep, gate_offset=1)
    rows = evaluate(model, task, loops=[1, 2, 5], examples=150)
    assert {(r["group"], r["num_loops"]) for r in rows} == {(g, n) for g in ("5", "7") for n in (1, 2, 5)}
    for row in rows:
        batch = task.batch("test", 0, 150, seed=0, group=row["group"])
        logits = model(batch.inputs, attention_mask=batch.attention_mask, num_loops=row["num_loops"]).logits
        right = (logits.argmax(-1) == batch.targets)[batch.mask]
        assert row["value"] == pytest.approx(right.double().mean().item(), abs=0.014)  # a near tie may flip
        assert row["low"] <= row["value"] <= row["high"]
        assert row["n"] == 150
        assert row["trained_loops"] == 3
    assert len({tuple(r["value"] for r in rows if r["num_loops"] == n) for n in (1, 2, 5)}) > 1, "loops must matter"


def test_sudoku_examples_are_not_repeated():
    task, model = make(SudokuConfig(box=2, pool=300))
    rows = [r for r in evaluate(model, task, loops=[2], examples=100_000) if r["metric"] == "board"]
    assert {r["group"] for r in rows} == set(task.groups)
    available = task.available("test")
    assert available
    assert sum(r["n"] for r in rows) == available


def test_solutions_and_visualisations_are_the_models():
    task, model = make(STRINGS)
    problems = task.sample("test", 5, task.rng("test", 0, 0))
    answers = list(solve(model, task, problems, num_loops=4))
    logits = loop_logits(model, task.encode(problems), [4])[0]
    assert [a for _, a in answers] == [task.answer(p, row) for p, row in zip(problems, logits, strict=True)]
    drawn = visualisations(model, task, loops=4, count=3)
    assert [len(p["loops"]) for p in drawn] == [4, 4, 4]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize(
    ("loops", "message"),
    [([], "loops"), ([2, 2], "different loop counts"), ([0, 1], "1 to 1,000,000"), ([1, 10**9], "1 to 1,000,000")],
)
def test_bad_loops(loops, message):
    task, model = make(STRINGS)
    with pytest.raises(ValueError, match=message):
        evaluate(model, task, loops=loops, examples=4)
    assert evaluate(model, task, loops=[3, 1], examples=4) == evaluate(model, task, loops=[1, 3], examples=4)


def test_the_default_loops_are_few():
    for trained in (1, 8, 100, 10**6, 10**12):
        counts = default_loops(trained)
        assert len(counts) <= 40
        assert {1, trained, max(2 * trained, 8)} <= set(counts)


def test_loops_beyond_the_table():
    task, model = make(STRINGS, modulation="table", max_loops=3)
    with pytest.raises(ValueError, match="1 to 3, for which the model has weights"):
        evaluate(model, task, loops=[4], examples=4)


@given(st.integers(1, 400), st.data())
def test_wilson_interval(n, data):
    k = data.draw(st.integers(0, n))
    mean, low, high = interval(torch.tensor([1.0] * k + [0.0] * (n - k)))
    assert mean == pytest.approx(k / n)
    assert 0 <= low <= mean <= high <= 1
    for end in (low, high):  # the ends solve (p - mean)^2 = z^2 p (1 - p) / n
        if 0 < end < 1 and end != mean:
            assert abs(end - mean) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), rel=1e-6)


def test_interval_of_fractions():
    mean, low, high = interval(torch.tensor([0.2, 0.4, 0.6, 0.8]))
    assert (mean, high - mean) == (pytest.approx(0.5), pytest.approx(mean - low))
    assert interval(torch.tensor([0.5]))[1:] == (0.0, 1.0)
    with pytest.raises(ValueError, match="no examples"):
        interval(torch.tensor([]))
