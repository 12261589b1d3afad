"""Where in the sequence: sinusoids for positions (and timesteps), and rotary embeddings."""

import torch
from jaxtyping import Float
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


def rotate(x: Float[Tensor, "batch heads seq head_dim"]) -> Float[Tensor, "batch heads seq head_dim"]:
    """Rotary position embedding (Su et al., 2021): turn each pair (x_k, x_{k+half}) by position * w_k."""
    half = x.shape[-1] // 2
    positions = torch.arange(x.shape[-2], dtype=torch.float32, device=x.device)
    cos, sin = sinusoid(positions, x.shape[-1]).to(x.dtype).split(half, dim=-1)
    first, second = x.split(half, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
