"""Token-wise quantisation: each loop compares every coordinate with one more cell border.

This is the first stage of the proof of Theorem 3.6 (Xu & Sato, ICML 2025). [0, 1] is cut into n cells
(b/n, (b+1)/n], b = 0 .. n-1; the first cell also contains 0. The comparison is a ramp of slope M n. It is therefore
wrong only on the trifling set, within 1/(n M) above a border.
"""

import itertools
from fractions import Fraction

import numpy as np
from jaxtyping import Shaped

from looped.theory.arithmetic import Array, Number
from looped.theory.circuit import ONE, Circuit, Form, Layer, Program, Unit
from looped.theory.idioms import at_least


def cell_of(x: Shaped[Array, "*shape"], n: int) -> Shaped[Array, "*shape"]:
    """The exact cell of every coordinate: ceil(n x) - 1, and 0 at x = 0. The result has the shape of `x`.

    The borders b/n are rounded to the dtype of `x`. A float that equals a rounded border therefore lies on it.
    """
    x = np.asarray(x)
    if x.dtype == object:
        return np.array([max(-(-Fraction(v) * n // 1) - 1, 0) for v in x.ravel()], dtype=np.int64).reshape(x.shape)
    return np.clip(np.searchsorted(np.arange(n) / n, x, side="left") - 1, 0, n - 1)


def quantization_units(d: int, slope: int) -> tuple[list[Unit], dict[str, Number]]:
    """Hidden units and output bias of the stage: each loop computes beta_i += [u_i > 1] and u_i -= 1.

    u_i starts at n x_i. After n - 1 loops beta_i is the cell of x_i. The stage then ends by itself, because no u_i
    exceeds 1. `slope` is the paper's M.
    """
    ramps = [at_least({f"u{i}": slope, ONE: -slope - 1}, {f"beta{i}": 1}) for i in range(d)]
    return list(itertools.chain(*ramps)), {f"u{i}": -1 for i in range(d)}


def quantizer(d: int, n: int, slope: int) -> Program:
    """This stage alone: tokens x (d,) to cells beta (d,), in n - 1 loops with 2 d hidden units.

    Raises:
        ValueError: a size is out of range, or M n is too large for float64.
    """
    for name, value, least in (("d", d, 1), ("n", n, 2), ("slope", slope, 2)):
        if value < least:
            raise ValueError(f"{name}={value}: expected at least {least}")
    if slope * n >= 2**53:
        raise ValueError(f"slope={slope}: expected slope * n below 2^53, the limit of float64, with n={n}")
    units, bias = quantization_units(d, slope)
    names = tuple(f"{name}{i}" for name in ("u", "beta") for i in range(d))
    inputs = tuple(f"x{i}" for i in range(d))
    input_map: dict[str, Form] = {f"u{i}": {f"x{i}": n} for i in range(d)}
    output_map = tuple({f"beta{i}": 1} for i in range(d))
    return Program(Circuit(names, (Layer(tuple(units), bias=bias),)), inputs, input_map, output_map, n - 1)


def trifling(x: Shaped[Array, "*shape"], n: int, slope: int) -> Shaped[Array, "*shape"]:
    """True for coordinates on a ramp: in (b/n, b/n + 1/(n M)) for a border b = 1 .. n-1. Shape as `x`."""
    above = x * n - np.floor(x * n)
    return (above > 0) & (above < 1 / slope) & (x > 1 / n)


def trifling_measure(n: int, slope: int) -> float:
    """The measure of the trifling set in [0, 1]: (n - 1) / (n M)."""
    return (n - 1) / (n * slope)
