"""Four ways to write a position into a query and a key, so that attention reads the token at that position.

A query for position t must have its highest score at the key of t. The gap between this score and the next one decides
the inverse temperature that softmax needs, and the size of the scores decides which floating-point type holds them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Codes = tuple[Float[Tensor, "n size"], Float[Tensor, "n size"]]
"""Queries and keys of the positions 0 .. n-1."""


def quadratic(n: int) -> Codes:
    """(2t, 1) . (p, -p^2) = t^2 - (p - t)^2."""
    return _squares(torch.arange(n, dtype=torch.float64))


def centred(n: int) -> Codes:
    """The same with positions from -n/2 on."""
    return _squares(torch.arange(n, dtype=torch.float64) - n // 2)


def angles(n: int) -> Codes:
    """cos(2 pi (t - p) / n) (Back de Luca & Fountoulakis, 2024)."""
    turn = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    code = torch.stack([turn.cos(), turn.sin()], dim=1)
    return code, code


def bits(n: int) -> Codes:
    """The binary digits as +1 and -1 (Giannou et al., 2023)."""
    digits = torch.arange(n)[:, None] >> torch.arange(max(1, (n - 1).bit_length())) & 1
    code = (2 * digits - 1).double()
    return code, code


def _squares(p: Float[Tensor, " n"]) -> Codes:
    return torch.stack([2 * p, torch.ones_like(p)], dim=1), torch.stack([p, -p * p], dim=1)


ENCODINGS: dict[str, Callable[[int], Codes]] = {
    "quadratic": quadratic, "centred": centred, "angles": angles, "bits": bits,
}  # fmt: skip
FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Pointer(NamedTuple):
    """One encoding at one number of positions."""

    encoding: str
    n: int
    head_size: int
    gap: float
    """The smallest difference between the score of the right token and of another."""
    inverse_temperature: float
    """The smallest factor on the scores with which softmax gives other tokens at most the share `error`."""


def measure(encoding: str, n: int, *, error: float = 1e-6) -> Pointer:
    """Gap and inverse temperature of an encoding for n positions, n >= 2."""
    query, key = ENCODINGS[encoding](n)
    below = (query @ key.T).diagonal()[:, None] - query @ key.T  # how far each score is below the right one
    others = below[~torch.eye(n, dtype=torch.bool)].reshape(n, n - 1)
    low, high = 0.0, 1.0
    while _share(others, high) > error:
        high *= 2
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _share(others, middle) > error else (low, middle)
    return Pointer(encoding, n, query.shape[1], float(others.min()), high)


def _share(below: Float[Tensor, "n others"], inverse_temperature: float) -> float:
    """The largest share of attention that goes to other tokens."""
    others = (-inverse_temperature * below).exp().sum(1)
    return float((others / (1 + others)).max())


def reads_right(encoding: str, n: int, dtype: torch.dtype) -> bool:
    """Whether every position has its one highest score at itself, with codes and scores rounded to `dtype`."""
    query, key = (code.to(dtype) for code in ENCODINGS[encoding](n))
    scores = (query @ key.T).float()
    right = scores.diagonal().clone()
    scores.fill_diagonal_(-torch.inf)
    return bool((right > scores.amax(1)).all())


def largest_right(encoding: str, dtype: torch.dtype, *, most: int = 4096) -> int:
    """The largest power of two up to `most` for which, and for all smaller ones, every read is right."""
    n = 1
    while 2 * n <= most and reads_right(encoding, 2 * n, dtype):
        n *= 2
    return n
