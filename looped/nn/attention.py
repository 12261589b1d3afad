"""Multi-head attention: softmax, hardmax or linear."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from looped.config import ModelConfig
from looped.nn.positions import rotate


class Attention(nn.Module):
    """Multi-head attention whose queries and keys come from one input and whose values may come from another."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, inner = config.d_model, config.num_heads * config.head_dim
        self.kind = config.attention
        self.num_heads = config.num_heads
        self.rotary = config.positions == "rotary"
        self.qkv = nn.Linear(d, 3 * inner, bias=config.bias)
        self.project = nn.Linear(inner, d, bias=config.bias)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        value_input: Float[Tensor, "batch seq d_model"],
        mask: Bool[Tensor, "#batch 1 #seq seq"] | None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """`mask` is True where a query (third axis) may see a key (fourth); None lets all see all."""
        if value_input is x:
            queries_keys_values = self.qkv(x)
        else:
            queries_keys, values = self._weights_for(2)
            queries_keys_values = torch.cat([F.linear(x, *queries_keys), F.linear(value_input, *values)], dim=-1)
        q, k, v = rearrange(queries_keys_values, "b s (three h d) -> three b h s d", three=3, h=self.num_heads)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        return self.project(rearrange(attend(q, k, v, mask, self.kind), "b h s d -> b s (h d)"))

    def _weights_for(self, first: int) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
        """The fused projection as (weight, bias) of its first parts and of the rest."""
        rows = first * (self.qkv.out_features // 3)
        weight, bias = self.qkv.weight, self.qkv.bias
        head, tail = (None, None) if bias is None else (bias[:rows], bias[rows:])
        return (weight[:rows], head), (weight[rows:], tail)


def attend(
    q: Float[Tensor, "batch heads seq head_dim"],
    k: Float[Tensor, "batch heads keys head_dim"],
    v: Float[Tensor, "batch heads keys value_dim"],
    mask: Bool[Tensor, "#batch 1 #seq keys"] | None,
    kind: str = "softmax",
) -> Float[Tensor, "batch heads seq value_dim"]:
    """softmax(q k' / sqrt(head_dim)) v over the keys that `mask` allows.

    hardmax: the mean of v over the keys with the highest score. linear: the scores themselves, no softmax.
    """
    if q.is_cuda and kind == "softmax":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    # On CPUs the library's kernel is slower than two matrix products, most of all backward in bf16
    # (measured by benchmarks/training_step.py).
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if kind == "linear":
        return (scores if mask is None else scores * mask) @ v
    if mask is not None:
        # A finite low keeps a row that sees nothing (padding on the left) from becoming NaN.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if kind == "hardmax":
        chosen = (scores == scores.amax(dim=-1, keepdim=True)).to(v.dtype)
        return chosen @ v / chosen.sum(dim=-1, keepdim=True)  # a sum over a count: exact for equal integers
    exact = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(dim=-1, dtype=exact).to(v.dtype) @ v
