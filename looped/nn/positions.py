"""Where in the sequence: sinusoids for positions (and timesteps), and rotary embeddings."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_PERIOD = 10_000.0


def sinusoid(values: Float[Tensor, " n"], width: int) -> Float[Tensor, "n width"]:
    """[cos(v w_k), sin(v w_k)] with w_k = 10000^(-2k / width), k = 0 .. width/2 - 1; `width` is even.

    With width=256 this is the paper's timestep encoding p(t).
    """
    half = width // 2
    frequencies = MAX_PERIOD ** (-torch.arange(half, dtype=values.dtype, device=values.device) / half)
    angles = values[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


Rotation = tuple[Float[Tensor, "#batch 1 seq half"], Float[Tensor, "#batch 1 seq half"]]
"""Cosines and sines of the angles by which positions are turned."""


def rotation(positions: Int[Tensor, " seq"] | Int[Tensor, "batch seq"], width: int) -> Rotation:
    """The angles position * w_k of heads of that (even) width, for `rotate`."""
    angles = sinusoid(positions.flatten().float(), width).view(*positions.shape, width)
    if angles.ndim == 2:
        angles = angles[None]
    cos, sin = angles[:, None].split(width // 2, dim=-1)
    return cos, sin


def rotate(x: Float[Tensor, "batch heads seq head_dim"], by: Rotation) -> Float[Tensor, "batch heads seq head_dim"]:
    """Rotary position embedding (Su et al., 2021): turn each pair (x_k, x_{k+half}) by position * w_k."""
    cos, sin = by[0].to(x.dtype), by[1].to(x.dtype)
    first, second = x.split(x.shape[-1] // 2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
