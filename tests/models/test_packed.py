"""Packed models compute what the models compute; an int8 head stays within its bound."""

import dataclasses

import jaxtyping
import pytest
import torch
from model_cases import TINY, VARIANTS
from tolerance import assert_close
from torch import nn
from torch.nn import functional as F

from looped.models import LoopedModel, LoopedTransformer, parse_rule
from looped.models import packed as packing
from looped.models.generation import Sampling, generate
from looped.models.packed import Int8Linear, PackedLinear, packed

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN"),
]
GREEDY = Sampling(temperature=0.0)


@pytest.fixture
def small(monkeypatch):
    """Small matrices are packed too."""
    monkeypatch.setattr(packing, "LEAST", 1)


def linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    torch.manual_seed(inputs + outputs)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def built(config) -> LoopedTransformer:
    model = LoopedTransformer(dataclasses.replace(config, causal=True, max_seq_len=24), seed=1).requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return model.eval()


@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_layer_is_the_layer_and_its_rows_do_not_depend_on_each_other(bias: bool):
    for inputs, outputs in ((1, 1), (7, 3), (64, 200), (33, 1000)):
        layer = linear(inputs, outputs, bias)
        for rows in (1, 2, 9, 70):
            x = torch.randn(rows, 1, inputs)
            assert_close(PackedLinear(layer)(x), layer(x))
            assert torch.equal(PackedLinear(layer)(x)[:1], PackedLinear(layer)(x[:1]))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_the_largest_output_of_an_int8_layer_is_exact_and_the_error_of_the_others_is_bounded(bias: bool, spread: float):
    """With a small spread all rows of the weights are nearly equal, so that all outputs nearly tie."""
    for inputs, outputs in ((1, 1), (7, 3), (64, 200), (33, 1000)):
        layer = linear(inputs, outputs, bias)
        layer.weight.mul_(spread).add_(layer.weight[:1].clone())
        x = torch.randn(5, 1, inputs) * torch.tensor([1e-30, 1, 3, 1e10, 0])[:, None, None]
        int8 = Int8Linear(layer)
        found, expected, weight = int8(x), layer(x), layer.weight.abs()
        # Each number is off by at most half a step: 1/254 of the largest of its row.
        a, b = x.abs(), weight.amax(1) / 254
        bound = a.sum(-1, keepdim=True) * b + a.amax(-1, keepdim=True) / 254 * (weight.sum(1) + inputs * b)
        assert ((found - expected).abs() <= bound * 1.001 + 1e-5 * expected.abs()).all()
        assert outputs < 100 or spread < 1 or (found - expected).abs().max() > 0
        true = F.linear(x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double())
        short = true.amax(-1) - true.gather(-1, found.argmax(-1, keepdim=True))[..., 0]
        rounding = 1e-6 * (x.norm(dim=-1) * layer.weight.norm(dim=-1).amax() + float(bias))
        assert (short <= rounding).all(), "the largest output must be the layer's"
        assert_close(found.amax(-1), expected.amax(-1))
        assert_close(int8(x[1:2]), found[1:2])  # a row does not depend on the others
        assert_close(Int8Linear(layer, 1)(x), expected[..., :1])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", [name for name, config in VARIANTS.items() if config.inputs == "tokens"])
