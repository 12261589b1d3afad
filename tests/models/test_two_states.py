"""Models with an answer and a latent state, against the recursion written out."""

import dataclasses
from typing import Any

import pytest
import torch
from model_cases import TINY, build, gradients, inputs_for
from torch.utils.flop_counter import FlopCounterMode

from looped.analysis.states import attention_maps
from looped.costs.baselines import standard
from looped.costs.count import effective_depth, flops, parameters
from looped.models import LoopedTransformer, parse_rule
from looped.models.fixed_point import FixedPointGradient
from looped.nn.protocols import Context

TWO = dataclasses.replace(TINY, input_injection="add", inner_loops=3, core_layers=2, halting="none", num_loops=4)


HRM = dataclasses.replace(
    TWO,
    causal=True,
    positions="rotary",
    input_injection="none",
    latent_layers=1,
    loop_norm=True,
    norm_gain=False,
    gated_attention=True,
)
BOTH = pytest.mark.parametrize("config", [TWO, HRM], ids=["one stack", "two stacks"])


def by_hand(model: Any, inputs: torch.Tensor, loops: int) -> list[torch.Tensor]:
    """The logits after each loop: z <- g(z + y + x) three times, then y <- f(y + z)."""
    config, core = model.config, model.core[0]
    x = model.embed(inputs)
    context = Context()
    if config.causal:
        seq = inputs.shape[1]
        context = Context(torch.ones(seq, seq, dtype=torch.bool).tril()[None, None], model.rotary(torch.arange(seq)))
    else:
        x = x + model.positions(torch.arange(inputs.shape[1]))

    def apply(layers: Any, state: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            state = layer(state, context)
        return core.norm(state) if config.loop_norm else state

    injected = config.input_injection == "add"
    y, z, found = torch.zeros_like(x) if injected else x, torch.zeros_like(x), []
    for _ in range(loops):
        for _ in range(3):
            z = apply(core.latent_layers or core.layers, z + y + x if injected else z + y)
        y = apply(core.layers, y + z)
        found.append(model.head(y if config.loop_norm else model.norm[1](y)))
    return found


@BOTH
def test_outputs_and_gradients_are_those_of_the_recursion(config):
    model = build(config)
    inputs, _ = inputs_for(config)
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


@BOTH
def test_examples_leave_early_with_the_logits_of_their_loop(config):
    model = build(config)
    inputs, _ = inputs_for(config)
    expected = by_hand(model, inputs, 4)
    output = model(inputs, exit_rule=parse_rule("unchanged:1"))
    assert output.loops_taken is not None
    for row, taken in enumerate(output.loops_taken[:, 0].tolist()):
        torch.testing.assert_close(output.logits[row], expected[taken - 1][row])


@BOTH
def test_costs_are_those_of_the_model(config):
    model = LoopedTransformer(config)
    assert parameters(config) == sum(p.numel() for p in model.parameters())
    assert effective_depth(config) == 4 * (3 * (config.latent_layers or 2) + 2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 6, dtype=torch.long))
    assert flops(config, 6) == counter.get_total_flops()
    assert standard(config, 3, 32).core_depth == 3


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (HRM, None),
        (HRM, "kl:0.1/token"),
        (HRM, "change:0.3/token"),
        (dataclasses.replace(TWO, causal=True, num_heads=4, num_kv_heads=2), "kl:0.001/token"),
    ],
)
def test_a_cache_changes_nothing(config, rule):
    """Each application of a layer in a loop has keys and values of its own."""
    model = build(config)
    inputs, mask = inputs_for(config)
    mask = mask.flip(1)  # padding on the left, as in generation
    exit_rule = rule and parse_rule(rule)
    with torch.no_grad():
        whole = model(inputs, attention_mask=mask, exit_rule=exit_rule)
        cache = model.new_cache(3, 6, every_loop_logits=True)
        parts = [
            model(inputs[:, span], attention_mask=mask[:, span], cache=cache, exit_rule=exit_rule)
            for span in (slice(0, 3), slice(3, 4), slice(4, 6))
        ]
    if rule is not None:
        assert whole.loops_taken is not None
        assert len(whole.loops_taken.unique()) > 1
    found = torch.cat([part.logits for part in parts], dim=1)
    torch.testing.assert_close(found[mask], whole.logits[mask])
    applications = 3 * (config.latent_layers or 2) + 2
    assert cache.slots["core"][0].shape == (4, 2, 3, applications * config.kv_heads, 6, 8 if config is HRM else 4)


def test_an_answer_that_starts_from_the_input_has_no_fixed_point():
    model = build(HRM)
    inputs, _ = inputs_for(HRM)
    with pytest.raises(ValueError, match="expected an input injection"):
        model(inputs, gradient=FixedPointGradient("phantom", 1))


@BOTH
def test_attention_maps_are_those_of_the_answer(config):
    model = build(config).float()
    inputs, _ = inputs_for(config)
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
        ({"input_injection": "concat"}, "input_injection='concat': expected add or none with inner_loops"),
        ({"inner_loops": None, "latent_layers": 1}, "latent_layers=1: has no effect when inner_loops=None"),
        ({"modulation": "rezero"}, "modulation='rezero': has no effect when there are inner_loops"),
        ({"coda_layers": 1}, "coda_layers=1: has no effect"),
        ({"inner_loops": 0}, "inner_loops=0: expected at least 1"),
    ],
)
def test_what_two_states_cannot_do(options, expected):
    with pytest.raises(ValueError, match=expected):
        dataclasses.replace(TWO, **options)
