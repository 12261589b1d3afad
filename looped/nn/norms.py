"""Normalisation of the last dimension."""

from typing import Literal

from torch import nn


def make_norm(
    kind: Literal["rms", "layer", "none"], width: int, *, epsilon: float = 1e-5, gain: bool = True, bias: bool = False
) -> nn.Module:
    """RMSNorm, LayerNorm or the identity over a last dimension of `width`.

    `epsilon` is added to the mean square or the variance. `gain` adds a learned factor; `bias` a learned offset to a
    LayerNorm that has a gain.
    """
    if kind == "rms":
        return nn.RMSNorm(width, eps=epsilon, elementwise_affine=gain)
    if kind == "layer":
        return nn.LayerNorm(width, eps=epsilon, elementwise_affine=gain, bias=bias)
    return nn.Identity()
