"""Arrays of exact numbers: whole numbers, fixed point, fractions, and the range in which a type is exact."""

from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Shaped

Number = int | float | Fraction
Array = np.ndarray
LIMITS = {"float32": 2**24, "float64": 2**53, "int64": 2**63}
"""From here on, a type does not hold every whole number."""


def check_exact(dtype: np.dtype[Any], bits: int, values: Array, weight: Array, bias: Array | int = 0) -> float:
    """The bound |values| . |weight| + |bias| on sums, of whole numbers (bits=0).

    Raises:
        ValueError: the type does not hold all whole numbers up to the bound.
    """
    if dtype.name not in LIMITS or bits or not weight.size:
        return 0.0
    # Bounds in float64: they are wrong by less than a millionth, so they are compared with a smaller limit.
    most = np.abs(values.astype(np.float64)).max(axis=tuple(range(values.ndim - 1)))
    bound = float((np.abs(weight.astype(np.float64)) @ most + np.abs(np.asarray(bias, np.float64))).max())
    if not bound < LIMITS[dtype.name] * (1 - 1e-6):
        found = f"numbers up to {bound:.3g}: expected below {LIMITS[dtype.name]:.3g}"
        raise ValueError(f"{found}, from where on {dtype.name} does not hold every whole number")
    return bound


def fixed_point(values: Shaped[Array, "*shape"], bits: int) -> Shaped[Array, "*shape"]:
    """The values as integers in units of 2^-bits, in the same shape.

    Raises:
        ValueError: a value is not a multiple of 2^-bits.
    """

    def convert(value: Number) -> int | Fraction:
        scaled = Fraction(value) * 2**bits
        if scaled.denominator != 1:
            raise ValueError(f"value {value}: expected a multiple of 2^-{bits} in exact arithmetic")
        return int(scaled)

    return filled([convert(v) for v in values.ravel()], values.shape)


def exact(values: Any) -> Array:
    """Numbers as an array of fractions, the input for exact arithmetic."""
    values = np.asarray(values, dtype=object)
    return filled([Fraction(v) for v in values.ravel()], values.shape)


def converted(values: Shaped[Array, "*shape"], dtype: np.dtype[Any], *, whole: bool = False) -> Shaped[Array, "*shape"]:
    """The values in another type.

    Raises:
        ValueError: a value is beyond the range of the type, or is not whole though the type or `whole` says so.
    """
    try:
        result = values.astype(dtype)
    except OverflowError:
        raise ValueError(f"numbers: one is beyond the range of {dtype.name}") from None
    if (dtype.kind == "i" and (result != values).any()) or (whole and (result % 1 != 0).any()):
        raise ValueError(f"numbers: expected whole ones within the range of {dtype.name}")
    return result


def filled(values: Any, shape: tuple[int, ...]) -> Array:
    """The values as an array of Python objects of this shape."""
    array = np.empty(shape, dtype=object)
    array[...] = np.array(values, dtype=object).reshape(shape)
    return array
