"""Standard models that become looped: layers repeated in place, shared layers, and additions that change nothing."""

import dataclasses
import random
from typing import Any

import pytest
import torch
from model_cases import TINY, build, gradients, inputs_for
from tolerance import assert_close

from looped.models import LoopedTransformer
from looped.models.loopify import INITS, loopify, middle

STANDARD = dataclasses.replace(TINY, core_layers=6, num_loops=1, causal=True, norm="layer", bias=True)
LLAMA = dataclasses.replace(
    TINY, core_layers=6, num_loops=1, causal=True, num_kv_heads=1, activation="swiglu", positions="rotary", bias=False,
    tie_embeddings=True, output_size=11,
)  # fmt: skip
QWEN = dataclasses.replace(LLAMA, qkv_bias=True, qk_norm="head", d_head=6, rope_theta=1e6, tie_embeddings=False)
SOURCES = {"gpt2": STANDARD, "llama": LLAMA, "qwen": QWEN}
WHOLE = range(6)


def applied_in_order(model: Any, order: list[int], inputs: torch.Tensor) -> torch.Tensor:
    """The logits of a standard model whose layers are applied in this order, by a copy with these layers."""
    made: Any = LoopedTransformer(dataclasses.replace(model.config, core_layers=len(order))).double()
    made.load_state_dict({n: w for n, w in model.state_dict().items() if not n.startswith("core.")}, strict=False)
    for block, i in zip(made.core, order, strict=True):
        block.load_state_dict(model.core[i].state_dict())
    return made(inputs).logits


# Layers repeated in place


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("core", [range(2, 4), range(5), range(3, 4), WHOLE])
def test_repeated_layers_are_those_of_the_source_in_this_order(name, core):
    model = build(SOURCES[name])
    made = loopify(model, 3, core=core)
    assert (made.config.prelude_layers, made.config.core_layers) == (core.start, len(core))
    assert (made.config.coda_layers, made.num_loops) == (6 - core.stop, 3)
    inputs, _ = inputs_for(model.config)
    source = model(inputs).logits
    assert torch.equal(made(inputs, num_loops=1).logits, source)
    for loops in (2, 3, 4):
        found = made(inputs, num_loops=loops).logits
        order = [*range(core.start), *[*core] * loops, *range(core.stop, 6)]
        assert_close(found, applied_in_order(model, order, inputs))
        assert (found - source).abs().max() > 1e-3


@pytest.mark.parametrize("seed", range(8))
@torch.no_grad()
def test_random_sizes(seed):
    """Repeated: the layers in this order. Shared at full rank: the source."""
    rng = random.Random(seed)
    layers, loops = rng.randint(2, 9), rng.randint(2, 4)
    first = rng.randrange(layers)
    core = range(first, rng.randint(first + 1, layers))
    model = build(dataclasses.replace(SOURCES[rng.choice(list(SOURCES))], core_layers=layers))
    inputs = inputs_for(model.config)[0]
    order = [*range(core.start), *[*core] * loops, *range(core.stop, layers)]
    assert_close(loopify(model, loops, core=core)(inputs).logits, applied_in_order(model, order, inputs))
    first = rng.randint(0, 2)
    shared = range(first, first + loops * rng.randint(1, 3))
    model = build(dataclasses.replace(model.config, core_layers=shared.stop + rng.randint(0, 2)))
    made = loopify(model, loops, init=rng.choice(INITS[1:]), core=shared, lora_rank=model.config.d_model)
    assert made.config.core_layers == len(shared) // loops
    torch.testing.assert_close(made(inputs).logits, model(inputs).logits, rtol=1e-9, atol=1e-9)


