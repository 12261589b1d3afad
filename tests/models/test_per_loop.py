"""Weights that only some loops have: partial sharing and low-rank changes."""

import dataclasses
from typing import Any

import pytest
import torch
from model_cases import TINY, build, gradients, inputs_for
from tolerance import assert_close
from torch.utils.flop_counter import FlopCounterMode

from looped.analysis.states import attention_maps
from looped.config import ModelConfig, RunConfig, ScheduleConfig
from looped.costs import count
from looped.models import LoopedTransformer
from looped.nn.native.library import library
from looped.nn.protocols import Context
from looped.tasks.edit_distance import EditDistanceConfig

TWO = dataclasses.replace(TINY, core_layers=2, num_loops=3)
SHARED = {
    "attention": {"core_tied": "attention", "norm": "layer", "bias": True},
    "feedforward": {"core_tied": "feedforward", "activation": "swiglu", "modulation": "scale_gate"},
    "low rank": {"lora_rank": 2, "norm": "layer", "bias": True, "activation": "swiglu", "d_head": 3},
    "grouped": {"lora_rank": 9, "num_kv_heads": 1, "qkv_bias": True, "gated_attention": True, "qk_norm": "head"},
    "two norms": {"core_tied": "attention", "norm_place": "before_branch", "qk_norm": "full", "num_kv_heads": 1},
    "no gain": {"lora_rank": 16, "norm_gain": False, "causal": True, "cache": "first", "values": "state"},
}


def shared(name: str) -> ModelConfig:
    return dataclasses.replace(TWO, **SHARED[name])


@pytest.mark.parametrize("name", SHARED)
def test_costs_equal_the_built_model(name):
    config = shared(name)
    model, (inputs, _) = LoopedTransformer(config), inputs_for(config, batch=1)
    assert count.parameters(config) == sum(p.numel() for p in model.parameters()) > count.parameters(TWO)
    for loops in (1, 3):
        with FlopCounterMode(display=False) as counter:
            model(inputs, num_loops=loops)
        assert count.flops(config, 6, loops) == counter.get_total_flops()


@pytest.mark.parametrize("tied", ["attention", "feedforward"])
def test_partial_sharing_equals_six_layers_with_equal_parts(tied):
    """Values, and the gradient of a shared part as the sum over its uses."""
    model = build(dataclasses.replace(TWO, core_tied=tied, modulation="none"))
    plain = build(dataclasses.replace(TWO, core_layers=6, num_loops=1))
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("core.")}
    for t in range(3):
        for j in range(2):
            prefix = f"core.{j}.blocks.{t}."
            own = {n.removeprefix(prefix): v for n, v in model.state_dict().items() if n.startswith(prefix)}
            state |= {f"core.{2 * t + j}.{name}": value for name, value in own.items()}
    plain.load_state_dict(state)
    inputs, attention_mask = inputs_for(TWO)
    outputs = [m(inputs, attention_mask=attention_mask).logits for m in (model, plain)]
    assert torch.equal(*outputs)
    actual, expected = (gradients(m, y.sin().sum()) for m, y in zip((model, plain), outputs, strict=True))
    for name, gradient in actual.items():
        if name.startswith("core."):
            _, layer, _, loop, *rest = name.split(".")
            uses = range(3) if rest[0].startswith(tied) else [int(loop)]
            parts = [expected[f"core.{2 * t + int(layer)}.{'.'.join(rest)}"] for t in uses]
            assert_close(gradient, torch.stack(parts).sum(0))
    assert sum(n.startswith("core.0") and n.split(".")[4].startswith(tied) for n in actual) == 3


