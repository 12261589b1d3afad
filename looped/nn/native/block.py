"""A transformer block as one function with a gradient of its own, computed in C++ on CPUs.

With the gains, scales, shifts and gates folded into the weights, the block is

    qkv = N(x) Wq' + bq        x2 = x + Attention(qkv) Wp' + bp
    h = N(x2) Wu' + bu         y = x2 + act(h) Wd' + bd

where N normalises without a gain. The weights of one loop are folded once, instead of every token being scaled. Their
gradients give those of scales and gates: if W = V * s, the gradient of s is the sum of V * dW over the outputs.
Between the passes only x, qkv and h are kept: 8 states with d_ff = 4 d_model, however long the sequence is.
"""

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_double, c_int64, c_void_p
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn.modules import module as torch_module

from looped.nn.attention import Attention
from looped.nn.feedforward import FeedForward
from looped.nn.native.library import library
from looped.nn.protocols import Context

NORMS = {nn.Identity: 0, nn.RMSNorm: 1, nn.LayerNorm: 2}
ACTIVATIONS = ("gelu", "gelu_tanh", "silu", "relu", "swiglu")
LARGEST = 128
"""Wider blocks and longer sequences leave the cache; torch's products are then as fast."""
LANES = 16
"""Widths are multiples of this number, the most that a vector of a processor holds."""


class Sizes(ctypes.Structure):
    """The struct of that name in block.cpp."""

    _fields_ = [
        *((name, c_int64) for name in ("batch", "seq", "width", "heads", "head_dim", "hidden")),
        *((name, c_int64) for name in ("attention_norm", "feedforward_norm", "activation", "threads")),
        *((name, c_int64) for name in ("mask_batch", "mask_query", "rotary_batch")),
        ("epsilon", c_double),
    ]


class Setting(NamedTuple):
    """All that the function needs besides tensors with a gradient."""

    sizes: Sizes
    kind: str
    """Ending of the functions' names: float, double or bfloat16."""
    constants: tuple[Tensor | None, ...]
    """Mask, cosines and sines."""


def runs_native(block: Any, x: Tensor, context: Context) -> bool:
    """Whether `native_block` computes this block: on a CPU, small, softmax attention over the current tokens, and no
    part that was replaced or has hooks, which would not be called."""
    attention, feedforward = getattr(block, "attention", None), getattr(block, "feedforward", None)
    if not getattr(block, "native", False) or context.kv is not None or torch.compiler.is_compiling():
        return False
    if type(x) not in (Tensor, FakeTensor) or not x.is_cpu:
        return False
    if type(attention) is not Attention or type(feedforward) is not FeedForward or torch_module._has_any_global_hook():
        return False
    if attention.graph_heads:  # perhaps they are the only heads, and there is no `qkv`
        return False
    norms = (block.attention_norm, block.feedforward_norm)
    linear = (attention.qkv, attention.project, feedforward.up, feedforward.down)
    widths = (x.shape[-1], attention.num_heads * attention.head_dim, feedforward.down.in_features)
    return (
        all(type(part) is nn.Linear for part in linear)
        and all(type(part) in NORMS for part in norms)
        and not any(map(has_hooks, (attention, feedforward, *norms, *linear)))
        and attention.kind == "softmax"
        and not block.values_from_state
        and block.norm_place == "before"
        and attention.kv_heads == attention.num_heads
        and attention.qk_norm == "none"
        and attention.gate is None
        and all(type(part.weight) in (nn.Parameter, FakeTensor) and part.weight.dtype == x.dtype for part in linear)
        and x.dtype in (torch.float32, torch.float64)
        and max(x.shape[1], x.shape[2]) <= LARGEST
        and not any(width % LANES for width in widths)
        and library() is not None
    )


