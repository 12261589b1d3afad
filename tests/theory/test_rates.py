"""Bounds, measured errors and slopes; and where plain looping stalls."""

import itertools
import math

import numpy as np
import pytest
import torch
from model_cases import VARIANTS, build, inputs_for
from theory_cases import shorten_search

from looped.tasks import TASKS
from looped.tasks.edit_distance import EditDistanceConfig
from looped.theory import continuity
from looped.theory.cells import Cells
from looped.theory.functions import FUNCTIONS, mixed, plateaus, spread, waves
from looped.theory.rates import (
    Moduli,
    delta_of,
    function_of,
    measure,
    moduli,
    our_bound,
    roughness,
    slope,
    task_samples,
    theorem_bound,
)

SIZES = {"waves-2": (waves, 1, 2, (8, 16, 32)), "waves-3": (waves, 1, 3, (4, 8, 16)), "mixed": (mixed, 2, 2, (3, 4, 6)),
         "spread": (spread, 1, 2, (4, 8, 16))}  # fmt: skip
MEASURED = {
    "waves-2": {"plain": [0.203, 0.101, 0.051], "tuned": [0.164, 0.089, 0.050], "modulated": [0.126, 0.063, 0.032]},
    "waves-3": {"plain": [0.460, 0.243, 0.123], "tuned": [0.376, 0.212, 0.112], "modulated": [0.294, 0.148, 0.074]},
    "mixed": {"plain": [0.262, 0.200, 0.134], "tuned": [0.229, 0.180, 0.120], "modulated": [0.214, 0.162, 0.108]},
    "spread": {"plain": [0.162, 0.081, 0.040], "modulated": [0.162, 0.081, 0.040]},
}
SLOPES = {"waves-2": -1 / 3, "waves-3": -1 / 4, "mixed": -1 / 6, "spread": -1 / 3}


@pytest.fixture(scope="module")
def rows():
    with pytest.MonkeyPatch.context() as patch:
        shorten_search(patch, samples=256, steps=30)  # smaller moduli, so that the bounds are harder to meet
        return {
            name: [row for n in cells for row in measure(f, Cells(d, seq, n), samples=20_000)]
            for name, (f, d, seq, cells) in SIZES.items()
        }


@pytest.mark.parametrize("name", SIZES)
def test_errors_and_slopes(rows, name):
    for kind, expected in MEASURED[name].items():
        errors = [row["error"] for row in rows[name] if row["kind"] == kind]
        np.testing.assert_allclose(errors, expected, rtol=0.07)
    assert abs(slope(rows[name]) - SLOPES[name]) < 0.02


def test_every_bound_holds_and_ours_is_the_closer(rows):
    for row in itertools.chain(*rows.values()):
        if row["kind"] == "plain":
            assert (
                row["error"] < row["bound"] <= row["bound_by_moduli"] < row["theorem"] <= row["theorem_factor_on_all"]
            )
            assert 0 < row["adjacency"] < 0.7  # the labels' largest jump over omega_tok + omega_cont


def test_bounds_by_hand():
    at, cells = Moduli(0.1, 0.2, 0.15, 0.5, 0.3), Cells(2, 2, 4)
    assert theorem_bound(at, cells) == pytest.approx(2 * 0.3 + 0.5)
    assert theorem_bound(at, cells, p=1.0, factor_on_sequence=True) == pytest.approx(4 * 0.8)
    assert our_bound(at, cells, spread=0.0) == pytest.approx(2 * 0.125 + 0.3)
    assert our_bound(at, cells, spread=1.0, eps=0.0, slope=12) == pytest.approx(0.3 + 2 * (4 * 3 / 48) ** 0.5)
    assert delta_of(2 * 3**7 + 1, Cells(3, 1, 2)) == pytest.approx(1 / 3)
    alone = moduli(lambda x: torch.sin(3 * x), Cells(1, 1, 4), steps=20)
    assert alone.contextual == 0
    assert alone.token == pytest.approx(math.sin(3 / 4), rel=1e-3)


def test_plain_looping_stalls_where_modulation_does_not(monkeypatch):
    shorten_search(monkeypatch, samples=256, steps=30)
    smooth, rough = roughness((0.0, 1.0), n=6, samples=200)
    assert rough["plain"] > 5 * rough["modulated"]
    assert rough["plain"] > 2 * smooth["plain"]
    assert abs(rough["radix"] - rough["modulated"]) < 0.01
    errors = {n: {row["kind"]: row["error"] for row in measure(FUNCTIONS["steep"], Cells(1, 2, n), samples=20_000,
              bounds=False)}
              for n in (8, 16, 32)}  # fmt: skip
    assert errors[32]["plain"] > 0.97 * errors[8]["plain"]  # 64 times the loops
    assert errors[32]["tuned"] < 0.85 * errors[8]["tuned"]
    assert all(e["modulated"] < 0.4 * e["plain"] for e in errors.values())


def test_plateaus_are_continuous_and_equivariant():
    f = plateaus(0.7, n=4)
    x = torch.rand(1000, 2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(f(x.flip(1)), f(x).flip(1))
    near = (x + 1e-7).clamp(0, 1)
    assert 0 < (f(near) - f(x)).abs().max() < 1e-3
    with pytest.raises(ValueError, match="roughness=2"):
        plateaus(2.0)
    with pytest.raises(ValueError, match="two tokens"):
        f(torch.rand(5, 3, 1, dtype=torch.float64))


@pytest.mark.parametrize("name", ["plain", "layer_norm", "published_lm", "vectors"])
def test_moduli_of_a_trained_model(name):
    config = VARIANTS[name]
    model = build(config)
    inputs, _ = inputs_for(config)
    f = function_of(model)
    x = inputs if config.inputs == "vectors" else torch.nn.functional.one_hot(inputs, config.vocab_size or 0).double()
    torch.testing.assert_close(f(x), model(inputs).logits, atol=1e-9, rtol=1e-9)
    dim = x.shape[-1]
    token, context = (
        continuity.search(f, kind, 0.1, seq=6, dim=dim, samples=16, steps=3).value for kind in ("token", "contextual")
    )
    assert token > 0
    assert context > 0


def test_slope_needs_two_sizes():
    with pytest.raises(ValueError, match="two to fit"):
        slope([{"kind": "plain", "loops": 3, "error": 0.1}])


def test_moduli_of_a_task():
    """Replacing a letter costs 3, so that no letter changes an edit distance by more."""
    task = TASKS["edit_distance"](EditDistanceConfig(length=4, letter_pool=2, min_letters=2, max_letters=2))
    x, y = task_samples(task, 400)
    near = continuity.of_samples(x, y, "sequence", math.sqrt(2))
    far = continuity.of_samples(x, y, "sequence", math.sqrt(8))
    assert near.side == "exact on the samples"
    assert 0 < near.value <= 3 < far.value
    assert near.pair is not None
    assert (near.pair[0] != near.pair[1]).any(-1).sum() == 1
