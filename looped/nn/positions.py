"""Positions in the sequence: learned or sinusoidal vectors that are added, and rotary angles."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

MAX_PERIOD = 10_000.0


def sinusoid(values: Float[Tensor, " n"], width: int) -> Float[Tensor, "n width"]:
    """[cos(v w_k), sin(v w_k)] with w_k = 10000^(-2k / width), k = 0 .. width/2 - 1; `width` is even.

    With width=256 this is the paper's timestep encoding p(t).
    """
    half = width // 2
    frequencies = MAX_PERIOD ** (-torch.arange(half, dtype=values.dtype, device=values.device) / half)
    angles = values[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class PositionEmbedding(nn.Module):
    """A vector for each position: learned, or fixed sinusoids."""

    def __init__(self, max_seq_len: int, d_model: int, *, learned: bool) -> None:
        super().__init__()
        if learned:
            self.table = nn.Parameter(torch.empty(max_seq_len, d_model))
        else:
            table = sinusoid(torch.arange(max_seq_len, dtype=torch.float32), d_model)
            self.register_buffer("table", table, persistent=False)
        self.table: Tensor

    def forward(self, positions: Int[Tensor, "*batch seq"]) -> Float[Tensor, "*batch seq d_model"]:
        return F.embedding(positions, self.table)


Rotation = tuple[Float[Tensor, "#batch 1 seq half"], Float[Tensor, "#batch 1 seq half"]]
"""Cosines and sines of the rotary angles of positions."""


class RotaryAngles(nn.Module):
    """The rotary angles of positions, computed once in a pass for all layers and loops."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim

    def forward(self, positions: Int[Tensor, "*batch seq"]) -> Rotation:
        return rotation(positions, self.head_dim)


def rotation(positions: Int[Tensor, " seq"] | Int[Tensor, "batch seq"], width: int) -> Rotation:
    """The angles position * w_k for heads of an even `width`, as `rotate` takes them."""
    angles = sinusoid(positions.flatten().float(), width).view(*positions.shape, width)
    if angles.ndim == 2:
        angles = angles[None]
    cos, sin = angles[:, None].split(width // 2, dim=-1)
    return cos, sin


def rotate(x: Float[Tensor, "batch heads seq head_dim"], angles: Rotation) -> Float[Tensor, "batch heads seq head_dim"]:
    """Rotary position embedding (Su et al., 2021): turn each pair (x_k, x_{k+half}) by position * w_k."""
    cos, sin = angles[0].to(x.dtype), angles[1].to(x.dtype)
    first, second = x.split(x.shape[-1] // 2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