def has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def native_block(block: Any, x: Tensor, context: Context) -> Tensor:
    """The output of `block(x, context)`, for a block that `runs_native`. Its gradient can be taken once only."""
    attention, feedforward, m = block.attention, block.feedforward, context.modulation
    batch, seq, width = x.shape
    mask, cos, sin = context.mask, None, None
    if mask is not None:
        mask = mask.expand(-1, -1, seq, seq)[:, 0].contiguous()
    if attention.rotary is not None:
        cos, sin = (part.to(x.dtype).contiguous() for part in block.attention.angles(x, context))
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    half = half and x.dtype == torch.float32 and hasattr(library(), "forward_bfloat16")
    sizes = Sizes(
        batch, seq, width, attention.num_heads, attention.head_dim, feedforward.down.in_features,
        NORMS[type(block.attention_norm)], NORMS[type(block.feedforward_norm)],
        ACTIVATIONS.index(feedforward.kind), torch.get_num_threads(),
        seq * seq if mask is not None and len(mask) > 1 else 0, seq,
        seq * attention.head_dim // 2 if cos is not None and len(cos) > 1 else 0,
        getattr(block.attention_norm, "eps", 1e-5),
    )  # fmt: skip
    kind = "bfloat16" if half else "float" if x.dtype == torch.float32 else "double"
    shift = m.get("input_shift")
    return NativeBlock.apply(
        Setting(sizes, kind, (mask, cos, sin)),
        x if shift is None else x + shift,
        *(attention.qkv.weight, attention.project.weight, feedforward.up.weight, feedforward.down.weight),
        *(attention.qkv.bias, attention.project.bias, feedforward.up.bias, feedforward.down.bias),
        *scale_and_shift(block.attention_norm, m.get("attention_scale"), m.get("attention_shift")),
        *scale_and_shift(block.feedforward_norm, m.get("feedforward_scale"), m.get("feedforward_shift")),
        m.get("attention_gate"),
        m.get("feedforward_gate"),
    )


