"""The block in C++ against the plain block: values, every gradient, memory, and when it must not be used."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import nn

from looped.config import ModelConfig
from looped.models import LoopedTransformer
from looped.nn.native import block as native
from looped.nn.native.library import library

pytestmark = pytest.mark.skipif(library() is None, reason="no C++ compiler here")

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no gain": {"norm_gain": False},
    "layer norm and biases": {"norm": "layer", "bias": True},
    "no norm": {"norm": "none", "final_norm": "rms"},
    "raw feed-forward input": {"feedforward_norm": False, "norm": "layer", "bias": True},
    "additive": {"modulation": "additive"},
    "scale_gate": {"modulation": "scale_gate", "gate_offset": 1},
    "scale_gate with biases": {"modulation": "scale_gate", "norm": "layer", "bias": True},
    "adaln_zero with biases": {"modulation": "adaln_zero", "norm": "layer", "bias": True},
    "adaln_zero": {"modulation": "adaln_zero"},
    "table": {"modulation": "table", "max_loops": 3},
    "rezero": {"modulation": "rezero"},
    "causal": {"causal": True},
    "rotary": {"positions": "rotary"},
    "rotary, causal, scale_gate": {"positions": "rotary", "causal": True, "modulation": "scale_gate"},
    "gelu_tanh": {"activation": "gelu_tanh"},
    "silu": {"activation": "silu"},
    "relu": {"activation": "relu"},
    "swiglu": {"activation": "swiglu", "bias": True},
    "narrow heads": {"num_heads": 4},
    "other sizes": {"d_head": 32, "d_ff": 48},
    "epsilon, base and biases of queries, keys and values": {
        "norm_epsilon": 0.1,
        "positions": "rotary",
        "rope_theta": 9.0,
        "qkv_bias": True,
    },
    "more layers": {"core_layers": 2, "prelude_layers": 1, "coda_layers": 1, "modulation": "scale_gate"},
    "injection": {"input_injection": "concat", "loop_norm": True},
}


def models(**settings: Any) -> tuple[LoopedTransformer, LoopedTransformer]:
    """A model that computes its blocks plainly, and a copy that computes them in C++. No weight is zero."""
    sizes: dict[str, Any] = {
        "vocab_size": 11,
        "output_size": 7,
        "max_seq_len": 90,
        "d_model": 32,
        "num_heads": 2,
        "num_loops": 3,
    }
    plain = LoopedTransformer(ModelConfig(**sizes | settings)).double()
    torch.manual_seed(0)
    for weight in plain.parameters():
        nn.init.normal_(weight, 0.1, 0.3)
    fast = copy.deepcopy(plain)
    fast.compile_core()
    return plain, fast


def gradients(model, inputs, attention_mask=None) -> tuple[torch.Tensor, dict[str, Any]]:
    model.zero_grad()
    logits = model(inputs, attention_mask=attention_mask).logits
    logits.double().sin().sum().backward()
    return logits.detach(), {name: weight.grad for name, weight in model.named_parameters()}


@pytest.fixture(autouse=True)
def count(monkeypatch):
    """Counts the calls of the C++ functions."""
    calls = []
    kept = native.call
    monkeypatch.setattr(native, "call", lambda name, *args, **more: (calls.append(name), kept(name, *args, **more)))
    return calls


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize(("batch", "seq", "padded"), [(1, 1, False), (7, 13, True), (3, 35, True), (40, 5, False)])
def test_gradients(settings, batch, seq, padded, count):
    plain, fast = models(**settings)
    inputs = torch.randint(11, (batch, seq), generator=torch.Generator().manual_seed(1))
    mask = None
    if padded:
        mask = torch.arange(seq) < torch.arange(1, batch + 1)[:, None] % seq + 1
    expected, grads = gradients(plain, inputs, mask)
    assert not count
    logits, found = gradients(fast, inputs, mask)
    layers = len(fast.prelude) + len(fast.core) * 3 + len(fast.coda)
    assert count == ["forward"] * layers + ["backward"] * layers
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-10)
    for name, gradient in grads.items():
        if gradient is None:
            assert found[name] is None, name
        else:
            torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-8 * gradient.abs().max().item())


@pytest.mark.parametrize("modulation", ["none", "additive", "scale_gate", "adaln_zero", "table", "rezero"])
def test_norms_biases_gains_and_modulations_combine(modulation):
    inputs = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(1))
    settings: dict[str, Any] = {"modulation": modulation} | ({"max_loops": 3} if modulation == "table" else {})
    for norm, bias, gain in itertools.product(("rms", "layer"), (False, True), (False, True)):
        plain, fast = models(norm=norm, bias=bias, norm_gain=gain, **settings)
        expected, found = gradients(plain, inputs)[1], gradients(fast, inputs)[1]
        for name, gradient in expected.items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-8 * scale, msg=f"{norm} {name}")


def test_masks_of_each_query():
    plain, fast = models()
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(11, (5, 9), generator=generator)
    mask = torch.rand(5, 9, 9, generator=generator) < 0.6  # some queries may see nothing
    for a, b in zip(gradients(plain, inputs, mask)[1].values(), gradients(fast, inputs, mask)[1].values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu", "swiglu"])
@pytest.mark.parametrize("kind", ["float", "bfloat16"])
def test_precision(kind, activation, count):
    """The error against float64 is at most a little larger than that of the plain block in the same precision."""
    if not hasattr(library(), f"forward_{kind}"):
        pytest.skip("this processor has no bfloat16 products")
    exact, _ = models(modulation="scale_gate", d_model=64, activation=activation)
    for weight in exact.parameters():
        weight.data *= 0.3
    inputs = torch.randint(11, (16, 21))
    reference = gradients(exact, inputs)[1]
    plain, fast = copy.deepcopy(exact).float(), copy.deepcopy(exact).float()
    fast.compile_core()
    errors = []
    for model in (plain, fast):
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bfloat16"):
            found = gradients(model, inputs)[1]
        errors.append(sum(((found[n].double() - g).norm() / g.norm()).item() for n, g in reference.items()))
    assert count
    assert 0 < errors[1] < 1.5 * errors[0]
    assert errors[1] < (1e-4 if kind == "float" else 1) * len(reference) * 0.1


def test_threads_give_the_same_sums():
    _, fast = models(modulation="scale_gate")
    inputs = torch.randint(11, (64, 16))
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 3, 3):
            torch.set_num_threads(number)
            found.append(gradients(fast, inputs)[1])
    finally:
        torch.set_num_threads(threads)
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-9, atol=1e-9)
        assert torch.equal(found[1][name], found[2][name])


def test_not_finite_stays_not_finite():
    _, fast = models()
    fast.embed.weight.data[3, 5] = torch.inf
    logits = fast(torch.tensor([[1, 3], [1, 2]])).logits
    assert logits[0].isnan().any(-1).all()
    assert logits[1].isfinite().all()


def test_another_gradient_of_the_gradient_is_refused():
    _, fast = models()
    (first,) = torch.autograd.grad(
        fast(torch.ones(1, 4, dtype=torch.long)).logits.sum(), fast.embed.weight, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


class Adapted(nn.Linear):
    """A layer that does more than its weight says."""

    def forward(self, input):
        return super().forward(input) + 1


def replaced(model):
    old = model.core[0].attention.qkv
    new = Adapted(old.in_features, old.out_features, bias=False, dtype=torch.float64)
    new.load_state_dict(old.state_dict())
    model.core[0].attention.qkv = new


def hooked(model):
    model.core[0].feedforward.register_forward_hook(lambda module, args, output: output * 2)


def parametrised(model):
    nn.utils.parametrizations.weight_norm(model.core[0].attention.project)


def test_norms_after_the_sum_are_left_to_the_plain_block(count):
    plain, fast = models(norm_place="after", norm="layer", gate_offset=1, modulation="scale_gate")
    inputs = torch.randint(11, (2, 6))
    fast.use_native()
    fast.compiled = False
    assert torch.equal(fast(inputs).logits, plain(inputs).logits)
    assert not count


@pytest.mark.parametrize("change", [replaced, hooked, parametrised])
def test_changed_parts_are_called(change, count, monkeypatch):
    plain, fast = models()
    monkeypatch.setattr(torch, "compile", lambda function: function)  # the plain block is what matters here
    inputs = torch.randint(11, (2, 6))
    for model in (plain, fast):
        change(model)
    torch.testing.assert_close(fast(inputs).logits, plain(inputs).logits)
    assert not count


def test_copies_have_their_own_weights(count):
    """Also of a compiled model: an averaged copy must not compute with the original's weights."""
    _, fast = models()
    inputs = torch.randint(11, (2, 6))
    before = fast(inputs).logits
    other = copy.deepcopy(fast)
    for weight in other.parameters():
        weight.data *= 0.5
    assert not torch.allclose(other(inputs).logits, before)
    torch.testing.assert_close(fast(inputs).logits, before)
    assert count


def kept_numbers(model, inputs) -> int:
    """Numbers that autograd keeps for the backward pass besides weights."""
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes() // tensor.element_size(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(inputs).logits.sum()
    return sum(numbers for numbers, _ in found.values())


def test_eight_states_a_loop():
    _, fast = models(modulation="scale_gate", d_model=64)
    inputs = torch.randint(11, (32, 16))
    few, many = (copy.deepcopy(fast) for _ in range(2))
    state = inputs.numel() * 64
    few.num_loops, many.num_loops = 2, 12
    per_loop = (kept_numbers(many, inputs) - kept_numbers(few, inputs)) / 10 / state
    assert 7.9 < per_loop < 8.1
