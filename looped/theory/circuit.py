"""A looped transformer written as named registers, heads and hidden units, and its execution in exact arithmetic.

The state of a token is a list of named registers. A linear form over registers is a dict:
{"s": 2, "c": -1, ONE: -1} is 2 s - c - 1. A layer is a list of attention heads and a list of ReLU units, each made of
a few forms. The code of a construction therefore reads like its derivation. This module executes a program in whole
numbers or in a floating-point type; `looped.theory.weights` writes the same program into a `LoopedTransformer`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from numpy.typing import DTypeLike

from looped.theory.arithmetic import LIMITS, Array, Number, check_exact, converted, filled, fixed_point

ONE = "1"
Form = Mapping[str, Number]
Graphs = Mapping[str, Array]
"""Matrices (batch, seq, seq) by name; row i holds the factors of the tokens that token i sums."""


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
    """One head: each value, mixed over the tokens, is added to the register of the same place in `writes`.

    The score of token j for token i is the sum of query(i) * key(j) over the forms of both. Without forms all scores
    are equal, and the head computes means over all tokens. A value form may have a factor that makes means whole.
    """

    value: tuple[Form, ...]
    writes: tuple[str, ...]
    query: tuple[Form, ...] = ()
    key: tuple[Form, ...] = ()
    graph: str | None = None
    """The values are multiplied by this matrix, which comes with the input, instead of by weights from scores."""


class Layer(NamedTuple):
    """X += heads(X), then X += eta(t) * (units(X) + bias). Hardmax attention averages ties."""

    units: tuple[Unit, ...] = ()
    heads: tuple[Head, ...] = ()
    bias: Form = {}  # noqa: RUF012
    """The output bias of the feed-forward layer, added to registers in every loop."""

    def non_zeros(self) -> int:
        """The number of nonzero weights and biases."""
        forms = [f for unit in self.units for f in unit]
        forms += [f for head in self.heads for part in (head.query, head.key, head.value) for f in part]
        written = sum(len(head.writes) for head in self.heads)
        return sum(value != 0 for f in [*forms, self.bias] for value in f.values()) + written


class Cost(NamedTuple):
    """The size of a circuit, counted from its weights."""

    registers: int
    layers: int
    heads: int
    """Heads with scores, in all layers."""
    graph_heads: int
    head_size: int
    """That of the largest head."""
    units: int
    """Hidden units of all layers."""
    non_zeros: int


@dataclass(frozen=True)
class Circuit:
    """The layers that are looped, over the same registers."""

    registers: tuple[str, ...]
    layers: tuple[Layer, ...]
    linear: bool = False
    """Whether heads multiply values by the scores themselves, instead of by hardmax weights."""

    def __post_init__(self) -> None:
        if len(set(self.registers)) < len(self.registers):
            raise ValueError(f"registers: expected different names, not {', '.join(self.registers)}")
        for layer in self.layers:
            self.check_layer(layer)

    def check_names(self, names: Iterable[str], where: str) -> None:
        """Raises ValueError if a name is not that of a register."""
        if unknown := set(names) - {*self.registers}:
            raise ValueError(f"{where}: writes {min(unknown)!r}; expected one of {', '.join(self.registers)}")

    def check_layer(self, layer: Layer) -> None:
        """Raises ValueError if the bias or a head writes a name that is not that of a register."""
        self.check_names(layer.bias, "bias")
        for head in layer.heads:
            self.check_names(head.writes, "head")

    def cost(self) -> Cost:
        heads = [head for layer in self.layers for head in layer.heads]
        graph_heads = sum(head.graph is not None for head in heads)
        return Cost(
            registers=len(self.registers), layers=len(self.layers), heads=len(heads) - graph_heads,
            graph_heads=graph_heads, head_size=head_size(self.layers),
            units=sum(len(layer.units) for layer in self.layers),
            non_zeros=sum(layer.non_zeros() for layer in self.layers),
        )  # fmt: skip

    def matrix(self, forms: Sequence[Form], names: Sequence[str] | None = None) -> tuple[Array, Array]:
        """The forms as weights (forms, names) and constants (forms,). The default for `names` is all registers.

        Raises:
            ValueError: a form reads a name that is not in `names`.
        """
        names = self.registers if names is None else names
        if ONE in names:
            raise ValueError(f"name {ONE!r}: expected another one, because it stands for the constant in forms")
        if unknown := {name for f in forms for name in f} - {*names, ONE}:
            raise ValueError(f"register {min(unknown)!r}: expected one of {', '.join(names)}")
        weight = [[f.get(name, 0) for name in names] for f in forms]
        return filled(weight, (len(forms), len(names))), filled([f.get(ONE, 0) for f in forms], (len(forms),))

    def states(
        self,
        start: Shaped[Array, "batch seq registers"],
        loops: int,
        *,
        bits: int = 0,
        eta: Shaped[Array, "loops registers"] | None = None,
        graphs: Graphs | None = None,
    ) -> Iterator[Array]:
        """The state (batch, seq, registers) after each loop, in the arithmetic of `start`.

        Args:
            start: (batch, seq, registers). Dtype object holds Python integers in units of 2^-bits, and the computation
                is exact. Another dtype is used for the computation; int64 with bits=0 is exact too.
            loops: how often the layers are applied.
            bits: fractional bits of the program. 0 means whole numbers, whose size is then checked.
            eta: (loops, registers) factors on the output of the feed-forward layers; None means 1.
            graphs: the matrices of the heads that name one.

        Raises:
            ValueError: a bias is not a multiple of 2^-bits, a graph is missing, or whole numbers become too large for
                the dtype to hold exactly.
        """
        layers = [RunnableLayer(self, layer, start.dtype, bits) for layer in self.layers]
        state = start
        for loop in range(loops):
            factor = None if eta is None else eta[loop].astype(start.dtype)
            for layer in layers:
                state = layer(state, graphs or {}, factor)
            yield state


class RunnableLayer:
    """The weights of one layer in one arithmetic."""

    def __init__(self, circuit: Circuit, layer: Layer, dtype: DTypeLike, bits: int) -> None:
        self.dtype = np.dtype(dtype)
        self.bits = bits
        self.largest = 0.0
        """A bound on all numbers so far, if whole numbers are checked."""
        self.linear = circuit.linear
        if self.linear and layer.heads and self.dtype == object:
            raise ValueError("linear attention: expected a floating-point type, because it multiplies numbers")
        self.up, self.up_bias = circuit.matrix([unit.reads for unit in layer.units])
        self.down = circuit.matrix([unit.writes for unit in layer.units])[0]
        self.bias = filled([layer.bias.get(name, 0) for name in circuit.registers], (len(circuit.registers),))
        if self.dtype == object:
            self.up_bias, self.bias = fixed_point(self.up_bias, bits), fixed_point(self.bias, bits)
        else:
            parts = (self.up, self.up_bias, self.down, self.bias)
            self.up, self.up_bias, self.down, self.bias = (converted(part, self.dtype) for part in parts)
        self.heads = [self._head(circuit, head) for head in layer.heads]

    def __call__(self, state: Array, graphs: Graphs, factor: Array | None = None) -> Array:
        new = state
        for head, weights, columns in self.heads:
            added = self._mix(head, weights, state, graphs)
            new = new.copy() if new is state else new
            for place, column in enumerate(columns):
                new[..., column] = self._sum(new[..., column], added[..., place])
        self._check(new, self.up, self.up_bias)
        hidden = np.maximum(new @ self.up.T + self.up_bias, 0)
        self._check(hidden, self.down.T, self.bias)
        change = hidden @ self.down + self.bias
        return self._sum(new, change if factor is None else change * factor)

    def _head(self, circuit: Circuit, head: Head) -> tuple[Head, list[Array], list[int]]:
        if len(head.query) != len(head.key) or len(head.value) != len(head.writes):
            raise ValueError("head: expected as many queries as keys, and as many values as written registers")
        weights = []
        for forms in (head.query, head.key, head.value):
            weight, constant = circuit.matrix(forms)
            if constant.any():
                raise ValueError("head: has a constant, but attention has no bias; expected a register that is one")
            weights.append(converted(weight.T, self.dtype))
        return head, weights, [circuit.registers.index(name) for name in head.writes]

    def _mix(self, head: Head, weights: list[Array], state: Array, graphs: Graphs) -> Array:
        query, key, value = weights
        self._check(state, value.T)
        values = state @ value
        if head.graph is not None:
            if head.graph not in graphs:
                raise ValueError(f"graphs: {head.graph!r} is missing; expected a matrix (batch, seq, seq)")
            graph = converted(graphs[head.graph], self.dtype)
            self._check(graph, np.abs(values).max(axis=(0, 1))[:, None] * np.ones(graph.shape[-1], int))
            return graph @ values
        if not head.query:
            self._check(state, state.shape[1] * value.T)
            total, count = values.sum(axis=1, keepdims=True), np.full((1, 1, 1), state.shape[1], dtype=self.dtype)
            return self._mean(total, count) + np.zeros_like(values)
        queries, keys = state @ query, state @ key
        self._check(state, query.T)
        self._check(state, key.T)
        self._check(queries, np.abs(keys).max(axis=(0, 1))[None])
        scores = queries @ keys.swapaxes(-1, -2)
        if self.linear:
            return scores @ values
        chosen = scores == scores.max(axis=-1, keepdims=True)
        count = chosen.sum(axis=-1, keepdims=True)
        if (count == 1).all():  # reading one token needs no arithmetic
            return np.take_along_axis(values, chosen.argmax(axis=-1)[..., None], axis=1)
        self._check(values, count.max() * np.eye(values.shape[-1], dtype=int))
        # Dividing the sum by the count is exact for equal integers; a sum of value * (1 / count) is not.
        return self._mean(chosen.astype(self.dtype) @ values, count.astype(self.dtype))

    def _mean(self, total: Array, count: Array) -> Array:
        if self.dtype.kind == "f":
            return total / count
        if (total % count).any():
            raise ValueError(
                "head: a mean over tokens is not a whole number; expected one token with the highest score (a register "
                "of the query or key may be missing), or tied values that are equal"
            )
        return total // count

    def _check(self, values: Array, weight: Array, bias: Array | int = 0) -> None:
        self.largest = max(self.largest, check_exact(self.dtype, self.bits, values, weight, bias))

    def _sum(self, a: Array, b: Array) -> Array:
        if self.bits == 0 and self.dtype.name in LIMITS:
            self._check((a.astype(np.float64) + b.astype(np.float64))[..., None], np.ones((1, 1)))
        return a + b


@dataclass(frozen=True)
class Program:
    """A circuit with its affine input and output maps: output = L2 . core^loops . prelude . L1(input)."""

    circuit: Circuit
    inputs: tuple[str, ...]
    """Names of the input's coordinates, or of the tokens (see `tokens`)."""
    input_map: Mapping[str, Form]
    """L1: registers as forms over the inputs. Registers not named start at zero."""
    output_map: tuple[Form, ...]
    """L2: each output as a form over the registers."""
    loops: int
    bits: int = 1
    """Fractional bits that exact arithmetic needs. 0 says that all numbers are whole."""
    eta: Array | None = None
    """(loops, registers) factors on the feed-forward layer's output (Theorem 4.2). None is plain looping."""
    prelude: tuple[Layer, ...] = ()
    """Layers that are applied once, before the loop."""
    tokens: bool = False
    """Whether an input is the number of a token, which stands for its unit vector, instead of a vector."""
    positions: Mapping[str, Callable[[int], int]] = field(default_factory=dict)
    """Registers to which a function of the position 0, 1, ... is added."""

    def __post_init__(self) -> None:
        self.circuit.check_names(self.input_map, "input_map")
        self.circuit.check_names(self.positions, "positions")
        for layer in self.prelude:
            self.circuit.check_layer(layer)

    def start(self, inputs: Array, *, dtype: DTypeLike | None = None) -> Shaped[Array, "batch seq registers"]:
        """The state before the prelude: L1 and positions; for dtype object, in units of 2^-bits.

        Args:
            inputs: (batch, seq, inputs), or token numbers (batch, seq).
            dtype: the arithmetic; None is that of the inputs.

        Raises:
            ValueError: the inputs have another shape.
        """
        shape = "(batch, seq)" if self.tokens else f"(batch, seq, {len(self.inputs)})"
        if inputs.ndim != (2 if self.tokens else 3) or not (self.tokens or inputs.shape[-1] == len(self.inputs)):
            raise ValueError(f"inputs: have shape {inputs.shape}; expected {shape}")
        dtype = np.dtype(dtype or inputs.dtype)
        weight, constant = self.input_weights()
        table = self.position_table(inputs.shape[1])
        if dtype.kind == "O":
            state = (weight.T[inputs] if self.tokens else inputs @ weight.T) + constant + table
            return fixed_point(state, self.bits)
        weight, constant, table = (converted(part, dtype) for part in (weight.T, constant, table))
        if self.tokens:
            return weight[inputs] + constant + table
        check_exact(dtype, self.bits, inputs, weight.T, np.abs(constant) + np.abs(table).max(axis=0))
        return converted(inputs, dtype, whole=self.bits == 0) @ weight + constant + table

    def initial(
        self, inputs: Array, *, dtype: DTypeLike | None = None, graphs: Graphs | None = None
    ) -> Shaped[Array, "batch seq registers"]:
        """The state before the first loop, which the prelude returns; arguments as in `states`."""
        state = self.start(inputs, dtype=dtype)
        for layer in self.prelude:
            state = RunnableLayer(self.circuit, layer, state.dtype, self.bits)(state, graphs or {})
        return state

    def input_weights(self) -> tuple[Array, Array]:
        """L1 as weights (registers, inputs) and constants (registers,)."""
        forms = [self.input_map.get(register, {}) for register in self.circuit.registers]
        return self.circuit.matrix(forms, self.inputs)

    def position_table(self, seq: int) -> Shaped[Array, "seq registers"]:
        """(seq, registers) what is added to the registers at each position."""
        zero = [0] * seq
        columns = [
            list(map(self.positions[name], range(seq))) if name in self.positions else zero
            for name in self.circuit.registers
        ]
        return filled(np.array(columns, dtype=object).T, (seq, len(columns)))

    def states(
        self, inputs: Array, *, loops: int | None = None, dtype: DTypeLike | None = None, graphs: Graphs | None = None
    ) -> Iterator[Array]:
        """The state (batch, seq, registers) after each loop; arguments as in `start` and `Circuit.states`."""
        state = self.initial(inputs, dtype=dtype, graphs=graphs)
        loops = self.loops if loops is None else loops
        yield from self.circuit.states(state, loops, bits=self.bits, eta=self.eta, graphs=graphs)

    def run(
        self, inputs: Array, *, loops: int | None = None, dtype: DTypeLike | None = None, graphs: Graphs | None = None
    ) -> Shaped[Array, "batch seq outputs"]:
        """The output (batch, seq, outputs); for dtype object fractions. Arguments as in `states`."""
        (state,) = deque(self.states(inputs, loops=loops, dtype=dtype, graphs=graphs), maxlen=1) or (
            self.initial(inputs, dtype=dtype, graphs=graphs),
        )
        return self.output(state)

    def output(self, state: Shaped[Array, "batch seq registers"]) -> Shaped[Array, "batch seq outputs"]:
        """L2 of a state; for dtype object fractions."""
        weight, constant = self.circuit.matrix(self.output_map)
        if state.dtype == object:
            return state @ weight.T * Fraction(1, 2**self.bits) + constant
        weight, constant = converted(weight, state.dtype), converted(constant, state.dtype)
        check_exact(state.dtype, self.bits, state, weight, constant)
        return state @ weight.T + constant


def head_size(layers: Sequence[Layer]) -> int:
    """The size of the largest head: its number of queries or of values."""
    return max((max(len(h.query), len(h.value)) for layer in layers for h in layer.heads), default=1)
