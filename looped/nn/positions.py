"""Positions in the sequence: learned or sinusoidal vectors that are added, and rotary angles."""

import math

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
        table = torch.empty(max_seq_len, d_model)
        if learned:
            self.table = nn.Parameter(table)
        else:
            self.register_buffer("table", table, persistent=False)
            self.reset_buffers()
        self.table: Tensor

    def reset_buffers(self) -> None:
        """Compute what no checkpoint holds, as after a model was built on `meta`."""
        if not isinstance(self.table, nn.Parameter):
            positions = torch.arange(len(self.table), dtype=torch.float32, device=self.table.device)
            self.table.copy_(sinusoid(positions, self.table.shape[1]))

    def forward(self, positions: Int[Tensor, "*batch seq"]) -> Float[Tensor, "*batch seq d_model"]:
        return F.embedding(positions, self.table)


Rotation = tuple[Float[Tensor, "#batch 1 seq half"], Float[Tensor, "#batch 1 seq half"]]
"""Cosines and sines of the rotary angles of positions."""


class RotaryAngles(nn.Module):
    """The rotary angles position * w_k, computed once in a pass for all layers and loops.

    w_k = theta^(-2k / head_dim), divided by `factor`. With bands (low, high, length) only slow frequencies are divided,
    as in Llama 3: those with less than `low` turns in `length` positions; between `low` and `high` turns the two
    frequencies are mixed.
    """

    def __init__(
        self, head_dim: int, *, theta: float = 10_000.0, factor: float = 1.0, bands: tuple[float, ...] = ()
    ) -> None:
        super().__init__()
        self.head_dim, self.theta, self.factor, self.bands = head_dim, theta, factor, bands

    def frequencies(self, device: torch.device) -> Float[Tensor, " half"]:
        """w_k. Computed in each call: a buffer outside of checkpoints would be lost when a model is built on `meta`."""
        exponents = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=device) / self.head_dim
        fast = 1.0 / self.theta**exponents
        if not self.bands:
            return fast / self.factor
        low, high, length = self.bands
        turns = fast * (length / (2 * math.pi))
        mixed = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - mixed) * fast / self.factor + mixed * fast

    def forward(self, positions: Int[Tensor, " seq"] | Int[Tensor, "batch seq"]) -> Rotation:
        angles = positions[..., None].float() * self.frequencies(positions.device)
        angles = angles[None, None] if angles.ndim == 2 else angles[:, None]
        return angles.cos(), angles.sin()


def rotate(x: Float[Tensor, "batch heads seq head_dim"], angles: Rotation) -> Float[Tensor, "batch heads seq head_dim"]:
    """Rotary position embedding (Su et al., 2021): turn each pair (x_k, x_{k+half}) by position * w_k."""
    cos, sin = angles[0].to(x.dtype), angles[1].to(x.dtype)
    first, second = x.split(x.shape[-1] // 2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
