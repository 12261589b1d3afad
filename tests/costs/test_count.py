"""Costs computed from the configuration equal the built model and torch's counter of operations."""

import dataclasses

import pytest
import torch
from model_cases import TINY, VARIANTS, inputs_for
from torch.utils.flop_counter import FlopCounterMode

from looped.costs import count
from looped.models import LoopedTransformer


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