def test_the_gradient_of_a_repeated_layer_is_the_sum_over_its_uses():
    model = build(LLAMA)
    made, inputs = loopify(model, 2, core=range(2, 4)), inputs_for(LLAMA)[0]
    long = build(dataclasses.replace(LLAMA, core_layers=8))
    long.load_state_dict({n: w for n, w in model.state_dict().items() if not n.startswith("core.")}, strict=False)
    for block, i in zip(long.core, [0, 1, 2, 3, 2, 3, 4, 5], strict=True):
        block.load_state_dict(model.core[i].state_dict())
    shared, separate = (gradients(m, m(inputs).logits.sin().sum()) for m in (made, long))
    for name in ("attention.qkv.weight", "feedforward.down.weight", "attention_norm.weight"):
        assert_close(shared[f"core.1.{name}"], separate[f"core.3.{name}"] + separate[f"core.5.{name}"])
        assert_close(shared[f"prelude.1.{name}"], separate[f"core.1.{name}"])
        assert_close(shared[f"coda.0.{name}"], separate[f"core.6.{name}"])


def test_the_middle_is_an_eighth_of_the_layers():
    assert [middle(layers, "repeat") for layers in (30, 12, 6, 1)] == [
        range(13, 17), range(5, 7), range(2, 3), range(1)
    ]  # fmt: skip
    assert middle(30, "average") == range(1, 29)
    assert loopify(build(STANDARD), 2).config == dataclasses.replace(
        STANDARD, prelude_layers=2, core_layers=1, coda_layers=3, num_loops=2
    )


def test_a_model_with_prelude_and_coda_of_one_loop_is_a_source_too():
    config = dataclasses.replace(STANDARD, prelude_layers=1, core_layers=2, coda_layers=3)
    model, inputs = build(config), inputs_for(config)[0]
    made = loopify(model, 2, core=range(4, 6))
    assert torch.equal(made(inputs, num_loops=1).logits, model(inputs).logits)
    assert made.config.prelude_layers == 4


# Shared layers


@pytest.mark.parametrize("init", ["average", "stepwise", "lower"])
@pytest.mark.parametrize("name", SOURCES)
@torch.no_grad()
def test_at_full_rank_nothing_is_lost_and_the_matrices_come_nearer_with_the_rank(name, init):
    config = SOURCES[name]
    inputs, attention_mask = inputs_for(config)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        for core, loops in ((WHOLE, 3), (range(1, 5), 2)):
            model = build(config).to(dtype)
            found = loopify(model, loops, init=init, core=core, lora_rank=16)
            expected = model(inputs, attention_mask=attention_mask).logits
            torch.testing.assert_close(
                found(inputs, attention_mask=attention_mask).logits, expected, rtol=tolerance, atol=tolerance
            )
    model, errors = build(config), []
    for rank in (1, 4, 8, 16):
        found: Any = loopify(model, 2, init=init, core=WHOLE, lora_rank=rank)
        blocks = found.core[1].blocks
        errors.append(
            sum(
                (own.get_submodule(name).weight - model.core[i].get_submodule(name).weight).square().sum().item()
                for own, i in zip(blocks, (1, 4), strict=True)
                for name in ("attention.qkv", "feedforward.down")
            )
        )
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 1e-20


@torch.no_grad()
def test_rank_0_is_the_tied_model():
    model = build(STANDARD)
    expected: dict[Any, Any] = {
        "average": lambda name, j: sum(model.core[i].get_parameter(name) for i in (j, j + 2, j + 4)) / 3,
        "lower": lambda name, j: model.core[j].get_parameter(name),
        "stepwise": lambda name, j: model.core[(0, 5)[j]].get_parameter(name),
    }
    for init, formula in expected.items():
        tied = loopify(model, 3, init=init, core=WHOLE)
        assert tied.config == dataclasses.replace(STANDARD, core_layers=2, num_loops=3)
        for j, block in enumerate(tied.core):
            for name, value in block.named_parameters():
                assert_close(value, formula(name, j))
        assert torch.equal(tied.head.weight, model.head.weight)
        assert tied.embed.weight.data_ptr() != model.embed.weight.data_ptr()


@torch.no_grad()
def test_first_and_last_layers_stay_their_own_by_default():
    model = build(STANDARD)
    tied = loopify(model, 2, init="stepwise")
    assert (tied.config.prelude_layers, tied.config.core_layers, tied.config.coda_layers) == (1, 2, 1)
    for block, i in zip([*tied.prelude, *tied.core, *tied.coda], (0, 1, 4, 5), strict=True):
        for name, value in block.named_parameters():
            assert torch.equal(value, model.core[i].get_parameter(name))


