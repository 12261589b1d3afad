"""States, loop_logits, components, attention and modulation against plain loops over examples, positions and keys."""

import dataclasses
import itertools
import math

import pytest
import torch
from model_cases import VARIANTS, build, inputs_for
from tolerance import assert_close

from looped.analysis.states import (
    attention_maps,
    layer_modulation,
    layer_states,
    logit_lens,
    motion,
    principal_components,
    states,
)
from looped.nn.attention import Attention
from looped.nn.block import TransformerBlock
from looped.nn.modulation import by_layer

LOOPS = 5


def loop_states(name: str, batch: int = 3):
    config = VARIANTS[name]
    model, (inputs, attention_mask) = build(config), inputs_for(config, batch)
    loop = model.loop(inputs, attention_mask=attention_mask, num_loops=LOOPS)
    return model, inputs, attention_mask, loop, states(loop, LOOPS)


@pytest.mark.parametrize("name", VARIANTS)
def test_states_are_those_of_the_forward_pass(name):
    model, inputs, attention_mask, loop, h = loop_states(name)
    output = model(inputs, attention_mask=attention_mask, num_loops=LOOPS, loop_logits="all", loop_states=True)
    assert (h[1:] - h[:-1]).norm(dim=-1).min() > 1e-3, "every loop must move every position"
    assert output.loop_states is not None
    assert torch.equal(h[1:], output.loop_states)
    assert torch.equal(torch.stack([loop.decode(state) for state in h[1:]]), output.loop_logits)
    assert torch.equal(h[0], loop.initial)
    config = VARIANTS[name]
    assert bool((h[0] == 0).all()) == (config.input_injection != "none" and config.initial_state == "zero")


def test_states_from_another_start():
    _, _, _, loop, h = loop_states("inject_add")
    start = torch.ones_like(loop.initial)
    one_by_one = [start]
    for t in range(LOOPS):
        one_by_one.append(loop.step(one_by_one[-1], t))
    assert not torch.allclose(one_by_one[-1], h[-1])
    assert torch.equal(states(loop, LOOPS, start), torch.stack(one_by_one))
    with pytest.raises(ValueError, match="num_loops=0: expected at least 1"):
        states(loop, 0)


@pytest.mark.parametrize("name", ["prelude_coda", "norm_after", "llama3", "ouro", "inject_concat"])
def test_states_of_layers_are_those_of_a_core_that_ends_there(name):
    config = dataclasses.replace(VARIANTS[name], core_layers=3, num_loops=2)
    model, (inputs, attention_mask) = build(config), inputs_for(config)
    found = layer_states(model, inputs, attention_mask=attention_mask)
    loop, core = model.loop(inputs, attention_mask=attention_mask, num_loops=2), model.core
    before = loop.step(loop.initial, 0)
    for count in (1, 2, 3):
        model.core = core[:count]
        assert_close(found[count - 1], loop.step(before, 1))
    assert (found[1:] - found[:-1]).norm(dim=-1).min() > 1e-3
    assert not any(block._forward_hooks for block in core)


def test_loops_that_share_keys_cannot_be_taken_apart():
    config = dataclasses.replace(VARIANTS["causal"], cache="first")
    model, (inputs, _) = build(config), inputs_for(config)
    with pytest.raises(ValueError, match="kv_loops=1: expected None"):
        model.loop(inputs, num_loops=LOOPS)
    with pytest.raises(ValueError, match="kv_loops=1: expected None"):
        attention_maps(model, inputs)


