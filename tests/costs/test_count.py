"""Costs computed from the configuration equal the built model and torch's counter of operations."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import TINY, VARIANTS, inputs_for
from torch.utils.flop_counter import FlopCounterMode

from looped.config import RunConfig, TrainConfig
from looped.costs import count, of_model
from looped.models import LoopedTransformer, parse_rule
from looped.tasks.edit_distance import EditDistanceConfig


@pytest.mark.parametrize("name", VARIANTS)
def test_costs_equal_the_built_model(name):
    config = VARIANTS[name]
    model = LoopedTransformer(config)
    assert count.parameters(config) == sum(p.numel() for p in model.parameters())
    embedding = {id(p): p.numel() for m in (model.embed, model.head) for p in m.parameters()}
    if config.positions == "learned":
        embedding[id(model.positions)] = model.positions.table.numel()
    assert count.embedding_parameters(config) == sum(embedding.values())
    inputs, _ = inputs_for(config, batch=1)
    for loops in (config.num_loops, config.num_loops + 2):
        with FlopCounterMode(display=False) as counter:
            model(inputs.float() if inputs.is_floating_point() else inputs, num_loops=loops)
        assert count.flops(config, inputs.shape[1], loops) == counter.get_total_flops()


OPTIONS = {
    "core_layers": (1, 3), "prelude_layers": (0, 2), "bias": (False, True), "norm": ("rms", "layer"),
    "norm_gain": (False, True), "norm_place": ("before", "after"),
    "feedforward_norm": (False, True), "final_norm": (None, "none", "rms", "layer"), "embedding_norm": (False, True),
    "activation": ("gelu", "swiglu"), "graph_heads": ((), ("edges", "back")),
    "d_head": (None, 3), "d_ff": (None, 10), "positions": ("learned", "sinusoidal", "none"),
    "input_injection": ("none", "add", "concat"), "halting": ("none", "gate", "act"), "tie_embeddings": (False, True),
    "modulation": ("none", "additive", "scale_gate", "adaln_zero", "rezero"),
}  # fmt: skip


@given(st.fixed_dictionaries({name: st.sampled_from(choices) for name, choices in OPTIONS.items()}))
@settings(max_examples=60, deadline=None)
def test_parameters_are_counted_without_building_the_model(options):
    if options["norm_place"] == "after":  # it is then part of every sublayer
        options["feedforward_norm"] = True
    config = dataclasses.replace(TINY, output_size=11, **options)
    with torch.device("meta"):
        assert count.parameters(config) == sum(p.numel() for p in LoopedTransformer(config).parameters())


@pytest.mark.parametrize(("window", "loop_logits"), [(4, (4,)), (2, (4,)), (4, (1, 2, 4)), (2, (3, 4))])
def test_training_costs_equal_a_counted_backward_pass(window, loop_logits):
    config = dataclasses.replace(TINY, num_loops=4)
    model = LoopedTransformer(config)
    inputs, _ = inputs_for(config, batch=1)
    with FlopCounterMode(display=False) as counter:
        output = model(inputs, num_grad_loops=window, loop_logits=loop_logits)
        output.loop_logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.core.parameters())
    assert count.training_flops(config, inputs.shape[1], 4, window, len(loop_logits)) == counter.get_total_flops()


def test_looping_costs_time_and_no_parameters():
    more = dataclasses.replace(TINY, num_loops=10)
    assert count.parameters(more) == count.parameters(TINY)
    assert count.effective_depth(more) == 10
    assert count.effective_depth(dataclasses.replace(TINY, prelude_layers=2, core_layers=3, coda_layers=1), 4) == 15
    assert count.flops(more, 6) > 1.8 * count.flops(TINY, 6)
    with pytest.raises(ValueError, match="vocab_size"):
        count.parameters(dataclasses.replace(TINY, vocab_size=None))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("halting", ["gate", "act"])
def test_learned_halting_costs_a_vector(halting):
    config = dataclasses.replace(TINY, halting=halting)
    model = LoopedTransformer(config)
    assert count.parameters(config) == sum(p.numel() for p in model.parameters()) == count.parameters(TINY) + 17
    torch.nn.init.constant_(model.halt.bias, -9.0)  # nobody leaves
    with FlopCounterMode(display=False) as counter:
        assert model(inputs_for(config, batch=1)[0]).num_loops == 5
    assert count.flops(config, 6) == counter.get_total_flops()


@pytest.mark.parametrize(("policy", "kept"), [("first", None), ("first", 2), ("first", 9)])
def test_loops_without_keys_of_their_own_are_cheaper(policy, kept):
    config = dataclasses.replace(TINY, cache=policy, cache_loops=kept, core_layers=2)
    model = LoopedTransformer(config)
    with FlopCounterMode(display=False) as counter:
        model(inputs_for(config, batch=1)[0])
    assert count.flops(config, 6) == counter.get_total_flops()
    assert (count.flops(config, 6) < count.flops(dataclasses.replace(TINY, core_layers=2), 6)) == (kept != 9)


RULES = ["change:1e-9", "kl:1e-30", "entropy:1e-30", "unchanged:9"]


@pytest.mark.parametrize("rule", [*RULES, *(f"{rule}/token" for rule in RULES)])
@pytest.mark.parametrize("parts", [{}, {"coda_layers": 2}], ids=["head", "coda"])
def test_exit_rules_cost_what_they_read(rule, parts):
    config = dataclasses.replace(TINY, num_loops=4, **parts)
    model, parsed = LoopedTransformer(config), parse_rule(rule)
    with FlopCounterMode(display=False) as counter:
        assert model(inputs_for(config, batch=1)[0], exit_rule=parsed).num_loops == 4, "no exit before the last loop"
    counted = counter.get_total_flops()
    assert of_model.exit_flops(model, inputs_for(config)[0], 4.0, parsed.needs) == counted
    assert (counted > count.flops(config, 6)) == (parsed.needs == "logits")
    assert of_model.exit_flops(model, inputs_for(config)[0], 3.25, parsed.needs) == pytest.approx(
        0.75 * of_model.exit_flops(model, inputs_for(config)[0], 3.0, parsed.needs) + 0.25 * counted
    )


def test_a_gate_costs_a_vector_in_every_loop():
    config = dataclasses.replace(TINY, num_loops=4, halting="gate")
    model = LoopedTransformer(config)
    torch.nn.init.constant_(model.halt.bias, -9.0)  # type: ignore[union-attr, arg-type]  # no exit
    with FlopCounterMode(display=False) as counter:
        model(inputs_for(config, batch=1)[0], exit_rule=parse_rule("gate:0.9"))
    assert (
        of_model.exit_flops(model, inputs_for(config)[0], 4.0, "halting")
        == counter.get_total_flops()
        > count.flops(config, 6)
    )


@pytest.mark.parametrize(
    ("train", "halting", "logits"),
    [({}, "none", 1), ({"loss": "all"}, "none", 5), ({"loss": "window", "loss_window": 2}, "none", 2),
     ({"loss": "halting"}, "gate", 5), ({"loss": "halting"}, "act", 1)],
)  # fmt: skip
def test_logits_in_training(train, halting, logits):
    model = dataclasses.replace(TINY, halting=halting)
    run = RunConfig(model=model, task=EditDistanceConfig(), train=TrainConfig(**train))
    assert count.logits_in_training(run, 5) == logits
