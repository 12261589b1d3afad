"""A weight-tied transformer block as named registers, heads and units, and its execution in any arithmetic.

The state of a token is a list of named registers. A linear form over registers is a dict:
{"s": 2, "c": -1, ONE: -1} is 2 s - c - 1. A block is a list of attention heads and a list of ReLU units, each made
of a few forms. The code of a construction therefore reads like its derivation. This module executes a block exactly
or in a floating-point type; `looped.theory.construction` writes the same block into a `LoopedTransformer`.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

ONE = "1"
Number = int | float | Fraction
Form = Mapping[str, Number]
Array = np.ndarray


def form(*terms: tuple[Number, str | Form]) -> dict[str, Number]:
    """A sum of multiples of registers and forms, such as form((2, s), (-1, "c"), (-1, ONE))."""
    total: dict[str, Number] = {}
    for factor, term in terms:
        for name, value in ({term: 1} if isinstance(term, str) else term).items():
            total[name] = total.get(name, 0) + factor * value
    return total


class Unit(NamedTuple):
    """One hidden unit of the feed-forward layer: relu(reads) is added to each register times its factor in `writes`."""

    reads: Form
    writes: Form


class Head(NamedTuple):
    """One attention head of size 1; its output is added to one register."""

    query: Form
    key: Form
    value: Form
    writes: str


@dataclass(frozen=True)
class Circuit:
    """One block: X += heads(X), then X += eta(t) * (units(X) + bias). Hardmax attention averages ties."""

    registers: tuple[str, ...]
    units: tuple[Unit, ...]
    heads: tuple[Head, ...] = ()
    bias: Form = field(default_factory=dict)
    """The output bias of the feed-forward layer, added to registers in every loop."""

    def non_zeros(self) -> int:
        """The number of nonzero weights and biases of the block."""
        forms = [f for unit in self.units for f in unit] + [f for head in self.heads for f in head[:3]]
        return sum(value != 0 for f in [*forms, self.bias] for value in f.values()) + len(self.heads)

    def matrix(self, forms: Sequence[Form], names: Sequence[str] | None = None) -> tuple[Array, Array]:
        """The forms as weights (forms, names) and constants (forms,). The default for `names` is all registers."""
        names = self.registers if names is None else names
        weight = [[f.get(name, 0) for name in names] for f in forms]
        return _array(weight, (len(forms), len(names))), _array([f.get(ONE, 0) for f in forms], (len(forms),))

    def states(
        self,
        start: Shaped[Array, "batch seq registers"],
        loops: int,
        *,
        bits: int = 0,
        eta: Shaped[Array, "loops registers"] | None = None,
    ) -> Iterator[Array]:
        """The state (batch, seq, registers) after each loop, in the arithmetic of `start`.

        Args:
            start: (batch, seq, registers). A floating dtype is used for the computation. Dtype object holds Python
                integers in units of 2^-bits, and the computation is exact.
            loops: how often the block is applied.
            bits: fractional bits (dtype object only).
            eta: (loops, registers) factors on the feed-forward layer's output; None means 1.

        Raises:
            ValueError: a bias is not a multiple of 2^-bits.
        """
        exact = start.dtype == object
        up, up_bias = self.matrix([unit.reads for unit in self.units])
        down = self.matrix([unit.writes for unit in self.units])[0].T
        bias = _array([self.bias.get(name, 0) for name in self.registers], (len(self.registers),))
        if exact:
            up_bias, bias = fixed_point(up_bias, bits), fixed_point(bias, bits)
        else:
            up, up_bias, down, bias = (a.astype(start.dtype) for a in (up, up_bias, down, bias))
        state = start
        for loop in range(1, loops + 1):
            for head in self.heads:
                state = self._attend(head, state, bits)
            change = np.maximum(state @ up.T + up_bias, 0) @ down.T + bias
            state = state + (change if eta is None else change * eta[loop - 1].astype(start.dtype))
            yield state

    def _attend(self, head: Head, state: Array, bits: int) -> Array:
        exact = state.dtype == object
        weight, constant = self.matrix(head[:3])
        assert not constant.any(), "attention has no bias"
        query, key, value = np.moveaxis(state @ weight.T.astype(state.dtype), -1, 0)
        scores = query[:, :, None] * key[:, None, :]
        chosen = scores == scores.max(axis=-1, keepdims=True)
        # Dividing the sum by the count is exact for equal integers; a sum of value * (1 / count) is not.
        total, count = (chosen * value[:, None, :]).sum(-1), chosen.sum(-1).astype(state.dtype)
        assert not exact or not (total % count).any(), "tied values differ"
        mean = total // count if exact else total / count
        state = state.copy()
        state[..., self.registers.index(head.writes)] += mean
        return state


@dataclass(frozen=True)
class Program:
    """A circuit with its affine input and output maps: output = L2 . block^loops . L1(input)."""

    circuit: Circuit
    inputs: tuple[str, ...]
    """Names of the input's coordinates."""
    input_map: Mapping[str, Form]
    """L1: registers as forms over the inputs. Registers not named start at zero."""
    output_map: tuple[Form, ...]
    """L2: each output as a form over the registers."""
    loops: int
    bits: int = 1
    """Fractional bits that exact arithmetic needs."""
    eta: Array | None = None
    """(loops, registers) factors on the feed-forward layer's output (Theorem 4.2). None is plain looping."""

    def start(self, inputs: Shaped[Array, "batch seq inputs"]) -> Shaped[Array, "batch seq registers"]:
        """L1 of (batch, seq, inputs), in the same dtype; for dtype object, in units of 2^-bits."""
        weight, constant = self.circuit.matrix([self.input_map.get(r, {}) for r in self.circuit.registers], self.inputs)
        if inputs.dtype == object:
            return fixed_point(inputs @ weight.T + constant, self.bits)
        return inputs @ weight.T.astype(inputs.dtype) + constant.astype(inputs.dtype)

    def states(self, inputs: Shaped[Array, "batch seq inputs"]) -> Iterator[Array]:
        """The state (batch, seq, registers) after each loop, in the arithmetic of `inputs`."""
        yield from self.circuit.states(self.start(inputs), self.loops, bits=self.bits, eta=self.eta)

    def run(self, inputs: Shaped[Array, "batch seq inputs"]) -> Shaped[Array, "batch seq outputs"]:
        """The output (batch, seq, outputs), in the dtype of the inputs; fractions for dtype object."""
        (state,) = deque(self.states(inputs), maxlen=1) or (self.start(inputs),)
        weight, constant = self.circuit.matrix(self.output_map)
        if inputs.dtype == object:
            return state @ weight.T * Fraction(1, 2**self.bits) + constant
        return state @ weight.T.astype(inputs.dtype) + constant.astype(inputs.dtype)


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

    return _array([convert(v) for v in values.ravel()], values.shape)


def exact(values: Any) -> Array:
    """Numbers as an array of fractions, the input for exact arithmetic."""
    values = np.asarray(values, dtype=object)
    return _array([Fraction(v) for v in values.ravel()], values.shape)


def _array(values: Any, shape: tuple[int, ...]) -> Array:
    array = np.empty(shape, dtype=object)
    array[...] = np.array(values, dtype=object).reshape(shape)
    return array