def test_logit_lens():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 2, 3, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(5, (2, 3), generator=generator)
    lens = logit_lens(logits, targets)
    agreements = []
    for loop in range(4):
        for example in range(2):
            for position in range(3):
                exps = [math.exp(x) for x in logits[loop, example, position].tolist()]
                p = [e / sum(exps) for e in exps]
                last = logits[-1, example, position].tolist()
                answer = last.index(max(last))
                at = (loop, example, position)
                assert lens.entropy[at].item() == pytest.approx(-sum(q * math.log(q) for q in p))
                assert lens.final[at].item() == pytest.approx(p[answer])
                assert lens.target[at].item() == pytest.approx(p[int(targets[example, position])])
                agreements.append(p.index(max(p)) == answer)
                assert bool(lens.agrees[at]) == agreements[-1]
    assert 0 < sum(agreements[:18]) < 18
    assert all(agreements[18:])


def test_certain_logits_have_no_entropy():
    logits = torch.tensor([[[[0.0, 1000.0]]]])
    assert logit_lens(logits, torch.tensor([[0]])).entropy.item() == 0


def test_motion_counts_real_positions_alone():
    _, _, attention_mask, _, h = loop_states("plain")
    found = motion(h, attention_mask)
    assert not attention_mask.all()
    for example in range(3):
        real = [state[example][attention_mask[example]].flatten() for state in h]
        steps = [after - before for before, after in itertools.pairwise(real)]
        for t, step in enumerate(steps):
            assert found.change[t, example].item() == pytest.approx((step.norm() / real[t].norm()).item())
            assert found.cosine[t, example].item() == pytest.approx(_cosine(real[t], real[t + 1]))
            if t + 1 < LOOPS:
                assert found.turn[t, example].item() == pytest.approx(_cosine(step, steps[t + 1]))
    padded = motion(h, torch.ones_like(attention_mask))
    assert not torch.allclose(padded.change[:, 1], found.change[:, 1])


def _cosine(a, b) -> float:
    return (a @ b / math.sqrt(a @ a) / math.sqrt(b @ b)).item()


def test_motion_from_zero():
    _, _, attention_mask, _, h = loop_states("inject_concat")
    found = motion(h, attention_mask)
    assert found.change[0].isinf().all()
    assert found.cosine[0].isnan().all()
    assert found.change[1:].isfinite().all()
    assert motion(h[:2], attention_mask).turn.shape == (0, 3)


def test_principal_components_are_those_of_the_singular_value_decomposition():
    _, _, attention_mask, _, h = loop_states("plain")
    found = principal_components(h, attention_mask, components=3)
    real = h[:, attention_mask].flatten(0, 1)
    centred = real - real.mean(0)
    u, s, v = torch.linalg.svd(centred, full_matrices=False)
    assert (s[:3] / s[1:4]).min() > 1.01, "components must be told apart"
    assert_close(found.explained, s[:3] ** 2 / (s**2).sum())
    coordinates = found.coordinates[:, attention_mask].flatten(0, 1)
    assert_close(coordinates.abs(), (u[:, :3] * s[:3]).abs())
    for i in range(3):  # the sign is that of the largest entry
        axis = v[i] * v[i][v[i].abs().argmax()].sign()
        assert_close(coordinates[:, i], centred @ axis)