def test_low_rank_changes_equal_whole_matrices():
    """Values and gradients against a plain block whose matrices are W + B A, in each loop."""
    model: Any = build(dataclasses.replace(TWO, lora_rank=2, bias=True, core_layers=1))
    plain = build(dataclasses.replace(TWO, bias=True, core_layers=1))
    inputs, _ = inputs_for(TWO)
    x = model.embed(inputs) + model.positions.table[:6]
    for own in model.core[0].blocks:
        weights = {}
        for name in ("attention.qkv", "attention.project", "feedforward.up", "feedforward.down"):
            part = own.get_submodule(name)
            changes = [b @ a for b, a in zip(part.up, part.down, strict=True)]
            assert len(changes) == (3 if name == "attention.qkv" else 1)
            assert all(torch.linalg.matrix_rank(change) == 2 for change in changes)
            weights |= {f"{name}.weight": part.shared.weight + torch.cat(changes), f"{name}.bias": part.bias}
        for name in ("attention_norm.weight", "feedforward_norm.weight"):
            weights[name] = own.get_parameter(name)
        x = torch.func.functional_call(plain.core[0], weights, (x, Context()))
    expected = model.head(model.norm(x))
    actual = model(inputs).logits
    assert_close(actual, expected)
    wanted = gradients(model, expected.sin().sum())
    for name, gradient in gradients(model, model(inputs).logits.sin().sum()).items():
        assert gradient.abs().max() > 0
        assert_close(gradient, wanted[name])


@pytest.mark.parametrize("name", SHARED)
@torch.no_grad()
def test_caches_files_and_attention_maps(name, tmp_path):
    config = dataclasses.replace(shared(name), causal=True)
    model = build(config)
    inputs, _ = inputs_for(config)
    cache = model.new_cache(3, 6)
    parts = [model(inputs[:, i : i + 3], cache=cache).logits for i in (0, 3)]
    assert_close(torch.cat(parts, 1), model(inputs).logits)
    model.float().save(tmp_path)
    assert torch.equal(LoopedTransformer.load(tmp_path)(inputs).logits, model(inputs).logits)
    if "cache" not in SHARED[name]:
        assert attention_maps(model, inputs, keep=[1, 3]).shape == (2, 2, 3, 2, 6, 6)
    with pytest.raises(ValueError, match="num_loops=4: expected at most 3"):
        model(inputs, num_loops=4)


def test_a_new_low_rank_model_has_the_same_matrices_in_every_loop():
    model: Any = LoopedTransformer(dataclasses.replace(TWO, lora_rank=3))
    parts = [block.get_submodule("attention.qkv") for block in model.core[1].blocks]
    assert all(torch.equal(part.weight, parts[0].weight) for part in parts)
    assert all(down.abs().min() > 0 for part in parts for down in part.down)
    assert not torch.equal(parts[0].down[0], parts[1].down[0])
    inputs, _ = inputs_for(TWO)
    given = gradients(model, model(inputs).logits.sin().sum())
    assert given["core.1.blocks.2.attention.qkv.up.2"].abs().max() > 0


@pytest.mark.skipif(library() is None, reason="no C++ compiler here")
def test_shared_parts_run_in_cpp_and_low_rank_changes_in_the_plain_block():
    for settings in (SHARED["attention"], SHARED["low rank"]):
        config = dataclasses.replace(TWO, **{**settings, "d_head": None, "d_model": 32})
        model, (inputs, _) = build(config), inputs_for(config)
        plain = model(inputs).logits
        expected = gradients(model, plain.sin().sum())
        model.compile_core()
        assert_close(model(inputs).logits, plain)
        for name, gradient in gradients(model, model(inputs).logits.sin().sum()).items():
            assert_close(gradient, expected[name])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_loops": 1, "lora_rank": 2}, "lora_rank=2: has no effect when num_loops=1"),
        ({"core_tied": "attention", "lora_rank": 2}, "lora_rank=2: has no effect when core_tied='attention'"),
        ({"lora_rank": 17}, "lora_rank=17: expected 0 to d_model=16"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TWO, **settings)
    with pytest.raises(ValueError, match=r"schedule.max_loops=9: expected <= 3, for which the model has weights"):
        RunConfig(
            model=shared("attention"),
            task=EditDistanceConfig(),
            schedule=ScheduleConfig(kind="random", min_loops=1, max_loops=9),
        )
