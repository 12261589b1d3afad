"""The learned step matrix beside constructed algorithms: points of unequal deviations, and the stored table."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import in_context_algorithms as benchmark
from looped.tasks.in_context.algorithms import descent
from looped.theory.learning.regression import best_preconditioner, losses, second_moments, train

RESULTS = Path(__file__).resolve().parents[1] / "results/in-context-algorithms"
DEVIATIONS = torch.tensor([1.6, 1.0, 0.8], dtype=torch.float64)


@pytest.mark.parametrize("loops", [1, 3])
def test_the_loss_is_the_error_of_descent_at_queries_like_the_points(loops: int) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(50, 12, 3)) * DEVIATIONS.numpy()
    step = np.diag([0.2, 0.7, 1.0]) + 0.1 * random.normal(size=(3, 3))
    s = torch.from_numpy(x.swapaxes(1, 2) @ x / 12)
    found = losses(torch.from_numpy(step), s, loops, DEVIATIONS)
    # E (q'e)^2 over q ~ N(0, D^2) is |D e|^2, and true weights ~ N(0, I) sum over the unit vectors.
    rest = [w - descent(x, x @ w, loops, step) for w in np.eye(3)]
    expected = np.sum([(DEVIATIONS.numpy() * e) ** 2 for e in rest], (0, 2)) / 3
    assert found.numpy() == pytest.approx(expected, rel=1e-12)


def test_second_moments_have_the_deviations_of_the_points() -> None:
    s = second_moments(10, 3, 20_000, torch.Generator().manual_seed(0), DEVIATIONS)
    assert s.mean(0).numpy() == pytest.approx(np.diag(DEVIATIONS.numpy() ** 2), abs=0.03)


def test_training_finds_the_best_preconditioner_of_one_loop() -> None:
    learned = train(20, 3, 1, symmetric=False, steps=250, seed=0, batch=128, deviations=DEVIATIONS)
    best = best_preconditioner(torch.diag(DEVIATIONS**2), 20)
    assert torch.linalg.norm(learned - best) < 0.06 * torch.linalg.norm(best)


def test_every_method_gets_the_same_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "PROMPTS", 2048)
    row = benchmark.measure("anisotropic", 2, seeds=(0,), steps=200)
    (learned,) = row["learned"]
    errors = {name: error["mean"] for name, error in row["errors"].items()}
    assert learned["loops"]["mean"] < errors["preconditioned"] < errors["descent"] < errors["newton"]
    assert learned["circuit_difference"] < 1e-10
    assert 0 < learned["prediction_difference"]["preconditioned"] < learned["prediction_difference"]["newton"]


def test_the_notes_have_the_stored_table() -> None:
    rows = json.loads((RESULTS / "results.json").read_text())["rows"]
    assert benchmark.table(rows) in (RESULTS / "notes.md").read_text()
