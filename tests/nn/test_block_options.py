"""The options that blocks of today's models need, against the published formulas."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tolerance import assert_close
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama import LlamaConfig

from looped.config import ModelConfig
from looped.nn.attention import _fused_is_faster, dot_product_attention
from looped.nn.block import TransformerBlock
from looped.nn.positions import RotaryAngles
from looped.nn.protocols import Context

D, HEADS, WIDTH, SEQ = 8, 4, 6, 5
NORM_PLACES = ("before", "after", "branch", "before_branch", "before_after")


def rms(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    return gain * x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt()


def turned(x: Tensor, theta: float) -> Tensor:
    """Each pair (x_k, x_{k + half}) as a complex number, times e^(i position theta^(-2k / width))."""
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half], x[..., half:])
    angles = torch.arange(len(x))[:, None] * theta ** (-torch.arange(half, dtype=torch.float64) / half)
    pairs = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([pairs.real, pairs.imag], -1)


def attended(given: Tensor, w: Mapping[str, Tensor], config: ModelConfig) -> Tensor:
    """One head after another, for one sequence (seq, d_model)."""
    inner, keys = HEADS * WIDTH, config.kv_heads * WIDTH
    projected = given @ w["attention.qkv.weight"].T + w.get("attention.qkv.bias", 0)
    q, k, v = projected.split([inner, keys, keys], -1)
    if config.qk_norm == "full":
        q, k = (rms(x, w[f"attention.{n}_norm.weight"], 1e-3) for x, n in ((q, "query"), (k, "key")))
    mixed = []
    for head in range(HEADS):
        of = head // (HEADS // config.kv_heads)
        one, two, three = q.split(WIDTH, -1)[head], k.split(WIDTH, -1)[of], v.split(WIDTH, -1)[of]
        if config.qk_norm == "head":
            one, two = (rms(x, w[f"attention.{n}_norm.weight"], 1e-3) for x, n in ((one, "query"), (two, "key")))
        scores = turned(one, 50.0) @ turned(two, 50.0).T / math.sqrt(WIDTH)
        scores = scores.masked_fill(~torch.ones(SEQ, SEQ).tril().bool(), -math.inf)
        mixed.append(scores.softmax(-1) @ three)
    heads = torch.cat(mixed, -1)
    if config.gated_attention:
        heads = heads * torch.sigmoid(given @ w["attention.gate.weight"].T)
    return heads @ w["attention.project.weight"].T


def formula(x: Tensor, w: Mapping[str, Tensor], config: ModelConfig) -> Tensor:
    def norm(x: Tensor, name: str) -> Tensor:
        return rms(x, w[f"{name}_norm.weight"], 1e-3)

    def feedforward(x: Tensor) -> Tensor:
        return (x @ w["feedforward.up.weight"].T).relu() @ w["feedforward.down.weight"].T

    for name in ("attention", "feedforward"):

        def f(x: Tensor, name: str = name) -> Tensor:
            return attended(x, w, config) if name == "attention" else feedforward(x)

        x = {
            "before": lambda x, n=name, f=f: x + f(norm(x, n)),
            "after": lambda x, n=name, f=f: norm(x + f(x), n),
            "branch": lambda x, n=name, f=f: x + norm(f(x), n),
            "before_branch": lambda x, n=name, f=f: x + norm(f(norm(x, n)), f"{n}_output"),
            "before_after": lambda x, n=name, f=f: norm(x + f(norm(x, n)), f"{n}_output"),
        }[config.norm_place](x)
    return x


@pytest.mark.parametrize("place", NORM_PLACES)
@pytest.mark.parametrize(
    "options",
    [{}, {"num_kv_heads": 2, "qk_norm": "full"}, {"num_kv_heads": 1, "qk_norm": "head", "qkv_bias": True},
     {"gated_attention": True, "qk_norm": "head"}],
    ids=["plain", "grouped, full", "one key head, head", "gated"],
)  # fmt: skip
def test_block_equals_the_formula(place, options):
    """Values and every gradient."""
    settings: dict[str, Any] = {"norm_place": place, "norm_epsilon": 1e-3, "rope_theta": 50.0, **options}
    config = ModelConfig(
        d_model=D, num_heads=HEADS, d_head=WIDTH, positions="rotary", activation="relu", causal=True, **settings
    )
    torch.manual_seed(0)
    block = TransformerBlock(config).double()
    with torch.no_grad():
        for weight in block.parameters():
            weight.normal_(0.2, 0.5)
    x = torch.randn(SEQ, D, dtype=torch.float64)
    mask = torch.ones(1, 1, SEQ, SEQ).tril().bool()
    weights = dict(block.named_parameters())
    actual, expected = block(x[None], Context(mask))[0], formula(x, weights, config)
    # Angles are computed in float32.
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    found, wanted = (torch.autograd.grad(y.sin().sum(), list(weights.values())) for y in (actual, expected))
    assert all(gradient.abs().max() > 1e-3 for gradient in wanted)
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"),
    [("linear", {"factor": 4.0}, {"factor": 4.0}),
     ("llama3", {"factor": 8.0, "bands": (1.0, 4.0, 64.0)},
      {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64})],
)  # fmt: skip
def test_rotary_frequencies_equal_those_of_transformers(kind, ours, theirs):
    config = LlamaConfig(
        hidden_size=128, num_attention_heads=4, rope_parameters={"rope_type": kind, "rope_theta": 500.0, **theirs}
    )
    expected, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    assert factor == 1
    frequencies = RotaryAngles(32, theta=500.0, **ours).frequencies(torch.device("cpu"))
    assert_close(frequencies, expected)
    assert not torch.equal(frequencies, RotaryAngles(32, theta=500.0).frequencies(torch.device("cpu")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"num_kv_heads": 3}, "num_kv_heads=3: expected a divisor of num_heads=4"),
     ({"rope_theta": 5e5}, "rope_theta=500000.0: has no effect when positions='learned'"),
     ({"positions": "rotary", "rope_bands": (1.0, 4.0, 64.0)}, "rope_bands=.*: has no effect when rope_factor=1"),
     ({"positions": "rotary", "rope_factor": 2.0, "rope_bands": (4.0, 1.0, 64.0)}, "rope_bands=.*: expected .low,"),
     ({"positions": "rotary", "rope_factor": 0.0}, "rope_factor=0.0: expected above 0"),
     ({"norm_epsilon": 0.0}, "norm_epsilon=0.0: expected above 0"),
     ({"coda_norm": True}, "coda_norm=True: has no effect when coda_layers=0"),
     ({"norm_place": "branch", "values": "state"}, "values='state': has no effect when norm_place='branch'"),
     ({"norm": "none", "norm_epsilon": 1e-3}, "norm_epsilon=0.001: has no effect when there is no norm")],
)  # fmt: skip
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**settings)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_many_queries_without_gradient_give_what_few_give(heads):
    """torch's kernel takes the place of two products. A query without keys keeps the mean of all values."""
    torch.manual_seed(0)
    q, (k, v) = torch.randn(2, 4, 70, 8, dtype=torch.float64), torch.randn(2, 2, heads, 70, 8, dtype=torch.float64)
    mask = torch.ones(2, 1, 70, 70, dtype=torch.bool).tril()
    empty = mask.clone()
    empty[1, :, 3] = False
    masks: Any = (None, mask, empty)
    for given in masks:
        expected = dot_product_attention(q.requires_grad_(), k, v, given)
        rows = None if given is None else given.split(7, dim=2)
        with torch.no_grad():
            actual = dot_product_attention(q, k, v, given)
            few = [dot_product_attention(part, k, v, rows and rows[i]) for i, part in enumerate(q.split(7, dim=2))]
        assert_close(actual, expected.detach())
        assert_close(actual, torch.cat(few, dim=2))
    assert _fused_is_faster(q.detach(), mask) is False
    with torch.no_grad():
        without_keys = dot_product_attention(q, k, v, empty)[1, :, 3]
        assert_close(without_keys, v[1].mean(1).repeat_interleave(4 // heads, 0))
        assert _fused_is_faster(q.detach(), mask)
        assert not _fused_is_faster(q.detach(), empty)