def scale_and_shift(norm: Any, scale: Tensor | None, shift: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The factor and the offset of a normalised input: (n g + b) s + t = n (g s) + (b s + t)."""
    gain, bias = getattr(norm, "weight", None), multiplied(getattr(norm, "bias", None), scale, alone=None)
    return multiplied(gain, scale, alone=scale), shift if bias is None else bias if shift is None else bias + shift


def multiplied(a: Tensor | None, scale: Tensor | None, alone: Tensor | None) -> Tensor | None:
    """a * scale, where no scale is one; `alone` if there is no a."""
    if a is None:
        return alone
    return a if scale is None else a * scale


class NativeBlock(torch.autograd.Function):
    """The block from a state and twelve optional tensors: weights, biases, (scale, shift) of two norms, two gates."""

    @staticmethod
    def forward(ctx: Any, setting: Setting, x: Tensor, *tensors: Any) -> Tensor:
        x = x.contiguous()
        with torch.autocast("cpu", enabled=False):
            weights, biases = folded(*tensors)
            transposed = [weight.t().contiguous() for weight in weights]
        y, qkv, hidden = torch.empty_like(x), None, None
        needs_gradient = any(ctx.needs_input_grad)
        if needs_gradient:
            qkv, hidden = (x.new_empty(*x.shape[:2], len(weights[i])) for i in (0, 2))
        call("forward", setting, weights, transposed, biases, x, y, qkv, hidden)
        if needs_gradient:
            ctx.save_for_backward(x, qkv, hidden, *tensors)
            ctx.setting = setting
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, qkv, hidden, *tensors = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            weights, biases = folded(*tensors)
            transposed = [None, weights[1].t().contiguous(), None, None]
            parts = [*weights, *(bias for bias in biases if bias is not None)]
            flat = x.new_zeros(sum(part.numel() for part in parts))
            gradients = iter(flat.split([part.numel() for part in parts]))
            d_weights = [next(gradients).view_as(weight) for weight in weights]
            d_biases = [None if bias is None else next(gradients) for bias in biases]
            dx, dy = torch.empty_like(x), dy.contiguous()
            call(
                "backward",
                ctx.setting,
                weights,
                transposed,
                biases,
                dy,
                x,
                qkv,
                hidden,
                dx,
                sums=[*d_weights, *d_biases],
            )
            return None, dx, *unfolded(tensors, d_weights, d_biases)


def folded(
    qkv: Tensor, project: Tensor, up: Tensor, down: Tensor,
    qkv_bias: Tensor | None, project_bias: Tensor | None, up_bias: Tensor | None, down_bias: Tensor | None,
    scale_a: Tensor | None, shift_a: Tensor | None, scale_f: Tensor | None, shift_f: Tensor | None,
    gate_a: Tensor | None, gate_f: Tensor | None,
) -> tuple[list[Tensor], list[Tensor | None]]:  # fmt: skip
    """Weights and biases that contain the scales, shifts and gates."""
    (w1, b1), (w3, b3) = fold_in(qkv, qkv_bias, scale_a, shift_a), fold_in(up, up_bias, scale_f, shift_f)
    (w2, b2), (w4, b4) = fold_out(project, project_bias, gate_a), fold_out(down, down_bias, gate_f)
    return [w1, w2, w3, w4], [b1, b2, b3, b4]


def fold_in(
    weight: Tensor, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    if shift is not None:
        bias = weight @ shift if bias is None else torch.addmv(bias, weight, shift)
    return (weight.detach().contiguous() if scale is None else weight * scale), bias


def fold_out(weight: Tensor, bias: Tensor | None, gate: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if gate is None:
        return weight.detach().contiguous(), bias
    return weight * gate[:, None], None if bias is None else bias * gate


def unfolded(tensors: Sequence[Any], d_weights: list[Tensor], d_biases: list[Any]) -> tuple[Tensor | None, ...]:
    """Gradients of the fourteen tensors, from those of the folded weights and biases."""
    weights, biases, norms, gates = tensors[:4], tensors[4:8], tensors[8:12], tensors[12:]
    of_norms: list[Tensor | None] = []
    of_gates: list[Tensor | None] = []
    for i in (0, 2):
        weight, d_weight, d_bias, (scale, shift) = weights[i], d_weights[i], d_biases[i], norms[i : i + 2]
        of_norms.append(None if scale is None else (d_weight * weight).sum(0))
        of_norms.append(None if shift is None else weight.t() @ d_bias)
        if scale is not None:
            d_weights[i] = d_weight * scale
        if shift is not None:
            d_weights[i] = torch.addr(d_weights[i], d_bias, shift)
        if biases[i] is None:
            d_biases[i] = None
    for i, gate in zip((1, 3), gates, strict=True):
        weight, d_weight, bias, d_bias = weights[i], d_weights[i], biases[i], d_biases[i]
        if gate is None:
            of_gates.append(None)
            continue
        d_gate = torch.linalg.vecdot(d_weight, weight)
        d_weights[i] = d_weight * gate[:, None]
        if bias is not None:
            d_gate, d_biases[i] = d_gate + d_bias * bias, d_bias * gate
        of_gates.append(d_gate)
    return *d_weights, *d_biases, *of_norms, *of_gates


def call(
    name: str, setting: Setting, weights: list[Tensor], transposed: list[Any], biases: list[Any], *tensors: Any,
    sums: Sequence[Any] = (),
) -> None:  # fmt: skip
    """Call a function of block.cpp; `sums` are the gradients of weights and biases, which lie in one tensor."""
    if type(tensors[0]) is FakeTensor:
        return  # it has no values, but all outputs have their shapes
    size = sum(part.numel() for part in sums if part is not None)
    getattr(library(), f"{name}_{setting.kind}")(
        byref(setting.sizes), pointers(*weights, *transposed, *biases), pointers(*setting.constants),
        *map(c_void_p, map(address, tensors)), *((pointers(*sums), c_int64(size)) if sums else ()),
    )  # fmt: skip


def address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def pointers(*tensors: Tensor | None) -> Any:
    return (c_void_p * len(tensors))(*map(address, tensors))
