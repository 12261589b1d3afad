"""Multi-head attention: softmax, hardmax or linear."""

from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from looped.config import ModelConfig
from looped.nn.positions import Rotation, rotate, rotation


@runtime_checkable
class KeyValueSlot(Protocol):
    """Keys and values that this layer shares with other loops or with tokens seen before."""

    computes: bool
    """Whether it wants this loop's; otherwise it is only read."""

    def extend(self, new: Float[Tensor, "two batch heads new head_dim"]) -> Float[Tensor, "two batch heads keys d"]:
        """Take the keys and values of the tokens at hand; all that they see is returned."""
        ...

    def read(self) -> Float[Tensor, "two batch heads keys d"]: ...


class Attention(nn.Module):
    """Multi-head attention whose queries and keys come from one input and whose values may come from another."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, inner = config.d_model, config.num_heads * config.head_dim
        self.kind = config.attention
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.rotary = config.positions == "rotary"
        self.qkv = nn.Linear(d, 3 * inner, bias=config.bias)
        self.project = nn.Linear(inner, d, bias=config.bias)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        value_input: Float[Tensor, "batch seq d_model"],
        mask: Bool[Tensor, "#batch 1 #seq keys"] | None,
        by: Rotation | None = None,
        slot: KeyValueSlot | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """The weighted values of all keys, projected.

        Args:
            mask: True where a query (third axis) may see a key (fourth); None lets all see all.
            by: rotary angles; None counts positions from 0. Without effect where positions are not rotary.
            slot: where keys and values come from and go to; None is the tokens at hand alone.
        """
        own = slot is None or slot.computes
        if own and value_input is x:
            projected = self.qkv(x)
        elif own:
            queries_keys, values = self._weights_for(2)
            projected = torch.cat([F.linear(x, *queries_keys), F.linear(value_input, *values)], dim=-1)
        else:
            projected = F.linear(x, *self._weights_for(1)[0])
        parts = rearrange(projected, "b s (n h d) -> n b h s d", h=self.num_heads, d=self.head_dim)
        q, *kv = parts.unbind(0)
        if self.rotary:
            by = rotation(torch.arange(x.shape[1], device=x.device), self.head_dim) if by is None else by
            q = rotate(q, by)
            kv[:1] = [rotate(k, by) for k in kv[:1]]
        if slot is not None:
            kv = (slot.extend(torch.stack(kv) if self.rotary else parts[1:]) if own else slot.read()).unbind(0)
        k, v = kv
        return self.project(rearrange(dot_product_attention(q, k, v, mask, self.kind), "b h s d -> b s (h d)"))

    def _weights_for(self, first: int) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
        """The fused projection as (weight, bias) of its first parts and of the rest."""
        rows = first * (self.qkv.out_features // 3)
        weight, bias = self.qkv.weight, self.qkv.bias
        head, tail = (None, None) if bias is None else (bias[:rows], bias[rows:])
        return (weight[:rows], head), (weight[rows:], tail)


def dot_product_attention(
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


def causal(seq: int, past: int, device: torch.device) -> Bool[Tensor, "1 1 seq keys"]:
    """True where each of `seq` tokens sees the `past` tokens before them all, those before it, and itself."""
    return torch.ones(1, 1, seq, past + seq, dtype=torch.bool, device=device).tril(past)


def visible(
    attention_mask: Bool[Tensor, "batch keys"] | Bool[Tensor, "batch seq keys"] | None,
    below: Bool[Tensor, "1 1 seq keys"] | None,
) -> Bool[Tensor, "#batch 1 #seq keys"] | None:
    """True where a query (third axis) may see a key (fourth); None when all see all.

    Args:
        attention_mask: which keys are real, or which each query sees.
        below: what `causal` allows, if the model is causal. Padding on the left, which would then see nothing, sees
            itself: some kernels make NaN of nothing.
    """
    if attention_mask is None:
        return below
    mask = attention_mask[:, None, None, :] if attention_mask.ndim == 2 else attention_mask[:, None]
    if below is None:
        return mask
    seq, keys = below.shape[2:]
    mask, itself = mask & below, below & ~below.tril(keys - seq - 1)
    return mask | (itself & ~mask.any(-1, keepdim=True))
