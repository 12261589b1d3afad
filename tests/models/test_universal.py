"""The original Universal Transformer, written out with torch's own attention."""

import math
from typing import Any

import torch
from model_cases import VARIANTS, build, gradients, inputs_for
from torch.nn import functional as F


def signal(number: int, width: int) -> torch.Tensor:
    """sin and cos of number / 10000^(2j/d) in turn, as in the publication (Dehghani et al., 2019, section 2)."""
    angles = [number / 10_000 ** (2 * j / width) for j in range(width // 2)]
    return torch.tensor([[math.sin(angle), math.cos(angle)] for angle in angles], dtype=torch.float64).flatten()


def test_a_configuration_is_the_original_universal_transformer():
    """A = LN(H + P + attention(H + P)); H = LN(A + transition(A)); P holds position and timestep, before every step."""
    config = VARIANTS["universal"]
    model, (inputs, attention_mask), d = build(config), inputs_for(config), config.d_model
    block: Any = model.core[0]
    attention = torch.nn.MultiheadAttention(d, config.num_heads, batch_first=True, dtype=torch.float64)
    weights = {
        "in_proj_weight": block.attention.qkv.weight, "in_proj_bias": block.attention.qkv.bias,
        "out_proj.weight": block.attention.project.weight, "out_proj.bias": block.attention.project.bias,
    }  # fmt: skip
    waves = [F.one_hot(torch.tensor(2 * k + odd), d) for odd in (1, 0) for k in range(d // 2)]
    order = torch.stack(waves).double()  # our sinusoids are cosines, then sines
    h = model.embed(inputs)
    for t in range(config.num_loops):
        p = torch.stack([signal(i, d) for i in (*range(inputs.shape[1]), t)])
        h = h + (p[:-1] + p[-1]) @ order.T
        mixed, _ = torch.func.functional_call(attention, weights, (h, h, h), {"key_padding_mask": ~attention_mask})
        norms = [(norm.weight, norm.bias) for norm in (block.attention_norm, block.feedforward_norm)]
        a = F.layer_norm(h + mixed, (d,), *norms[0])
        hidden = F.linear(a, block.feedforward.up.weight, block.feedforward.up.bias).relu()
        changed = F.linear(hidden, block.feedforward.down.weight, block.feedforward.down.bias)
        h = F.layer_norm(a + changed, (d,), *norms[1])
    expected = model.head(h)
    actual = model(inputs, attention_mask=attention_mask).logits
    assert (actual - model(inputs, attention_mask=attention_mask, num_loops=4).logits).abs().max() > 0.01
    # Not as close as float64, because the table of positions is in float32.
    torch.testing.assert_close(actual[attention_mask], expected[attention_mask], rtol=1e-5, atol=1e-6)
    wanted = gradients(model, expected[attention_mask].sin().sum())
    found = gradients(model, model(inputs, attention_mask=attention_mask).logits[attention_mask].sin().sum())
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-5)
