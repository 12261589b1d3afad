"""Token-wise quantisation: the block counts, loop by loop, how many cell borders x has passed.

First stage of the proof of Theorem 3.6 (Xu & Sato, ICML 2025). [0, 1] is cut into n cells (b/n, (b+1)/n],
b = 0 .. n-1, with 0 in the first. The count is a ramp of slope M n, so that it is wrong only within 1/(n M)
above a border: the trifling set.
"""

from fractions import Fraction

import numpy as np
from jaxtyping import Shaped

from looped.theory.circuit import ONE, Array, Circuit, Form, Number, Program, Unit


def cell_of(x: Shaped[Array, "*shape"], n: int) -> Shaped[Array, "*shape"]:
    """The cell of every coordinate, exactly: ceil(n x) - 1, and 0 at x = 0.

    Computed from the borders b/n as the types of `x` have them, so that a float on a border counts as on it.
    """
    x = np.asarray(x)
    if x.dtype == object:
        return np.array([max(-(-Fraction(v) * n // 1) - 1, 0) for v in x.ravel()], dtype=np.int64).reshape(x.shape)
    return np.clip(np.searchsorted(np.arange(n) / n, x, side="left") - 1, 0, n - 1)


def quantization_units(d: int, slope: int) -> tuple[list[Unit], dict[str, Number]]:
    """Units and drift: beta_i += [u_i > 1], u_i -= 1, for u_i = n x_i at first; n - 1 loops leave beta_i the cell.

    The stage ends by itself: after n - 1 loops no u_i exceeds 1. `slope` is the paper's M.
    """
    units = []
    for i in range(d):
        units += [
            Unit({f"u{i}": slope, ONE: -slope - offset}, {f"beta{i}": sign}) for sign, offset in ((1, 0), (-1, 1))
        ]
    return units, {f"u{i}": -1 for i in range(d)}


def quantizer(d: int, n: int, slope: int) -> Program:
    """The stage alone: tokens x (d,) to cells beta (d,) in n - 1 loops, 2 d units.

    Raises:
        ValueError: for sizes out of range, or where float64 could not hold M n.
    """
    for name, value, least in (("d", d, 1), ("n", n, 2), ("slope", slope, 2)):
        if value < least:
            raise ValueError(f"{name}={value}: expected at least {least}")
    if slope * n >= 2**53:
        raise ValueError(f"slope={slope}: expected slope * n below 2^53 with n={n}, what float64 holds")
    units, drift = quantization_units(d, slope)
    names = tuple(f"{name}{i}" for name in ("u", "beta") for i in range(d))
    first: dict[str, Form] = {f"u{i}": {f"x{i}": n} for i in range(d)}
    last = tuple({f"beta{i}": 1} for i in range(d))
    return Program(Circuit(names, tuple(units), drift=drift), tuple(f"x{i}" for i in range(d)), first, last, n - 1)


def trifling(x: Shaped[Array, "*shape"], n: int, slope: int) -> Shaped[Array, "*shape"]:
    """Where a coordinate lies on a ramp: in (b/n, b/n + 1/(n M)) for a border b = 1 .. n-1."""
    above = x * n - np.floor(x * n)
    return (above > 0) & (above < 1 / slope) & (x > 1 / n)


def trifling_measure(n: int, slope: int) -> float:
    """The share of [0, 1] that is trifling: (n - 1) / (n M)."""
    return (n - 1) / (n * slope)
