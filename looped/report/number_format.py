"""Numbers as text for the report."""

import math

from looped.report.comparison import Difference, Estimate


def number(value: float | None, sign: str = "") -> str:
    """Three decimals, or fewer significant digits if three decimals would hide a small error or a large one is long.

    Args:
        value: a model that diverges has scores that are infinite, NaN or None.
    """
    if value is None or not math.isfinite(value):
        return "not finite"
    if abs(value) >= 1e6:
        return f"{value:{sign}.3g}"
    return f"{value:{sign}.2g}" if 0 < abs(value) < 0.01 else f"{value:{sign}.3f}"


def interval(estimate: Estimate) -> str:
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def signed(difference: Difference, separator: str = "\n") -> str:
    value, low, high = (number(v, "+") for v in (difference.value, difference.low, difference.high))
    return f"{value}{separator}[{low}, {high}]".replace("-", "−")


def amount(value: float) -> str:
    """A count with three digits and k, M, G, T or P."""
    for unit in ("", " k", " M", " G", " T"):
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} P"


def duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "not finite"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"
