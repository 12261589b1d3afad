"""Normalisation of the last dimension."""

from typing import Literal

from torch import nn

EPSILON = 1e-5


def make_norm(kind: Literal["rms", "layer", "none"], width: int, *, gain: bool, bias: bool = False) -> nn.Module:
    """RMSNorm, LayerNorm or the identity over a last dimension of `width`.

    `gain` adds a learned factor; `bias` a learned offset to a LayerNorm that has a gain.
    """
    if kind == "rms":
        return nn.RMSNorm(width, eps=EPSILON, elementwise_affine=gain)
    if kind == "layer":
        return nn.LayerNorm(width, eps=EPSILON, elementwise_affine=gain, bias=bias)
    return nn.Identity()