def test_a_packed_model_is_the_model(name: str):
    model = built(VARIANTS[name])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    view = packed(model)
    assert any(isinstance(module, PackedLinear) for module in view.core.modules())
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    tokens = torch.arange(18).view(2, 9) * 7 % 11
    for loops in (1, 3):
        assert_close(view(tokens, num_loops=loops).logits, model(tokens, num_loops=loops).logits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {id(p) for p in view.parameters()} == {id(p) for p in model.parameters()}


@pytest.fixture
def unchecked():
    """Checks of types in every call would take most of the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("small", "unchecked")
@pytest.mark.parametrize("rule", [None, "kl:0.05/token"])
@pytest.mark.parametrize("policy", [None, "first", "ring"])
def test_packed_weights_write_the_same_texts(rule: str | None, policy, monkeypatch):
    model = built(dataclasses.replace(TINY, prelude_layers=1, coda_layers=1, positions="rotary", output_size=11))
    prompts = [torch.arange(n) * 7 % 11 for n in (1, 4)]
    options = {
        "max_new_tokens": 16,
        "sampling": Sampling(temperature=4.0),
        "exit_rule": rule and parse_rule(rule),
        "cache_policy": policy,
    }
    packs = []
    monkeypatch.setattr(packing, "PackedLinear", lambda layer: packs.append(layer) or PackedLinear(layer))
    texts = generate(model, prompts, **options)
    assert packs
    monkeypatch.setattr(packing, "packable", lambda module: False)
    assert generate(model, prompts, **options) == texts
    assert len(set(texts[0])) > 5


class Own(nn.Module):
    """A block of another package."""

    kv_shape = (0, 0)

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = nn.Linear(16, 16), 0

    def forward(self, x, context):
        self.calls += 1
        return x + self.inner(x)


@pytest.mark.usefixtures("small")
def test_own_blocks_and_layers_with_hooks_stay_as_they_are():
    own, hooked = Own(), nn.Linear(16, 11)
    seen = []
    hooked.register_forward_hook(lambda *_: seen.append(1))
    model = LoopedModel(embed=nn.Embedding(11, 16), core=[own, own], head=hooked, causal=True, num_loops=2).eval()
    view = packed(model)
    assert view is model
    model.norm = nn.Sequential(nn.Linear(16, 16))
    view = packed(model)
    assert view is not model
    assert isinstance(view.norm[0], PackedLinear)
    generate(model, [torch.tensor([3])], max_new_tokens=20)
    assert own.calls == 80
    assert len(seen) == 20


@pytest.mark.usefixtures("small")
def test_other_types_devices_and_autocast_are_not_packed(monkeypatch):
    model = built(TINY)
    with torch.autocast("cpu", torch.bfloat16):
        assert packed(model) is model
    assert packed(built(TINY).to("meta")).core is not model.core
    half = built(TINY).bfloat16()
    assert packed(half) is half
    monkeypatch.setattr(packing, "memory_of", lambda device: 1)
    assert packed(model) is model


@pytest.mark.usefixtures("small", "unchecked")
def test_greedy_texts_are_exact_with_int8_and_draws_are_close(monkeypatch):
    model = built(dataclasses.replace(TINY, vocab_size=300, output_size=310, d_model=64))
    prompts = [torch.arange(n) * 7 % 300 for n in (1, 5)]
    options = {"max_new_tokens": 20, "vocab_size": 300}
    heads = []
    monkeypatch.setattr(packing, "Int8Linear", lambda *args: heads.append(Int8Linear(*args)) or heads[-1])
    exact = generate(model, prompts, **options, sampling=GREEDY)
    assert heads.pop().out_features == 300
    assert generate(model, prompts, **options, sampling=GREEDY, output_weights="int8") == exact
    drawn = generate(model, prompts, **options, output_weights="int8")
    assert [text[:3] for text in drawn] == generate(
        model, prompts, max_new_tokens=3, vocab_size=300, output_weights="int8"
    )
    assert len(heads) == 3
    generate(model, prompts, **options)
    generate(model, prompts, **options, sampling=GREEDY, exit_rule=parse_rule("kl:0.05"))
    assert len(heads) == 3, "draws and exits that read all logits need exact ones"
    monkeypatch.setattr(packing, "packable", lambda module: False)
    assert generate(model, prompts, **options, sampling=GREEDY) == exact


def test_int8_is_refused_for_other_types_and_heads():
    for other in (built(TINY).double(), LoopedModel(embed=nn.Embedding(9, 4), core=[Own()], head=Own(), causal=True)):
        with pytest.raises(ValueError, match="output_weights='int8': expected a linear head in float32"):
            generate(other, [torch.tensor([1])], max_new_tokens=1, output_weights="int8")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_int8_outputs_are_not_finite_if_an_input_is_not(value: float):
    x = torch.randn(2, 1, 8)
    x[0, 0, 3] = value
    outputs = Int8Linear(linear(8, 40, False))(x)
    assert not outputs[0].amax().isfinite()
    assert outputs[1].isfinite().all()