@pytest.mark.parametrize("name", VARIANTS)
def test_attention_maps_are_what_the_layers_use(name):
    """Map times values, projected, is what each attention returns in each loop."""
    config = VARIANTS[name]
    model, (inputs, attention_mask) = build(config), inputs_for(config)
    calls = []

    def remember(module, args, output):
        rows = config.kv_heads * config.head_dim
        bias = None if module.qkv.bias is None else module.qkv.bias[-rows:]
        values = torch.nn.functional.linear(args[1], module.qkv.weight[-rows:], bias).unflatten(
            -1, (config.kv_heads, -1)
        )
        values = values.transpose(1, 2).repeat_interleave(config.num_heads // config.kv_heads, 1)
        gate = 1 if module.gate is None else module.gate(args[0]).sigmoid()
        calls.append((module, values, gate, output))

    plain = model(inputs, attention_mask=attention_mask, num_loops=LOOPS).logits
    attentions = [module for module in model.core.modules() if isinstance(module, Attention)]
    hooks = [module.register_forward_hook(remember) for module in attentions]
    maps = attention_maps(model, inputs, attention_mask=attention_mask, num_loops=LOOPS)
    for hook in hooks:
        hook.remove()
    assert maps.shape == (LOOPS, config.core_layers, 3, config.num_heads, 6, 6)
    assert len(calls) == LOOPS * config.core_layers
    for attention, (module, values, gate, output) in zip(maps.flatten(0, 1), calls, strict=True):
        assert_close(module.project((attention @ values).transpose(1, 2).flatten(2) * gate), output)
    if config.attention != "linear":
        assert_close(maps.sum(-1), torch.ones(maps.shape[:-1], dtype=maps.dtype))
        assert maps.min() >= 0
    assert (maps[:, :, 1, :, :, -2:] == 0).all(), "padding is seen by nobody"
    if config.causal:
        assert (maps.triu(1) == 0).all()
    if config.attention != "hardmax":
        assert (maps[1:] - maps[:-1]).abs().amax((-1, -2, -3, -4)).min() > 1e-3, "loops must differ"
    some = attention_maps(model, inputs, attention_mask=attention_mask, num_loops=LOOPS, keep=[2, 5])
    assert torch.equal(some, maps[[1, 4]])
    assert not any(module._forward_pre_hooks for module in attentions)
    assert torch.equal(model(inputs, attention_mask=attention_mask, num_loops=LOOPS).logits, plain)


@torch.no_grad()
def test_attention_maps_one_query_at_a_time():
    config = VARIANTS["plain"]
    model, (inputs, attention_mask) = build(config), inputs_for(config)
    maps = attention_maps(model, inputs, attention_mask=attention_mask, num_loops=2)[:, 0]
    h = states(model.loop(inputs, attention_mask=attention_mask, num_loops=2), 2)
    block, width = model.core[0], config.head_dim
    assert isinstance(block, TransformerBlock)
    for loop in range(2):
        for example in range(3):
            normed = block.attention_norm(h[loop, example])
            for head in range(config.num_heads):
                weight = block.attention.qkv.weight.unflatten(0, (3, config.num_heads, width))[:, head]
                for query in range(6):
                    q = weight[0] @ normed[query]
                    exps = [
                        math.exp(q @ (weight[1] @ normed[key]) / math.sqrt(width))
                        if attention_mask[example, key]
                        else 0.0
                        for key in range(6)
                    ]
                    expected = torch.tensor(exps, dtype=torch.float64) / sum(exps)
                    assert_close(maps[loop, example, head, query], expected)


@pytest.mark.parametrize("keep", [[], [0], [3]])
def test_maps_of_loops_that_are_not_run(keep):
    config = VARIANTS["plain"]
    with pytest.raises(ValueError, match="expected loop numbers from 1 to num_loops=2"):
        attention_maps(build(config), inputs_for(config)[0], num_loops=2, keep=keep)


@pytest.mark.parametrize("name", VARIANTS)
def test_modulation_is_what_the_layers_get(name):
    model, loops = build(VARIANTS[name]), 8  # beyond the 5 of the configuration
    found = layer_modulation(model, loops)
    if VARIANTS[name].modulation in ("none", "additive"):
        assert found is None
        return
    assert found is not None
    names, rows = model.modulation.names, model.modulation(loops, torch.device("cpu"))
    assert tuple(found) == names[0]
    for t in range(loops):
        for layer, vectors in enumerate(by_layer(rows[t], names)):
            for kind, vector in vectors.items():
                assert torch.equal(found[kind][t, layer], vector)
    constant = VARIANTS[name].modulation == "rezero"
    for values in found.values():
        assert values.shape == (loops, VARIANTS[name].core_layers, 16)
        assert bool((values[0] == values[-1]).all()) == constant


def test_modulation_beyond_the_table():
    with pytest.raises(ValueError, match="num_loops=10: expected at most the 9 rows"):
        layer_modulation(build(VARIANTS["table"]), 10)
