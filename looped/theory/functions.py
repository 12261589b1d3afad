"""Example functions: permutation-equivariant, on [0, 1]^(N x d), in torch."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from looped.theory.cells import Function

Tokens = Float[Tensor, "batch seq dim"]


def waves(x: Tokens) -> Tokens:
    """A sine of the token plus a cosine of the mean: smooth, and mostly local."""
    return 0.5 * torch.sin(2 * math.pi * x) + 0.5 * torch.cos(math.pi * x.mean(1, keepdim=True))


def spread(x: Tokens) -> Tokens:
    """Distance to the mean plus the maximum: not differentiable."""
    return (x - x.mean(1, keepdim=True)).abs() + x.amax(1, keepdim=True)


def mixed(x: Tokens) -> Tokens:
    """In two dimensions: a sine of one coordinate times a mean, and a maximum times the other coordinate."""
    mean, top = x.mean(1, keepdim=True)[..., 1], x.amax(1, keepdim=True)[..., 0]
    return torch.stack([torch.sin(math.pi * x[..., 0]) * mean, top * x[..., 1]], dim=-1)


def plateaus(roughness: float, *, cells: int = 8, width: float = 0.02, seed: int = 1) -> Function:
    """For two tokens of dimension 1: a table of values for (own cell, other cell), with narrow ramps at the borders.

    The values are those of a smooth function for roughness=0, independent random ones for roughness=1, and in
    between a mixture. The ramps take `width` of a cell, so that f is continuous, and constant nearly everywhere.
    """
    if not 0 <= roughness <= 1:
        raise ValueError(f"roughness={roughness}: expected 0 to 1")
    generator = torch.Generator().manual_seed(seed)
    centres = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    smooth = 0.5 * waves(torch.cartesian_prod(centres, centres)[..., None])[:, 0, 0].reshape(cells, cells)
    rough = torch.rand(cells, cells, generator=generator, dtype=torch.float64) - 0.5
    table = (1 - roughness) * smooth + roughness * rough
    borders = torch.arange(1, cells, dtype=torch.float64)

    def f(x: Tokens) -> Tokens:
        if x.shape[1:] != (2, 1):
            raise ValueError(f"expected two tokens of dimension 1, got {tuple(x.shape[1:])}")
        place = ((cells * x - borders) / width + 0.5).clamp(0, 1).sum(-1)
        low = place.floor().clamp(max=cells - 2).long()
        part = place - low
        own, other = low, low.flip(1)
        s, t = part, part.flip(1)
        value = (1 - s) * ((1 - t) * table[own, other] + t * table[own, other + 1])
        value = value + s * ((1 - t) * table[own + 1, other] + t * table[own + 1, other + 1])
        return value[..., None]

    return f


FUNCTIONS: dict[str, Function] = {
    "waves": waves,
    "spread": spread,
    "mixed": mixed,
    "rough": plateaus(1.0),
    "steep": plateaus(1.0, cells=4, width=0.05),
}
