"""The study of the timestep: its targets, its arms, its statistics, and the numbers in its notes."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tolerance import assert_close

from benchmarks.time_to_accuracy import ROOT
from benchmarks.when_timestep import ARMS, DELTAS, LOOPS, TARGETS, Target, build, data, train
from benchmarks.when_timestep_statistics import (
    TERMS,
    Analysis,
    coefficients,
    holm,
    interval,
    seeds_needed,
    smallest_effect,
)
from looped.theory import continuity
from looped.theory.cells import check_function

FOLDER = ROOT / "results/when-timestep"


def test_the_smallest_cell_is_learned():
    assert train(Target("fourier", 1), "modulated", 2, 0.02, seed=500, steps=60) > 0.5


def test_a_diverged_model_scores_zero():
    assert train(Target("fourier", 4), "plain", 2, 1e6, seed=500, steps=3) == 0


def test_frozen_differs_from_modulated_by_the_timestep_alone():
    x = torch.randn(3, 4, 1)
    frozen, modulated = (build(arm, 3, seed=1) for arm in ("frozen", "modulated"))
    with torch.no_grad():
        for model in (frozen, modulated):
            generator = torch.Generator().manual_seed(0)
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        assert_close(frozen(x, num_loops=1).logits, modulated(x, num_loops=1).logits)
        assert (frozen(x).logits - modulated(x).logits).abs().max() > 1e-2


def test_wide_has_the_parameters_of_the_modulation():
    count = {arm: sum(p.numel() for p in build(arm, 2, seed=0).parameters()) for arm in ARMS}
    assert count["frozen"] == count["modulated"]
    assert abs(count["wide"] / count["modulated"] - 1) < 0.002


def test_arms_begin_as_the_plain_layer():
    x = torch.randn(3, 4, 1)
    with torch.no_grad():
        outputs = []
        for arm in ("plain", "frozen", "modulated"):
            model = build(arm, 4, seed=1)
            plain = build("plain", 4, seed=1)
            model.load_state_dict(plain.state_dict(), strict=False)
            outputs.append(model(x).logits)
    assert_close(outputs[1], outputs[0])
    assert_close(outputs[2], outputs[0])


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_targets_are_permutation_equivariant_and_standardised(target: Target):
    check_function(target.function(3), 1, target.seq)
    x, y = next(data(target, 3, 1))
    assert x.shape == y.shape == (target.level * (target.level + 1) // 2 if target.seq == 2 else 1024, target.seq, 1)
    assert abs(y.mean().item()) < 1e-5
    assert y.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_labels_at_the_centres_are_uniform():
    centres = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    f = Target("labels", 16).function(3)
    labels = f(torch.cartesian_prod(centres, centres)[..., None])[:, 0, 0]
    assert stats.kstest(labels.numpy() + 0.5, "uniform").pvalue > 1e-3


def test_the_roughness_of_fourier_targets_is_that_of_all_their_tokens():
    target = Target("fourier", 2)
    f = target.function(3)
    ticks = (torch.arange(128, dtype=torch.float64) + 0.5) / 128
    scale = f(torch.cartesian_prod(ticks, ticks)[..., None]).std().item()
    token, contextual = target.moduli(3, 1 / 8)
    cases: list[tuple[continuity.Kind, float, float]] = [
        ("token", 1 / 8, token),
        ("contextual", math.sqrt(3) / 8, contextual),
    ]
    for kind, delta, on_grid in cases:
        searched = continuity.search(f, kind, delta, seq=4, dim=1, samples=512, steps=50).value / scale
        assert on_grid == pytest.approx(searched, rel=0.03)


def test_roughness_rises_with_the_level():
    for family in ("fourier", "labels"):
        values = [np.mean([sum(t.moduli(s, DELTAS[0])) for s in range(2)]) for t in TARGETS if t.family == family]
        assert values == sorted(values)


def test_seeds_needed_is_that_of_a_paired_t_test():
    assert seeds_needed(1.0, effect=0.5) == 34  # Cohen's d = 0.5, two-sided 5%, power 80%
    assert smallest_effect(1.0, 34) == pytest.approx(0.5, abs=0.01)
    rng = np.random.default_rng(0)
    trials = rng.normal(smallest_effect(2.0, 6), 2.0, (4000, 6))
    test: Any = stats.ttest_1samp(trials, 0, axis=1)
    seen = (test.pvalue < 0.05).mean()
    assert seen == pytest.approx(0.8, abs=0.03)


def test_holm_and_interval():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    values = np.array([0.1, 0.3, 0.2, 0.5])
    found, expected = interval(values), stats.ttest_1samp(values, 0)
    low, high = expected.confidence_interval()
    assert found == pytest.approx((0.275, low, high, expected[1]))


def test_the_regression_finds_planted_slopes():
    rng = np.random.default_rng(0)
    roughness = rng.uniform(1, 9, (3, len(TARGETS)))
    fourier = np.array([t.family == "fourier" for t in TARGETS])
    centred = roughness - np.where(
        fourier, roughness[:, fourier].mean(1)[:, None], roughness[:, ~fourier].mean(1)[:, None]
    )
    loops = np.log2(LOOPS) - np.log2(LOOPS).mean()
    gain = np.where(fourier, 0.1, 0.3)[None, :, None] + 0.02 * centred[..., None] - 0.03 * loops
    gain = gain + 0.004 * centred[..., None] * loops
    found = coefficients(gain, roughness)
    assert found.shape == (3, len(TERMS))
    assert found == pytest.approx(np.tile([np.where(fourier, 0.1, 0.3).mean(), 0.02, -0.03, 0.004], (3, 1)))


def test_the_notes_state_the_stored_results():
    notes = (FOLDER / "notes.md").read_text().splitlines()
    analysis = Analysis(json.loads((FOLDER / "results.json").read_text()))
    assert len(analysis.seeds) >= 5
    tables = (analysis.rate_lines, analysis.pilot_lines, analysis.primary_lines, analysis.sensitivity_lines)
    for lines in (*tables, analysis.secondary_lines, analysis.same_rate_lines, analysis.score_lines):
        assert set(lines()) <= set(notes)
