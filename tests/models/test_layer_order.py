"""The order of the core's layers against layers that are written out one after another."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_cases import TINY, build, gradients, inputs_for
from tolerance import assert_close

from looped.analysis.states import attention_maps
from looped.config import ModelConfig, RunConfig, ScheduleConfig, TrainConfig
from looped.costs.baselines import match
from looped.evaluation.calibration import calibrate
from looped.evaluation.scores import evaluate
from looped.models import parse_rule
from looped.models.layer_order import applications
from looped.nn.protocols import Context
from looped.tasks import TASKS
from looped.tasks.edit_distance import EditDistanceConfig

ORDERS = ("cycle", "sequence", "reverse")
TWO = dataclasses.replace(TINY, core_layers=2, num_loops=3)


@given(st.integers(1, 7), st.integers(1, 7))
def test_orders_are_the_published_formulas(sets, loops):
    """The set of weights of layer i = 1 .. N, as Takase & Kiyono write it, with M sets."""
    m, n = sets, sets * loops
    published = {
        "sequence": [(i - 1) // (n // m) + 1 for i in range(1, n + 1)],
        "cycle": [(i - 1) % m + 1 for i in range(1, n + 1)],
        "reverse": [(i - 1) % m + 1 if i <= n - m else m - (i - 1) % m for i in range(1, n + 1)],
    }
    for order in ORDERS:
        applied = [pair for t in range(loops) for pair in applications(order, m, loops, t)]
        assert [layer + 1 for layer, _ in applied] == published[order]
        for layer in range(m):  # a layer's timesteps count its applications
            assert [t for which, t in applied if which == layer] == list(range(loops))


def written_out(model, inputs, attention_mask, order):
    """Logits of a model whose layers are named one by one, such as 'ABABAB'."""
    x = model.embed(inputs) + model.positions.table[: inputs.shape[1]]
    mask = attention_mask[:, None, None, :]
    vectors = None if model.modulation is None else model.modulation(3, x.device)
    names = ["attention_scale", "feedforward_scale", "attention_gate", "feedforward_gate"]
    used = {"A": 0, "B": 0}
    for letter in order:
        layer, t = "AB".index(letter), used[letter]
        used[letter] += 1
        factors = {} if vectors is None else {name: vectors[t, 4 * layer + k] for k, name in enumerate(names)}
        x = model.core[layer](x, Context(mask, modulation=factors))
    return model.head(model.norm(x))


@pytest.mark.parametrize("modulation", ["none", "scale_gate"])
def test_values_and_gradients_equal_layers_written_out(modulation):
    """The gradient of a layer is the sum over its uses. Equal weights give different outputs in each order."""
    found = {}
    for order, letters in zip(ORDERS, ("ABABAB", "AAABBB", "ABABBA"), strict=True):
        model = build(dataclasses.replace(TWO, layer_order=order, modulation=modulation))
        inputs, attention_mask = inputs_for(model.config)
        expected = written_out(model, inputs, attention_mask, letters)
        found[order] = model(inputs, attention_mask=attention_mask).logits
        assert_close(found[order], expected)
        wanted = gradients(model, expected.sin().sum())
        for how in ("none", "loop", "nested"):
            again = model(inputs, attention_mask=attention_mask, recompute=how).logits
            for name, gradient in gradients(model, again.sin().sum()).items():
                assert_close(gradient, wanted[name])
    assert min((found[a] - found[b]).abs().max() for a, b in (ORDERS[:2], ORDERS[1:], ORDERS[::2])) > 0.1


def test_one_loop():
    """Sequence is then cycle, and reverse is the reversed stack."""
    models = {order: build(dataclasses.replace(TWO, layer_order=order)) for order in ORDERS}
    inputs, attention_mask = inputs_for(TWO)
    found = {name: m(inputs, attention_mask=attention_mask, num_loops=1).logits for name, m in models.items()}
    assert torch.equal(found["sequence"], found["cycle"])
    models["cycle"].core = torch.nn.ModuleList(reversed(models["cycle"].core))
    assert torch.equal(models["cycle"](inputs, attention_mask=attention_mask, num_loops=1).logits, found["reverse"])
    assert not torch.equal(found["reverse"], found["sequence"])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cached", [{}, {"cache": "first", "cache_loops": 2}])
@torch.no_grad()
def test_a_cache_changes_nothing(order, cached):
    model = build(dataclasses.replace(TWO, layer_order=order, causal=True, modulation="scale_gate", **cached))
    inputs, _ = inputs_for(TWO)
    cache = model.new_cache(3, 6)
    parts = [model(inputs[:, i : i + 2], cache=cache).logits for i in (0, 2, 4)]
    assert_close(torch.cat(parts, 1), model(inputs).logits)


def test_a_sequence_has_one_readable_state():
    model = build(dataclasses.replace(TWO, layer_order="sequence"))
    inputs, _ = inputs_for(TWO)
    for options in ({"loop_logits": "all"}, {"loop_logits": (2,)}, {"loop_states": True}):
        with pytest.raises(ValueError, match="layer_order='sequence': expected loop_logits='last'"):
            model(inputs, **options)
    with pytest.raises(ValueError, match="expected no rule with layer_order='sequence'"):
        model(inputs, exit_rule=parse_rule("change:0.1"))
    with pytest.raises(ValueError, match="layer_order='sequence': expected 'cycle' or 'reverse'"):
        attention_maps(model, inputs)


@pytest.mark.parametrize("order", ORDERS)
def test_every_loop_count_is_evaluated_in_the_order_of_that_count(order):
    task = TASKS["edit_distance"](EditDistanceConfig(length=4, version="corrected"))
    config = ModelConfig.for_task(task, d_model=16, num_heads=2, core_layers=2, num_loops=2, layer_order=order)
    model = build(config).float()
    rows = evaluate(model, task, loops=(1, 2), examples=8)
    inputs = task.batch("test", 0, 4, seed=0).inputs
    apart = [model(inputs, num_loops=n).logits for n in (1, 2)]
    assert model.uses_fraction == (order != "cycle")
    assert {row["num_loops"] for row in rows} == {1, 2}
    assert not torch.equal(apart[0], apart[1])
    found = calibrate(model, task, loops=[1, 2], examples=8)
    assert any(row["exit_rule"] for row in found["rows"]) == (order != "sequence")
    assert match(config, "parameters").config.layer_order == "cycle"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"core_layers": 1, "layer_order": "reverse"}, "layer_order='reverse': has no effect when core_layers=1"),
        ({"modulation": "additive", "layer_order": "reverse"}, "modulation='additive': expected another with layer_or"),
        ({"input_injection": "add"}, "input_injection='add': expected 'none' with layer_order='sequence'"),
        ({"loop_norm": True}, "loop_norm=True: expected False with layer_order='sequence'"),
        ({"halting": "gate"}, "halting='gate': expected 'none' with layer_order='sequence'"),
    ],
)
def test_options_between_loops_that_are_inside(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{"core_layers": 2, "layer_order": "sequence", **settings})


@pytest.mark.parametrize(("train", "schedule"), [({"loss": "all"}, {}), ({}, {"num_grad_loops": 1})])
def test_a_sequence_is_trained_on_its_last_state(train, schedule):
    model = dataclasses.replace(TWO, layer_order="sequence")
    with pytest.raises(ValueError, match=r"model.layer_order='sequence': expected 'cycle' unless train.loss='last'"):
        RunConfig(
            model=model,
            task=EditDistanceConfig(),
            train=TrainConfig(**train),
            schedule=ScheduleConfig(**schedule),
        )
