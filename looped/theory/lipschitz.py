"""Lipschitz functions of one point by a fixed-size feed-forward layer: L2 . g^r . L1, without attention.

This is the setting of Zhang, Lu & Zhao (2023), who state an error of order r^(-1/d) for r loops. Our g is the
quantiser and the weight-tied memory of Theorem 3.6 alone: with one token there is no context to map.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float

from looped.theory.arithmetic import Array
from looped.theory.cells import Cells
from looped.theory.circuit import ONE, Circuit, Form, Layer, Program, form
from looped.theory.memorization import Lattice, decode_units, encode, lattice
from looped.theory.quantization import cell_of, quantization_units

PointFunction = Callable[[Float[Array, "points dim"]], Float[Array, " points"]]


@dataclass(frozen=True)
class PointApproximation:
    """One layer that approximates a function of a point; see `approximate`."""

    program: Program
    cells: int
    """n, on each axis."""
    weights: Array
    """The factors by which the cells of a point's coordinates form its number k."""
    path: Lattice
    """The labels as the layer stores them."""
    bits: int
    """Bits of the number that stores them."""

    def __call__(self, x: Float[Array, "points dim"]) -> Float[Array, " points"]:
        """The intended outputs: the stored labels of the cells."""
        return self.path.values[cell_of(x, self.cells) @ self.weights, 0]


def approximate(f: PointFunction, dim: int, cells: int, *, slope: int = 2**20) -> PointApproximation:
    """f on [0, 1]^d by cells of width 1/n, with labels in the digits of one number.

    It has 2 d + 4 registers, 2 d + 9 hidden units, and n - 1 + K - 1 loops with K = 2 n^d - n (K = n for d = 1).
    Numbers between the rows of cells get interpolated labels. Neighbouring labels then differ little.

    Raises:
        ValueError: d is below 1 or n below 2.
    """
    numbering = Cells(dim, 1, cells).offset_form()
    weights = np.array([int(numbering[f"beta{i}"]) for i in range(dim)])
    axes = np.stack(np.meshgrid(*[np.arange(cells)] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    ids = axes @ weights
    labels = np.interp(np.arange(ids[-1] + 1), ids, f((axes + 0.5) / cells))
    path = lattice(labels[:, None])
    digits = [0] * (cells - 2) + np.diff(path.path[:, 0]).tolist()
    code = encode(digits, 4)
    s = form((1, "s"), (1, numbering))
    units, bias = quantization_units(dim, slope)
    memory, memory_bias = decode_units(s, 1)
    names = (*(f"{name}{i}" for name in ("u", "beta") for i in range(dim)), "s", "theta0", "c0", "a0")
    circuit = Circuit(names, (Layer((*units, *memory), bias={**bias, **memory_bias, "s": -1}),))
    input_map: dict[str, Form] = {f"u{i}": {f"x{i}": cells} for i in range(dim)}
    input_map |= {"s": {ONE: cells - 1}, "theta0": {ONE: code.value}}
    output: Form = {"a0": Fraction(path.step[0]), ONE: Fraction(path.origin[0])}
    inputs = tuple(f"x{i}" for i in range(dim))
    program = Program(circuit, inputs, input_map, (output,), cells - 1 + len(labels) - 1, max(code.bits + 2, 30))
    return PointApproximation(program, cells, weights, path, code.bits)


def hills(dim: int, *, centres: int = 5, seed: int = 0) -> PointFunction:
    """The distance to the nearest of a few random points: a Lipschitz function with constant 1."""
    points = np.random.default_rng(seed).random((centres, dim))
    return lambda x: np.linalg.norm(x[:, None] - points, axis=-1).min(axis=1)
