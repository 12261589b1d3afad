"""Example functions in torch: permutation-equivariant, from [0, 1]^(N x d) to R^(N x d)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from looped.theory.cells import Function

Tokens = Float[Tensor, "batch seq dim"]


def waves(x: Tokens) -> Tokens:
    """A sine of the token plus a cosine of the mean: smooth, and mostly a function of the token itself."""
    return 0.5 * torch.sin(2 * math.pi * x) + 0.5 * torch.cos(math.pi * x.mean(1, keepdim=True))


def spread(x: Tokens) -> Tokens:
    """The distance to the mean plus the maximum: not differentiable."""
    return (x - x.mean(1, keepdim=True)).abs() + x.amax(1, keepdim=True)


def mixed(x: Tokens) -> Tokens:
    """For d = 2: a sine of one coordinate times a mean, and a maximum times the other coordinate."""
    mean, top = x.mean(1, keepdim=True)[..., 1], x.amax(1, keepdim=True)[..., 0]
    return torch.stack([torch.sin(math.pi * x[..., 0]) * mean, top * x[..., 1]], dim=-1)


def plateaus(roughness: float, *, n: int = 8, width: float = 0.02, seed: int = 1) -> Function:
    """A piecewise constant function of two tokens (N = 2, d = 1) with narrow ramps at the borders of cells.

    Each pair (cell of the token, cell of the other token) has a value. The values are smooth for roughness=0,
    independent and random for roughness=1, and a mixture in between. A ramp takes the fraction `width` of a cell. f is
    therefore continuous, and constant nearly everywhere.

    Raises:
        ValueError: roughness is outside 0 to 1. The function itself raises it for shapes other than (batch, 2, 1).
    """
    if not 0 <= roughness <= 1:
        raise ValueError(f"roughness={roughness}: expected 0 to 1")
    generator = torch.Generator().manual_seed(seed)
    centres = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    smooth = 0.5 * waves(torch.cartesian_prod(centres, centres)[..., None])[:, 0, 0].reshape(n, n)
    rough = torch.rand(n, n, generator=generator, dtype=torch.float64) - 0.5
    table = (1 - roughness) * smooth + roughness * rough
    borders = torch.arange(1, n, dtype=torch.float64)

    def f(x: Tokens) -> Tokens:
        if x.shape[1:] != (2, 1):
            raise ValueError(f"expected two tokens of dimension 1, got {tuple(x.shape[1:])}")
        position = ((n * x - borders) / width + 0.5).clamp(0, 1).sum(-1)
        low = position.floor().clamp(max=n - 2).long()
        fraction = position - low
        this, other = low, low.flip(1)
        s, t = fraction, fraction.flip(1)
        value = (1 - s) * ((1 - t) * table[this, other] + t * table[this, other + 1])
        value = value + s * ((1 - t) * table[this + 1, other] + t * table[this + 1, other + 1])
        return value[..., None]

    return f


FUNCTIONS: dict[str, Function] = {
    "waves": waves,
    "spread": spread,
    "mixed": mixed,
    "rough": plateaus(1.0),
    "steep": plateaus(1.0, n=4, width=0.05),
}
