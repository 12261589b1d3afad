"""Five memories on the same labels, behind one front end: what layers, loops, numbers and bits buy.

Proofs that transformers approximate functions of sequences have three stages: quantise the tokens, compute a number k
of token and context, and look up label k of K. They differ in the memory for the third stage. The memories here hold
K labels (K, d), whole numbers of B bits, and all their arithmetic is whole:

- wide: one hidden layer of K - 1 units, the piecewise linear function through the labels. Results on one attention
  layer use such a layer (Kajitsuka & Sato, 2023).
- deep: the same units, one in each of K - 1 untied layers. Yun et al. (2019) have constant width and much depth.
- modulated: one layer in a loop, with factors eta(t) (Xu & Sato, 2025, Theorem 4.2).
- grouped: G numbers hold the binary digits of K / G labels each. Two layers before the loop select a number, and the
  loop reads its digits: bit extraction, as in Vardi et al. (2021) and Kim et al. (2023).
- digits: grouped with G = 1. One number for each coordinate holds all labels, and all weights are tied.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from looped.strict import check
from looped.theory.arithmetic import Array, Number
from looped.theory.cells import Cells
from looped.theory.circuit import ONE, Circuit, Form, Layer, Program, Unit, form
from looped.theory.contextual_mapping import REGISTERS, contextual_parts
from looped.theory.idioms import add, at_least, clear, off_unless
from looped.theory.quantization import quantization_units

KINDS = ("wide", "deep", "modulated", "digits", "grouped")
Labels = Int[Array, "labels dim"]


class Front(NamedTuple):
    """The layers before a memory. After its layers, the form k is the number of a label."""

    k: Form
    registers: tuple[str, ...]
    inputs: tuple[str, ...]
    input_map: Mapping[str, Form]
    layers: tuple[Layer, ...] = ()
    bits: int = 0
    """Fractional bits that exact arithmetic needs."""


ALONE = Front({"k": 1}, ("k",), ("k",), {"k": {"k": 1}})


def stages(cells: Cells, slope: int = 2**20) -> Front:
    """Quantisation and contextual mapping: from real tokens (d,) to contextual IDs, by n - 1 + N equal layers."""
    d, n = cells.d, cells.n
    units, drift = quantization_units(d, slope)
    context_units, heads, context_drift = contextual_parts(cells.token_form(), cells.tokens, cells.seq)
    layer = Layer((*units, *context_units), heads, {**drift, **context_drift})
    names = (*(f"{name}{i}" for name in ("u", "beta") for i in range(d)), *REGISTERS)
    input_map: dict[str, Form] = {f"u{i}": {f"x{i}": n} for i in range(d)}
    input_map |= {"J": {ONE: -(n - 1)}, "one": {ONE: 1}}
    k = form((1, cells.offset_form()), (1, cells.context_form()))
    inputs = tuple(f"x{i}" for i in range(d))
    return Front(k, names, inputs, input_map, (layer,) * (n - 1 + cells.seq), bits=53)  # a float64 in [0, 1]


def memory(kind: str, labels: Labels, bits: int, *, groups: int = 1, front: Front = ALONE) -> Program:
    """The program that recalls label k: from the input of `front`, or from k alone, to d whole numbers.

    Args:
        kind: one of KINDS.
        labels: (K, d) whole numbers in 0 .. 2^bits - 1, K >= 2.
        bits: B.
        groups: G, of the kind grouped.
        front: what comes before.

    Raises:
        ValueError: kind, labels or groups are out of range.
    """
    check(kind in KINDS, "kind", kind, f"one of {', '.join(KINDS)}")
    if labels.ndim != 2 or len(labels) < 2 or not labels.shape[1]:
        raise ValueError(f"labels of shape {labels.shape}: expected (K, d) with K at least 2 and d at least 1")
    if labels.min() < 0 or labels.max() >= 2**bits:
        raise ValueError(f"labels: expected whole numbers in 0 .. 2^{bits} - 1")
    check(1 <= groups <= len(labels), "groups", groups, f"1 to the number of labels, {len(labels)}")
    if kind == "modulated":
        return _modulated(labels, front)
    if kind in ("digits", "grouped"):
        return _grouped(labels, bits, groups if kind == "grouped" else 1, front)
    units = _line(labels, front.k)
    layers = (Layer(units),) if kind == "wide" else tuple(Layer((unit,)) for unit in units)
    return _program(front, _of("a", labels[0]), layers)


def _line(labels: Labels, k: Form) -> tuple[Unit, ...]:
    """The line through all points (j, label j), less label 0, is added to a. At each j one unit bends it."""
    bends = np.diff(np.diff(labels, axis=0), axis=0, prepend=0)
    return tuple(Unit(form((1, k), (-j, ONE)), _of("a", bend)) for j, bend in enumerate(bends))


def _modulated(labels: Labels, front: Front) -> Program:
    """Loop t adds eta(t) = (label t) - (label t - 1) if k >= t. The register clock is 1 - t in loop t."""
    count, d = labels.shape
    units = at_least(form((1, front.k), (1, "clock"), (-1, ONE)), _of("a", [1] * d))
    program = _program(
        front, {"clock": 0, **_of("a", labels[0])}, (Layer(tuple(units), bias={"clock": -1}),), count - 1
    )
    eta = np.ones((count - 1, len(program.circuit.registers)), dtype=object)
    eta[:, -d:] = np.diff(labels, axis=0)
    return replace(program, eta=eta)


def _grouped(labels: Labels, bits: int, groups: int, front: Front) -> Program:
    """G codes of m labels each. The loop shifts the B m binary digits out of the code of k's group.

    Before the loop, one layer counts the group g of k and its square, g = sum_i [k >= i m] and g^2 = sum_i (2i - 1)
    [k >= i m]. The next adds code i to theta if g = i, by a single unit, relu(1 - (g - i)^2).

    Loop t computes theta <- 2 theta - 2^(B m + 1) c, and c <- the leading digit of theta, which is digit t of the
    code. It also computes whether digit t belongs to label k: then window is 1 in the next loop, which appends the
    digit, a <- 2 a + c. These are the loops with -B < s <= 0 for s = B (k - g m) + 1 - t.
    """
    d, size = labels.shape[1], -(-len(labels) // groups)
    codes, top = _codes(labels, bits, size), 2 ** (bits * size)
    one_code, place, prelude = len(codes) == 1, front.k, ()
    start: dict[str, Number] = {"clock": 0, "window": 0}
    if not one_code:
        place = form((1, front.k), (-size, "g"))
        start |= {"g": 0, "gg": 0}
        steps = [
            at_least(form((1, front.k), (-i * size, ONE)), {"g": 1, "gg": 2 * i - 1}) for i in range(1, len(codes))
        ]
        select = [Unit({ONE: 1 - i * i, "g": 2 * i, "gg": -1}, _of("theta", code)) for i, code in enumerate(codes)]
        prelude = (Layer(tuple(unit for step in steps for unit in step)), Layer(tuple(select)))
    start |= {**_of("theta", codes[0] if one_code else [0] * d), **_of("c", [0] * d), **_of("a", [0] * d)}
    s = form((bits, place), (1, "clock"))
    units = [
        *at_least(form((1, s), (bits - 1, ONE)), {"window": 1}),
        *at_least(form((1, s), (-1, ONE)), {"window": -1}),
        *clear("window"),
    ]
    for i in range(d):
        theta, c, a = f"theta{i}", f"c{i}", f"a{i}"
        units += add({theta: 1}, {theta: 1})
        units += add({c: 1}, {c: -1, theta: -2 * top})
        units += at_least(form((2, theta), (-2 * top, c), (-top, ONE)), {c: 1})
        units += add({a: 1, c: 1}, {a: 1}, gate=off_unless({"window": 1}, 2**bits))
    return _program(front, start, (Layer(tuple(units), bias={"clock": -1}),), bits * size + 1, prelude)


def _codes(labels: Labels, bits: int, size: int) -> list[list[int]]:
    """For each group of `size` labels, the number of each coordinate whose binary digits are those of its labels."""
    padded = [*labels.tolist(), *[[0] * labels.shape[1]] * (-len(labels) % size)]
    return [
        [functools.reduce(lambda code, label: (code << bits) + label, column) for column in zip(*group, strict=True)]
        for group in (padded[first : first + size] for first in range(0, len(padded), size))
    ]


def _of(name: str, values: Sequence[Any] | Array) -> dict[str, Number]:
    return {f"{name}{i}": int(value) for i, value in enumerate(values)}


def _program(
    front: Front,
    start: Mapping[str, Number],
    layers: tuple[Layer, ...],
    loops: int = 1,
    prelude: tuple[Layer, ...] = (),
) -> Program:
    """The front end, then a memory with the registers of `start` and their first values."""
    circuit = Circuit((*front.registers, *start), tuple(layers))
    input_map = {**front.input_map, **{name: {ONE: value} for name, value in start.items()}}
    output_map = tuple({name: 1} for name in start if name.startswith("a"))
    return Program(circuit, front.inputs, input_map, output_map, loops, front.bits, prelude=(*front.layers, *prelude))


class Size(NamedTuple):
    """The size of a memory, without its front end."""

    layers: int
    """Layers with weights of their own, before and in the loop."""
    loops: int
    depth: int
    """Layers that a token passes: those before the loop, and those in it times the loops."""
    width: int
    """Hidden units of the widest layer."""
    numbers: int
    """Weights that depend on the labels."""
    bits: int
    """The most bits of such a weight, with its sign."""


def formula(kind: str, count: int, d: int, bits: int, *, groups: int = 1) -> Size:
    """The size of a memory by our derivation, for K = count labels of B bits in d dimensions, K >= 3."""
    k, label = count, bits
    size = -(-k // (groups if kind == "grouped" else 1))
    used = -(-k // size)
    chosen, tied = 2 * (used > 1), 5 * d + 5
    return {
        "wide": Size(1, 1, 1, k - 1, k * d, label + 2),
        "deep": Size(k - 1, 1, k - 1, 1, k * d, label + 2),
        "modulated": Size(1, k - 1, k - 1, 2, k * d, label + 1),
    }.get(
        kind,
        Size(
            1 + chosen, label * size + 1, chosen + label * size + 1, max(2 * (used - 1), tied), used * d, label * size
        ),
    )


def measure(kind: str, labels: Labels, bits: int, *, groups: int = 1) -> Size:
    """The size of a memory, counted from its weights.

    A weight depends on the labels if it changes with them. The memory is built for these and for 12 other sets of
    labels, each 0 or 2^B - 1, and their weights are compared.
    """
    others = np.random.default_rng(0).integers(0, 2, (12, *labels.shape))
    others[0], others[1] = 1, np.arange(len(labels))[:, None] % 2  # the largest codes and bends of a line
    program = memory(kind, labels, bits, groups=groups)
    sets = [labels, *((2**bits - 1) * others)]
    values = [weights(memory(kind, other, bits, groups=groups)) for other in sets]
    stored = [row for row in zip(*values, strict=True) if len(set(row)) > 1]
    core, prelude = program.circuit.layers, program.prelude
    return Size(
        layers=len(prelude) + len(core), loops=program.loops, depth=len(prelude) + len(core) * program.loops,
        width=max(len(layer.units) for layer in (*prelude, *core)), numbers=len(stored),
        bits=max(int(v).bit_length() + (min(row) < 0) for row in stored for v in row),
    )  # fmt: skip


def weights(program: Program) -> list[Number]:
    """All weights of a program in a fixed order: L1, hidden units and biases of all layers, L2, and eta."""
    forms = [*program.input_map.values(), *program.output_map]
    for layer in (*program.prelude, *program.circuit.layers):
        forms += [*(f for unit in layer.units for f in unit), layer.bias]
    return [v for f in forms for v in f.values()] + ([] if program.eta is None else program.eta.ravel().tolist())
