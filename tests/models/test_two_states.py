"""Models with an answer and a latent state, against the recursion written out."""

import dataclasses
from typing import Any

import pytest
import torch
from model_cases import TINY, build, gradients, inputs_for
from torch.utils.flop_counter import FlopCounterMode

from looped.analysis.states import attention_maps
from looped.config import ModelConfig
from looped.costs.count import effective_depth, flops, parameters
from looped.models import LoopedTransformer, parse_rule

TWO = dataclasses.replace(TINY, input_injection="add", inner_loops=3, core_layers=2, halting="none", num_loops=4)


def by_hand(model: Any, inputs: torch.Tensor, loops: int) -> list[torch.Tensor]:
    """The logits after each loop: z <- f(z + y + x) three times, then y <- f(y + z)."""
    x = model.embed(inputs) + model.positions(torch.arange(inputs.shape[1]))
    first, second = model.core[0].layers

    def f(state: torch.Tensor) -> torch.Tensor:
        return second(first(state))

    y, z, found = torch.zeros_like(x), torch.zeros_like(x), []
    for _ in range(loops):
        for _ in range(3):
            z = f(z + y + x)
        y = f(y + z)
        found.append(model.head(model.norm[1](y)))
    return found


def test_outputs_and_gradients_are_those_of_the_recursion():
    model = build(TWO)
    inputs, _ = inputs_for(TWO)
    expected = by_hand(model, inputs, 4)
    output = model(inputs, loop_logits="all", loop_states=True)
    torch.testing.assert_close(output.loop_logits, torch.stack(expected))
    assert output.state.shape == (3, 6, 32)
    again = model(inputs, num_loops=2, initial_state=output.loop_states[1])
    torch.testing.assert_close(again.logits, expected[3])
    wanted, found = gradients(model, expected[3].square().sum()), gradients(model, output.logits.square().sum())
    assert wanted.keys() == found.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name])


def test_examples_leave_early_with_the_logits_of_their_loop():
    model = build(TWO)
    inputs, _ = inputs_for(TWO)
    expected = by_hand(model, inputs, 4)
    output = model(inputs, exit_rule=parse_rule("unchanged:1"))
    assert output.loops_taken is not None
    for row, taken in enumerate(output.loops_taken[:, 0].tolist()):
        torch.testing.assert_close(output.logits[row], expected[taken - 1][row])


def test_costs_are_those_of_the_model():
    model = LoopedTransformer(TWO)
    assert parameters(TWO) == sum(p.numel() for p in model.parameters())
    assert effective_depth(TWO) == 4 * 4 * 2
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 6, dtype=torch.long))
    assert flops(TWO, 6) == counter.get_total_flops()


def test_attention_maps_are_those_of_the_answer():
    model = build(TWO).float()
    inputs, _ = inputs_for(TWO)
    maps = attention_maps(model, inputs, num_loops=3, keep=(1, 3))
    assert maps.shape == (2, 2, 3, 2, 6, 6)
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
    torch.testing.assert_close(maps[:1], attention_maps(model, inputs, num_loops=1))


def test_small_blocks_run_in_cpp():
    config = dataclasses.replace(TWO, initialisation="pytorch")
    inputs, _ = inputs_for(config)
    plain, fast = LoopedTransformer(config), LoopedTransformer(config)
    core: Any = fast.core[0]
    fast.use_native()
    assert all(block.native for block in core.layers)
    torch.testing.assert_close(fast(inputs).logits, plain(inputs).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"input_injection": "none"}, "input_injection='none': expected add with inner_loops"),
        ({"modulation": "rezero"}, "modulation='rezero': has no effect when there are inner_loops"),
        ({"coda_layers": 1}, "coda_layers=1: has no effect"),
        ({"inner_loops": 0}, "inner_loops=0: expected at least 1"),
    ],
)
def test_what_two_states_cannot_do(options, expected):
    with pytest.raises(ValueError, match=expected):
        dataclasses.replace(TWO, **options)


def test_two_states_cannot_be_cached():
    model = LoopedTransformer(dataclasses.replace(TWO, causal=True))
    with pytest.raises(ValueError, match="cannot be cached"):
        model.new_cache(1, 4)
    assert isinstance(model.config, ModelConfig)