# Additions that change nothing at first


@pytest.mark.parametrize("modulation", ["scale_gate", "adaln_zero", "table", "rezero"])
@pytest.mark.parametrize("name", SOURCES)
def test_modulation_and_concatenated_input_begin_as_if_absent(name, modulation):
    model, inputs = build(SOURCES[name]), inputs_for(SOURCES[name])[0]
    plain = loopify(model, 3, core=range(2, 4))
    made: Any = loopify(model, 3, core=range(2, 4), modulation=modulation, injection="concat")
    for loops in (1, 2, 3):
        assert torch.equal(made(inputs, num_loops=loops).logits, plain(inputs, num_loops=loops).logits)
    given = gradients(made, made(inputs).logits.sin().sum())
    moved = given["injection.linear.weight"].chunk(2, dim=1)
    assert all(part.abs().max() > 0 for part in moved), "training can bring the input in"
    assert any(g.abs().max() > 0 for n, g in given.items() if n.startswith("modulation"))


def test_an_added_input_changes_later_loops_only():
    model, inputs = build(LLAMA), inputs_for(LLAMA)[0]
    plain, made = (loopify(model, 2, injection=kind) for kind in ("none", "add"))
    assert torch.equal(made(inputs, num_loops=1).logits, model(inputs).logits)
    assert (made(inputs).logits - plain(inputs).logits).abs().max() > 1e-3
    state = plain.loop(inputs, num_loops=2).initial
    loop = made.loop(inputs, num_loops=2)
    once = loop.step(loop.initial, 0)
    assert_close(loop.step(once, 1), plain.loop(inputs, num_loops=2).step(once + state, 1))


def test_changes_of_low_rank_begin_at_zero_in_repeated_layers():
    model, inputs = build(LLAMA), inputs_for(LLAMA)[0]
    made = loopify(model, 2, core=range(2, 4), lora_rank=2)
    assert_close(made(inputs).logits, loopify(model, 2, core=range(2, 4))(inputs).logits)
    given = gradients(made, made(inputs).logits.sin().sum())
    for loop in (0, 1):
        assert given[f"core.0.blocks.{loop}.feedforward.down.up.0"].abs().max() > 0


# Mistakes


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({}, {"loops": 0}, "loops=0: expected 1 or more with init='repeat'"),
        ({}, {"loops": 1, "init": "lower"}, "loops=1: expected 2 or more with init='lower'"),
        ({}, {"loops": 3, "init": "lower"}, "loops=3: expected a divisor of the 4 layers 1-4 of the core"),
        ({}, {"loops": 2, "core": range(4, 7)}, "core='4-6': expected layers among 0-5, in ascending order"),
        ({}, {"loops": 2, "core": range(4, 4)}, "core='4-3': expected layers among 0-5"),
        ({}, {"loops": 2, "lora_rank": 17}, "lora_rank=17: expected 0 to d_model=16"),
        ({}, {"loops": 1, "lora_rank": 2}, "lora_rank=2: has no effect when num_loops=1"),
        ({"core_layers": 2}, {"loops": 2, "init": "average"}, "core='1-0': expected layers among 0-1"),
        ({"num_loops": 2}, {"loops": 3}, r"model.num_loops=2: expected 1 in a model whose layers become loops"),
        ({"modulation": "rezero"}, {"loops": 3}, r"model.modulation='rezero': expected 'none'"),
    ],
)
def test_models_that_cannot_become_looped(settings, options, message):
    with pytest.raises(ValueError, match=message):
        loopify(LoopedTransformer(dataclasses.replace(STANDARD, **settings)), **options)


def test_a_table_has_as_many_rows_as_loops():
    made, inputs = loopify(build(LLAMA), 2, modulation="table"), inputs_for(LLAMA)[0]
    with pytest.raises(ValueError, match="num_loops=3: expected at most 2, the max_loops"):
        made(inputs, num_loops=3)
