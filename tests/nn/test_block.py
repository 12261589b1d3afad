"""The block against torch's own layer, its gradients, and the published formula of the modulation."""

import dataclasses
import math

import pytest
import torch
from tolerance import assert_close

from looped.config import ModelConfig
from looped.nn.attention import dot_product_attention
from looped.nn.block import TransformerBlock
from looped.nn.modulation import LAYER_NAMES, TimestepNetwork, by_layer, make_modulation
from looped.nn.positions import RotaryAngles, rotate, sinusoid
from looped.nn.protocols import Context

TINY = ModelConfig(d_model=8, num_heads=2)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_block_equals_torch_encoder_layer(causal, activation, place):
    config = dataclasses.replace(TINY, norm="layer", bias=True, activation=activation, causal=causal, norm_place=place)
    torch.manual_seed(0)
    ours = TransformerBlock(config).double()
    theirs = torch.nn.TransformerEncoderLayer(
        8,
        2,
        32,
        dropout=0.0,
        activation=activation,
        batch_first=True,
        dtype=torch.float64,
        norm_first=place == "before",
    )
    pairs = {
        "self_attn.in_proj_": ours.attention.qkv,
        "self_attn.out_proj.": ours.attention.project,
        "linear1.": ours.feedforward.up,
        "linear2.": ours.feedforward.down,
        "norm1.": ours.attention_norm,
        "norm2.": ours.feedforward_norm,
    }
    with torch.no_grad():
        for p in ours.parameters():
            p.normal_(0, 0.5)
    theirs.load_state_dict({key + name: p.detach() for key, m in pairs.items() for name, p in m.named_parameters()})
    x = torch.randn(3, 7, 8, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(7, 7).tril().bool() if causal else None
    expected = theirs(x, src_mask=None if mask is None else ~mask)
    actual = ours(x, Context(None if mask is None else mask[None, None]))
    assert (expected - x).abs().max() > 0.1
    assert_close(actual, expected)
    (wanted,) = torch.autograd.grad(expected.sin().sum(), x, retain_graph=True)
    (got,) = torch.autograd.grad(actual.sin().sum(), x)
    assert wanted.abs().max() > 0.1
    assert_close(got, wanted)


def test_scales_shifts_and_gates_of_a_norm_after_the_sum():
    """Values and the gradient of every weight and vector, against the formula written with matrices."""
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, num_heads=1, norm_place="after", activation="relu")
    block = TransformerBlock(config).double()
    vectors = {name: torch.randn(8, dtype=torch.float64) for name in block.modulation_names}
    leaves = {**vectors, **{name: p.detach() + 0.2 for name, p in block.named_parameters()}}
    x = torch.randn(2, 5, 8, dtype=torch.float64)

    def rms(x, gain):
        return gain * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    def formula(x, w):
        x = x + w["input_shift"]
        given = x * w["attention_scale"] + w["attention_shift"]
        q, k, v = (given @ part.T for part in w["attention.qkv.weight"].split(8))
        mixed = (q @ k.transpose(1, 2) / math.sqrt(8)).softmax(-1) @ v @ w["attention.project.weight"].T
        x = rms(x + w["attention_gate"] * mixed, w["attention_norm.weight"])
        hidden = (x * w["feedforward_scale"] + w["feedforward_shift"]) @ w["feedforward.up.weight"].T
        changed = hidden.relu() @ w["feedforward.down.weight"].T
        return rms(x + w["feedforward_gate"] * changed, w["feedforward_norm.weight"])

    def ours(x, w):
        weights = {name: value for name, value in w.items() if name not in vectors}
        return torch.func.functional_call(block, weights, (x, Context(modulation={n: w[n] for n in vectors})))

    results = []
    for function in (formula, ours):
        w = {name: value.clone().requires_grad_() for name, value in leaves.items()}
        y = function(x, w)
        results.append([y, *torch.autograd.grad(y.sin().sum(), list(w.values()))])
    assert all(gradient.abs().max() > 1e-3 for gradient in results[0])
    for expected, actual in zip(*results, strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"norm": "none"}, "norm_place='after': has no effect when norm='none'"),
     ({"feedforward_norm": False}, "feedforward_norm=False: has no effect when norm_place='after'"),
     ({"values": "state"}, "values='state': has no effect when norm_place='after'"),
     ({"loop_norm": True}, "loop_norm=True: has no effect when there is no final norm")],
)  # fmt: skip
def test_settings_without_effect_beside_norms_after_the_sum(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(norm_place="after", **settings)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("modulation", LAYER_NAMES)
def test_gradcheck_with_each_modulation(modulation, place):
    """The gradients of the input and of every weight, in a loop after the first."""
    options = {"table": {"max_loops": 3}}.get(modulation, {})
    torch.manual_seed(0)
    config: ModelConfig = dataclasses.replace(TINY, modulation=modulation, norm_place=place, **options)
    parts = torch.nn.ModuleDict({"block": TransformerBlock(config)})
    modulated = make_modulation(config)
    if modulated is not None:
        assert isinstance(modulated, torch.nn.Module)
        parts["modulation"] = modulated
    parts.double()
    weights = {name: (p + 0.2 * torch.randn_like(p)).detach().requires_grad_() for name, p in parts.named_parameters()}
    x = torch.randn(1, 3, 8, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(3, 3).tril().bool()[None, None]

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = parts

        def forward(self, x):
            factors = {}
            if modulated is not None:
                names = modulated.names
                factors = by_layer(modulated(3, x.device)[2], names)[0]
            return parts["block"](x, Context(mask, modulation=factors))

    def run(x, *values):
        given = {f"parts.{name}": value for name, value in zip(weights, values, strict=True)}
        return torch.func.functional_call(Layer(), given, (x,))

    changed = {name: w + 0.1 for name, w in weights.items()}
    assert not torch.equal(run(x, *weights.values()), run(x, *changed.values())), "the weights must matter"
    assert torch.autograd.gradcheck(run, (x, *weights.values()), fast_mode=True)


def test_modulation_is_the_published_formula():
    time = TimestepNetwork(
        12, ["attention_scale", "feedforward_scale", "attention_gate", "feedforward_gate"], 1
    ).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for p in time.parameters():
            p.normal_(0, 0.3)
    found = time(5, torch.device("cpu"))
    for t in range(5):
        p = torch.tensor(
            [math.cos(t * 10000 ** (-k / 128)) for k in range(128)]
            + [math.sin(t * 10000 ** (-k / 128)) for k in range(128)],
            dtype=torch.float64,
        )
        silu = lambda v: v / (1 + (-v).exp())  # noqa: E731
        embedded = time.embed.weight @ silu(time.hidden.weight @ p + time.hidden.bias) + time.embed.bias
        s_a, s_m, g_a, g_m = (time.output.weight @ silu(embedded) + time.output.bias).chunk(4)
        torch.testing.assert_close(found[t], torch.stack([1 + s_a, 1 + s_m, g_a, g_m]), rtol=1e-5, atol=1e-5)
    assert (found[0] - found[4]).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["index", "fraction", "both"])
def test_timestep_kinds(kind):
    time = TimestepNetwork(8, ["attention_scale"], 1, timestep=kind)
    short, long = time.encoding(4, torch.device("cpu")), time.encoding(8, torch.device("cpu"))
    index, fraction = torch.equal(short[:4, :256], long[:4, :256]), torch.equal(short[:, -256:], long[::2, -256:])
    assert (index, fraction) == {"index": (True, False), "fraction": (False, True), "both": (True, True)}[kind]
    assert short.shape == (4, 512 if kind == "both" else 256)


def test_attention_equals_torch_with_any_mask():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 5, 4, dtype=torch.float64)
    mask = torch.rand(2, 1, 5, 5) > 0.4
    mask[..., 0] = True
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert_close(dot_product_attention(q, k, v, mask), expected)
    nothing = dot_product_attention(q, k, v, torch.zeros(1, 1, 5, 5, dtype=torch.bool))
    assert nothing.isfinite().all()


