"""95% intervals for means over examples."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Z = 1.959964  # two-sided 95% quantile of the normal distribution


def interval(
    values: Float[Tensor, " n"], most: float = 1.0, weights: Float[Tensor, " n"] | None = None
) -> tuple[float, float, float]:
    """Mean, and low and high end of its 95% interval.

    If all values are 0 or 1, this is Wilson's interval. Otherwise it is the normal interval, cut to [0, most].

    Args:
        most: the largest possible value: 1 for a score, infinity for an error.
        weights: for a weighted mean, whose interval is that of a ratio of two means. None weights all equally.

    Raises:
        ValueError: for no values at all.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no examples: expected at least 1")
    values = values.double()
    weights = torch.ones_like(values) if weights is None else weights.double() * n / weights.sum()
    mean = (weights * values).mean().item()
    if most == 1 and bool(((values == 0) | (values == 1)).all()):
        centre = (mean + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * math.sqrt(mean * (1 - mean) / n + Z**2 / (4 * n**2))
        # At the ends the interval touches 0 or 1, up to rounding.
        return mean, max(0.0, min(centre - half, mean)), min(1.0, max(centre + half, mean))
    half = Z * (weights * (values - mean)).std().item() / math.sqrt(n) if n > 1 else math.inf
    return mean, max(0.0, mean - half), min(most, mean + half)
