"""Learned halting in training: losses and every gradient in float64 against plain loops over examples."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from model_cases import TINY, build, gradients, inputs_for
from tolerance import assert_close
from training_cases import metrics, tiny

from looped.config import TrainConfig
from looped.models.exit_rules import EPSILON, Gate
from looped.tasks.base import Batch
from looped.training import load_run, train
from looped.training.halting_loss import divergence_from_geometric, exit_distribution
from looped.training.step import ModelWithLoss

pytestmark = pytest.mark.usefixtures("one_thread")


def batch_for(real_targets):
    inputs, attention_mask = inputs_for(TINY)
    generator = torch.Generator().manual_seed(2)
    targets = torch.randint(7, inputs.shape, generator=generator)
    if real_targets:
        targets = torch.randn(inputs.shape, generator=generator, dtype=torch.float64)
    mask = (torch.rand(inputs.shape, generator=generator) < 0.6) & attention_mask
    return Batch(inputs, targets, mask, attention_mask)


def loss_of(logits, target):
    if target.is_floating_point():
        return (logits[0].float() - target) ** 2
    return F.cross_entropy(logits.float(), target)  # training computes the loss in float32


@pytest.mark.parametrize("real_targets", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_gate_loss_and_gradients(causal, real_targets):
    model = build(dataclasses.replace(TINY, halting="gate", causal=causal))
    torch.nn.init.constant_(model.halt.bias, -1.0)
    batch = batch_for(real_targets)
    cost, prior, loops = 0.3, 0.4, 5
    output = model(batch.inputs, attention_mask=batch.attention_mask, loop_states=True, loop_logits="all")
    total, expected_loops = torch.zeros(()), 0.0
    for i, j in batch.mask.nonzero().tolist():
        stays, p = 1.0, []
        for t in range(loops):
            chances = model.halt(model.norm(output.loop_states[t, i]))[:, 0].sigmoid()
            chance = chances[j] if causal else chances[batch.attention_mask[i]].mean()
            p.append(stays * (chance if t < loops - 1 else 1.0))
            stays = stays * (1 - chance)
        geometric = [prior * (1 - prior) ** t for t in range(loops - 1)]
        geometric.append(1 - sum(geometric))
        chances = torch.stack(p)
        assert chances.sum().item() == pytest.approx(1)
        assert chances.max() < 0.9, "the exit must be open"
        total = total + sum(
            p[t] * loss_of(output.loop_logits[t, i, j], batch.targets[i, j]) + cost * p[t] * (p[t] / geometric[t]).log()
            for t in range(loops)
        )
        expected_loops += sum((t + 1) * p[t].item() for t in range(loops))
    wanted = gradients(model, total)
    assert wanted["halt.weight"].abs().max() > 1e-3

    scored = ModelWithLoss(model, TrainConfig(loss="halting", ponder_cost=cost, ponder_prior=prior))
    loss, (right, mean_loops) = scored(batch, True, loops, loops)
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    assert mean_loops.item() == pytest.approx(expected_loops, rel=1e-5)
    assert right == (output.logits.argmax(-1) == batch.targets)[batch.mask].sum()
    actual = gradients(model, loss)
    assert actual.keys() == wanted.keys()
    for name, gradient in wanted.items():  # the loss passes through float32
        torch.testing.assert_close(actual[name], gradient, rtol=1e-4, atol=1e-5)


def test_divergence_is_zero_for_the_prior_and_has_gradients_at_its_ends():
    prior = exit_distribution(torch.full((6, 2), 0.3).double())
    assert_close(prior.sum(0), torch.ones(2).double())
    assert_close(divergence_from_geometric(prior, 0.3), torch.zeros(2).double())
    uniform = torch.full((4, 1), 0.25).double()
    by_hand = -math.log(4) - 0.25 * sum(math.log(0.5 ** min(t, 3)) for t in (1, 2, 3, 4))
    assert divergence_from_geometric(uniform, 0.5).item() == pytest.approx(by_hand)
    certain = torch.tensor([[1.0], [0.5], [0.5]]).requires_grad_()
    divergence_from_geometric(exit_distribution(certain), 0.3).backward()
    assert certain.grad is not None
    assert bool(certain.grad.isfinite().all())


@pytest.mark.parametrize("causal", [False, True])
def test_act_is_trained_by_the_loop_that_it_later_runs(causal):
    """The loop itself is compared by hand in tests/models/test_exit_rules.py; here its loss: L + cost * (N + R)."""
    model = build(dataclasses.replace(TINY, halting="act", causal=causal))
    torch.nn.init.constant_(model.halt.bias, -1.0)
    batch = batch_for(False)
    output = model(batch.inputs, attention_mask=batch.attention_mask)
    assert len(output.loops_taken[batch.mask].unique()) > 1
    total = torch.zeros(())
    for i, j in batch.mask.nonzero().tolist():
        assert output.loops_taken[i, j] < output.ponder_cost[i, j] <= output.loops_taken[i, j] + 1
        total = total + loss_of(output.logits[i, j], batch.targets[i, j]) + 0.3 * output.ponder_cost[i, j]
    wanted = gradients(model, total)
    loss, (_, mean_loops) = ModelWithLoss(model, TrainConfig(loss="halting", ponder_cost=0.3))(batch, True, 5, 5)
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    assert mean_loops == output.loops_taken[batch.mask].sum()
    for name, gradient in gradients(model, loss).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-5)
    assert 0 < EPSILON < 0.1


@pytest.mark.parametrize("halting", ["gate", "act"])
def test_training_says_how_many_loops_it_takes(halting, tmp_path):
    """And a high price of loops makes them fewer."""
    mean_loops = {}
    for cost in (0.0, 3.0):
        run = tiny(
            model={"halting": halting, "num_loops": 6, "initialisation": "pytorch"},
            steps=60, log_every=20, loss="halting", ponder_cost=cost, accumulation=2, optim={"learning_rate": 0.02},
            **({"ponder_prior": 0.9} if halting == "gate" else {}),
        )  # fmt: skip
        train(run, tmp_path / str(cost))
        lines = [line for line in metrics(tmp_path / str(cost)) if line["kind"] == "train"]
        assert all(1 <= line["mean_loops"] <= 6 for line in lines)
        mean_loops[cost] = lines[-1]["mean_loops"]
    assert mean_loops[3.0] < 2 < mean_loops[0.0]
    if halting == "gate":
        run, model, _ = load_run(tmp_path / "3.0")
        assert model(torch.zeros(1, 4, dtype=torch.long), exit_rule=Gate()).num_loops == 1


@pytest.mark.parametrize(
    ("model", "settings", "says"),
    [
        ({"halting": "gate"}, {}, "train.loss='last': expected 'halting', which trains model.halting='gate'"),
        ({}, {"loss": "halting"}, "train.loss='halting': expected 'last', 'all' or 'window' with model.halting='none'"),
        ({}, {"ponder_cost": 0.1}, "ponder_cost=0.1: has no effect when loss='last'"),
        ({"halting": "act"}, {"loss": "halting", "ponder_prior": 0.5}, "ponder_prior=0.5: has no effect when model.h"),
        ({"halting": "act"}, {"loss": "halting", "recompute": "loop"}, "recompute='loop': has no effect when model.h"),
        ({"halting": "gate"}, {"loss": "halting", "ponder_prior": 1.0}, "ponder_prior=1.0: expected a number strictly"),
        ({"halting": "gate"}, {"loss": "halting", "ponder_cost": -1.0}, "ponder_cost=-1.0: expected at least 0"),
    ],
)
def test_settings_without_effect_are_errors(model, settings, says):
    with pytest.raises(ValueError, match="expected") as error:
        tiny(model=model, **settings)
    assert says in str(error.value)
