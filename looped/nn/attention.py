"""Multi-head attention: softmax, hardmax or linear; and graph heads, whose weights come with the input."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from looped.config import ModelConfig
from looped.nn.norms import make_norm
from looped.nn.positions import RotaryAngles, Rotation, rotate
from looped.nn.protocols import Context

FUSED_QUERIES = 64
"""With fewer queries, two products are as fast as torch's kernel on CPUs."""


class Attention(nn.Module):
    """Multi-head attention whose queries and keys come from one input and whose values may come from another."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, inner = config.d_model, config.num_heads * config.head_dim
        self.kind = config.attention
        self.num_heads, self.kv_heads, self.head_dim = config.num_heads, config.kv_heads, config.head_dim
        self.rotary = make_rotary(config)
        self.parts = [inner, *[self.kv_heads * self.head_dim] * 2]
        """Outputs of `qkv` that are queries, keys and values."""
        if inner:
            self.qkv = nn.Linear(d, sum(self.parts), bias=config.qkv_biased)
        self.qk_norm = config.qk_norm
        widths = [self.head_dim] * 2 if self.qk_norm == "head" else self.parts[:2]
        kind = "none" if self.qk_norm == "none" else "rms"
        norms = [make_norm(kind, width, epsilon=config.norm_epsilon) for width in widths]
        self.query_norm, self.key_norm = norms
        self.gate = nn.Linear(d, inner, bias=config.bias) if config.gated_attention else None
        self.graph_heads = config.graph_heads
        of_graphs = len(self.graph_heads) * config.head_dim
        if of_graphs:
            self.graph_values = nn.Linear(d, of_graphs, bias=config.bias)
        self.project = nn.Linear(inner + of_graphs, d, bias=config.bias)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        value_input: Float[Tensor, "batch seq d_model"],
        context: Context,
    ) -> Float[Tensor, "batch seq d_model"]:
        """The weighted means of the values, projected. A graph head computes graph @ values instead of a mean.

        With rotary positions, `context.rotary` holds the angles; None counts positions from 0. `context.kv` holds keys
        and values of other tokens or loops; None attends to the current tokens alone.
        """
        mixed = [self._scored_heads(x, value_input, context)] if self.num_heads else []
        if self.gate is not None:
            mixed = [mixed[0] * self.gate(x).sigmoid()]
        if self.graph_heads:
            values = self.graph_values(value_input).split(self.head_dim, dim=-1)
            graphs = [context.graphs[name] for name in self.graph_heads]
            mixed += [g.to(v.dtype) @ v if isinstance(g, Tensor) else g(v) for g, v in zip(graphs, values, strict=True)]
        return self.project(torch.cat(mixed, dim=-1) if len(mixed) > 1 else mixed[0])

    def _scored_heads(
        self,
        x: Float[Tensor, "batch seq d_model"],
        value_input: Float[Tensor, "batch seq d_model"],
        context: Context,
    ) -> Float[Tensor, "batch seq inner"]:
        """The heads that compare queries with keys, side by side."""
        slot = context.kv
        own = slot is None or slot.computes
        if own and value_input is x:
            projected = self.qkv(x)
        elif own:
            projected = self._parts((x, slice(0, 2)), (value_input, slice(2, 3)))
        else:
            projected = self._parts((x, slice(0, 1)))
        q, kv = self.heads(projected, self.angles(x, context))
        if slot is not None:
            kv = slot.write(kv) if own else slot.read()
        k, v = kv.unbind(0)
        mixed = dot_product_attention(q, k, v, context.mask, self.kind)
        return mixed.transpose(1, 2).flatten(2)

    def angles(self, x: Float[Tensor, "batch seq d_model"], context: Context) -> Rotation | None:
        """The rotary angles of the context, or else those of positions counted from 0; None without a rotation."""
        if self.rotary is None:
            return None
        return context.rotary or self.rotary(torch.arange(x.shape[1], device=x.device))

    def heads(
        self, projected: Float[Tensor, "batch seq inner"], angles: Rotation | None
    ) -> tuple[Float[Tensor, "batch heads seq head_dim"], Float[Tensor, "two batch kv_heads seq head_dim"]]:
        """Queries, and keys and values, of the output of `qkv`: normalised and rotated. Queries alone give no keys."""
        q, kv = projected[..., : self.parts[0]], projected[..., self.parts[0] :]
        q = self._turned(q, self.query_norm, angles)
        if not kv.shape[-1] or (self.qk_norm == "none" and angles is None):
            heads = kv.shape[-1] // (2 * self.head_dim)
            return q, kv.unflatten(-1, (2, heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        k, v = kv.chunk(2, dim=-1)
        return q, torch.stack([self._turned(k, self.key_norm, angles), self._split(v)])

    def _turned(self, x: Float[Tensor, "batch seq inner"], norm: nn.Module, angles: Rotation | None) -> Tensor:
        """Queries or keys by head, normalised over all heads or in each, and rotated."""
        x = self._split(norm(x)) if self.qk_norm == "full" else norm(self._split(x))
        return x if angles is None else rotate(x, angles)

    def _split(self, x: Float[Tensor, "batch seq inner"]) -> Float[Tensor, "batch heads seq head_dim"]:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _parts(self, *inputs: tuple[Float[Tensor, "batch seq d_model"], slice]) -> Float[Tensor, "batch seq part"]:
        """The outputs of the fused projection, for inputs of their own of some of its parts (queries, keys, values)."""
        given = [(x, slice(sum(self.parts[: of.start]), sum(self.parts[: of.stop]))) for x, of in inputs]
        if type(self.qkv).__module__.partition(".")[0] not in (__name__.partition(".")[0], "torch"):
            # Such as a layer with an adapter, which adds to the product with its weight.
            return torch.cat([self.qkv(x)[..., rows] for x, rows in given], dim=-1)
        weight, bias = self.qkv.weight, self.qkv.bias  # a low-rank change is added in each access
        products = [F.linear(x, weight[rows], None if bias is None else bias[rows]) for x, rows in given]
        return torch.cat(products, dim=-1)


def make_rotary(config: ModelConfig) -> RotaryAngles | None:
    """The rotary angles that a configuration names."""
    if config.positions != "rotary":
        return None
    return RotaryAngles(config.head_dim, theta=config.rope_theta, factor=config.rope_factor, bands=config.rope_bands)


def dot_product_attention(
    q: Float[Tensor, "batch heads seq head_dim"],
    k: Float[Tensor, "batch kv_heads keys head_dim"],
    v: Float[Tensor, "batch kv_heads keys value_dim"],
    mask: Bool[Tensor, "#batch 1 #seq keys"] | None,
    kind: str = "softmax",
) -> Float[Tensor, "batch heads seq value_dim"]:
    """softmax(q k' / sqrt(head_dim)) v over the keys that `mask` allows.

    hardmax: the mean of v over the keys with the highest score. linear: the scores themselves, no softmax. If there are
    more heads of queries than of keys, equal numbers in sequence share one.
    """
    groups = q.shape[1] // k.shape[1]
    if kind == "softmax" and (q.is_cuda or _fused_is_faster(q, mask)):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=groups > 1)
    if groups > 1:  # queries that share keys become rows of one product, so keys are not copied
        rows = q.unflatten(1, (-1, groups)).flatten(2, 3)
        if mask is not None and mask.shape[2] > 1:
            mask = mask.repeat(1, 1, groups, 1)
        return dot_product_attention(rows, k, v, mask, kind).unflatten(2, (groups, -1)).flatten(1, 2)
    # With hardmax a common factor changes nothing, but rounding could break ties.
    scores = (q if kind == "hardmax" else q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if kind == "linear":
        return (scores if mask is None else scores * mask) @ v
    if mask is not None:
        # A finite low keeps a row that sees nothing (padding on the left) from becoming NaN.
        scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)  # in place: a copy would take as long as a product
    if kind == "hardmax":
        scores = scores.detach()  # its gradient is zero
        chosen = scores.eq_(scores.amax(dim=-1, keepdim=True)).to(v.dtype)
        return chosen @ v / chosen.sum(dim=-1, keepdim=True)  # a sum over a count: exact for equal integers
    exact = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(dim=-1, dtype=exact).to(v.dtype) @ v


def _fused_is_faster(
    q: Float[Tensor, "batch heads seq head_dim"], mask: Bool[Tensor, "#batch 1 #seq keys"] | None
) -> bool:
    """Whether torch's kernel is faster than two products on a CPU: without gradient, for many queries.

    In training it is slower, most of all backward in bf16 (benchmarks/training_step.py). For a query without keys it
    returns zeros instead of a mean, so it is not used if there is one.
    """
    if torch.is_grad_enabled() or q.shape[2] < FUSED_QUERIES or type(q) is not Tensor or torch.compiler.is_compiling():
        return False
    return mask is None or bool(mask.any(-1).all())


def causal_mask(
    seq: int, past: int, device: torch.device, prefix: Bool[Tensor, "batch seq"] | None = None
) -> Bool[Tensor, "#batch 1 seq keys"]:
    """True where each of `seq` tokens may attend: to itself, to those before it, and to all `past` earlier tokens.

    Tokens of a prefix also attend to each other (only with past=0).
    """
    mask = torch.ones(1, 1, seq, past + seq, dtype=torch.bool, device=device).tril(past)
    return mask if prefix is None else mask | (prefix[:, None, :, None] & prefix[:, None, None, :])


def combined_mask(
    attention_mask: Bool[Tensor, "batch keys"] | Bool[Tensor, "batch seq keys"] | None,
    causal: Bool[Tensor, "#batch 1 seq keys"] | None,
) -> Bool[Tensor, "#batch 1 #seq keys"] | None:
    """True where a query (third axis) may attend to a key (fourth axis); None allows every pair.

    Args:
        attention_mask: which keys are real, or which keys each query may attend to.
        causal: from `causal_mask`, for causal models. A query with no key left, such as padding on the left, attends
            to itself, because some kernels return NaN for a query without keys.
    """
    if attention_mask is None:
        return causal
    mask = attention_mask[:, None, None, :] if attention_mask.ndim == 2 else attention_mask[:, None]
    if causal is None:
        return mask
    seq, keys = causal.shape[2:]
    mask, itself = mask & causal, causal & ~causal.tril(keys - seq - 1)
    return mask | (itself & ~mask.any(-1, keepdim=True))