def test_hardmax_and_linear_attention_by_hand():
    torch.manual_seed(0)
    q, k = torch.randint(-2, 3, (2, 2, 2, 5, 4), dtype=torch.float64)
    v = torch.randint(-9, 10, (2, 2, 5, 4), dtype=torch.float64)
    mask = torch.rand(2, 1, 5, 5) > 0.3
    mask[..., 0] = True
    hard, linear = dot_product_attention(q, k, v, mask, "hardmax"), dot_product_attention(q, k, v, mask, "linear")
    ties = 0
    for b, h, i in torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(5)).tolist():
        seen = [j for j in range(5) if mask[b, 0, i, j]]
        scores = {j: float(q[b, h, i] @ k[b, h, j]) / 2 for j in seen}  # sqrt(head_dim) is 2
        best = [j for j in seen if scores[j] == max(scores.values())]
        ties += len(best) > 1
        assert torch.equal(hard[b, h, i], v[b, h, best].sum(0) / len(best))
        assert_close(linear[b, h, i], torch.stack([scores[j] * v[b, h, j] for j in seen]).sum(0))
    assert ties > 0
    soft = [(dot_product_attention(scale * q, k, v, mask) - hard).abs().max() for scale in (1, 10, 100)]
    assert soft[0] > soft[1] > soft[2]
    assert soft[2] < 1e-9


def test_head_width_is_free():
    config = ModelConfig(d_model=7, num_heads=2, d_head=3)
    x = torch.randn(1, 4, 7)
    assert (config.head_dim, TransformerBlock(config)(x).shape) == (3, x.shape)
    with pytest.raises(ValueError, match="num_heads=2: expected a divisor of d_model=7, or d_head"):
        ModelConfig(d_model=7, num_heads=2)
    with pytest.raises(ValueError, match="d_head=0"):
        ModelConfig(d_head=0)


def test_rotation_depends_on_the_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64).expand(2, 1, 1, 9, 8)
    by = RotaryAngles(8)(torch.arange(9))
    scores = (rotate(q, by) @ rotate(k, by).transpose(-1, -2))[0, 0]
    assert (scores[0] - scores[0, 0]).abs().max() > 0.1
    for offset in range(-8, 9):
        diagonal = scores.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-5, atol=1e-5)


def test_sinusoid_values():
    row = sinusoid(torch.tensor([2.0], dtype=torch.float64), 4)[0]
    expected = [math.cos(2), math.cos(2 / 100), math.sin(2), math.sin(2 / 100)]
    assert_close(row, torch.tensor(expected, dtype=torch.float64))
