"""Memorising K labels by looping one feed-forward layer: L2 . (id + FF)^loops . L1(k) = y_k.

Lemma 4.1 of Xu & Sato (ICML 2025) concerns weight-tied layers: their error is at most the largest jump between
neighbouring labels. Theorem 4.2 removes this error by factors eta(t) on the layer's output. `plain` and `modulated`
are explicit layers for these two results, smaller than the paper's. Without modulation, `radix` and the options of
`plain` reduce the error of the lemma by more loops or more width. A weight-tied layer stores all labels in the
digits of d real numbers. Exact arithmetic therefore needs about two bits per label; see `significant_bits`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from looped import strict
from looped.theory.arithmetic import Array, Number, exact
from looped.theory.circuit import ONE, Circuit, Form, Layer, Program, Unit, form
from looped.theory.idioms import add, at_least, clear, is_zero, off_unless

S = {"s": 1}
SIGNIFICAND = {"float32": 24, "float64": 53}


class Lattice(NamedTuple):
    """Labels on a lattice: y_k is about origin + step * path_k, where path_k and path_{k-1} differ by at most b."""

    origin: Shaped[Array, " dim"]
    step: Shaped[Array, " dim"]
    path: Shaped[Array, "labels dim"]
    """Whole numbers: the position of each label."""

    @property
    def values(self) -> Array:
        """(K, d) the labels as the lattice represents them."""
        return self.origin + self.step * self.path


class Code(NamedTuple):
    """Digits stored in one number: numerator / 2^bits = sum_j digit_j base^-j."""

    numerator: int
    bits: int

    @property
    def value(self) -> Fraction:
        return Fraction(self.numerator, 2**self.bits)


@dataclass(frozen=True)
class Memory:
    """A layer that memorises labels, without the other stages of the construction."""

    program: Program
    labels: Array
    """(K, d) the given labels."""
    ideal: Array
    """(K, d) the output in exact arithmetic."""
    codes: tuple[Code, ...] = ()
    """The numbers that store the labels, one for each coordinate; none with modulation."""

    def recall(self, dtype: str = "exact", ids: Sequence[int] | None = None) -> Shaped[Array, "ids dim"]:
        """(ids, d) the output for the given k, or for all k. `dtype` is exact, float32 or float64."""
        k = np.arange(len(self.labels)) if ids is None else np.array(ids)
        k = k.reshape(-1, 1, 1)
        with np.errstate(over="ignore", invalid="ignore"):  # lost digits may grow without bound
            return self.program.run(exact(k) if dtype == "exact" else k.astype(dtype))[:, 0].astype(float)

    def error(self, dtype: str = "exact") -> float:
        """The largest |recalled - label| over labels and coordinates; infinite if a number overflowed."""
        return float(np.nan_to_num(np.abs(self.recall(dtype) - self.labels), nan=np.inf).max())

    def predicted(self, dtype: str) -> str:
        """A prediction, before running, of whether this dtype gives the right labels; see `predict`."""
        return predict(self.program, self.codes, dtype)


def code_rows(program: Program, d: int) -> Program:
    """The program of the registers theta_i and c_i alone. Their units read nothing else, so it needs no input."""
    names = tuple(f"{name}{i}" for name in ("theta", "c") for i in range(d))
    (layer,) = program.circuit.layers
    units = tuple(u for u in layer.units if u.reads and set(u.reads) <= {*names, ONE})
    bias = {name: value for name, value in layer.bias.items() if name in names}
    input_map = {name: program.input_map.get(name, {}) for name in names}
    output_map = tuple({name: 1} for name in names)
    return Program(Circuit(names, (Layer(units, bias=bias),)), (), input_map, output_map, program.loops, program.bits)


def predict(program: Program, codes: Sequence[Code], dtype: str) -> str:
    """Predict whether a program recalls the labels in these codes correctly in a precision, and say why.

    A floating-point number holds as many bits of a code as its significand has. Reading a digit forms sums such as
    16 theta - 3 theta, which are five bits longer; if these fit, nothing is rounded. Otherwise theta and
    c are run alone in that precision to find the first digit that is read wrong. They do not depend on the input.

    Args:
        program: the memory or the whole construction.
        codes: one for each coordinate.
        dtype: float32 or float64.

    Returns:
        A sentence that starts with "DTYPE: right" or "DTYPE: fails".
    """
    if not codes:
        return f"{dtype}: right, no label is stored in digits"
    needed, have = max(significant_bits(code) for code in codes), SIGNIFICAND[dtype]
    why = f"the code needs {needed} bits, the significand has {have}"
    lost = None if needed <= have - 5 else lost_digit(code_rows(program, len(codes)), len(codes), dtype)
    return f"{dtype}: right, {why}" if lost is None else f"{dtype}: fails, {why}: digit {lost} is read wrong"


def lost_digit(rows: Program, d: int, dtype: str) -> int | None:
    """The number, from 1, of the first digit that floating point reads wrong; None if all are right."""
    no_input = np.empty((1, 1, 0), dtype=object)
    exactly, rounded = rows.states(no_input), rows.states(no_input.astype(dtype))
    with np.errstate(over="ignore", invalid="ignore"):
        for number, right, state in zip(range(1, rows.loops), exactly, rounded, strict=False):  # the last is not used
            digits = [int(c) >> rows.bits for c in right[0, 0, d:]]
            if not (np.abs(state[0, 0, d:] - np.array(digits)) < 0.01).all():
                return number
    return None


def significant_bits(code: Code) -> int:
    """The number of bits from the first to the last nonzero one. Leading zeros cost nothing in floating point."""
    lowest = code.numerator & -code.numerator
    return code.numerator.bit_length() - max(lowest.bit_length() - 1, 0)


def encode(digits: Sequence[int], base: int) -> Code:
    """Store the digits d_1, d_2, ... as sum_j d_j base^-j; `base` is a power of two."""
    numerator, shift = 0, base.bit_length() - 1
    for digit in digits:
        numerator = (numerator << shift) + int(digit)
    return Code(numerator, shift * len(digits))


def lattice(labels: Shaped[Array, "labels dim"], *, digit: int = 1, shrink: Array | float = 1.0) -> Lattice:
    """Follow the labels (K, d) on a lattice with step eps / digit, where eps is the largest jump of each coordinate.

    Each move is at most `digit` steps and ends as near to the label as possible. With shrink=1 every error is at
    most half a step: half the error of Lemma 4.1, or less with larger digits. `shrink` < 1 makes the step smaller. The
    path then lags behind large jumps and is closer to all other labels.
    """
    labels = np.asarray(labels, dtype=float)
    eps = np.abs(np.diff(labels, axis=0)).max(axis=0, initial=0.0)
    step = eps / digit * shrink
    wanted = (labels - labels[0]) / np.where(step > 0, step, 1)
    path = []
    for nearest in np.floor(wanted.T + 0.5).astype(np.int64).tolist():
        position, column = 0, []
        for target in nearest:  # a loop over whole numbers, because there may be millions of labels
            if target > position + digit:
                position += digit
            elif target < position - digit:
                position -= digit
            else:
                position = target
            column.append(position)
        path.append(column)
    return Lattice(labels[0], step, np.array(path).T)


def tuned(
    labels: Shaped[Array, "labels dim"], *, digit: int = 1, weights: Shaped[Array, " labels"] | None = None
) -> Lattice:
    """The lattice with the smallest mean squared error among steps eps * 2^(-j/4), for each coordinate.

    `weights` (K,) is how often each label is recalled; None means equally often.
    """
    tries = [lattice(labels, digit=digit, shrink=2 ** (-j / 4)) for j in range(21)]
    errors = np.array([np.average((t.values - labels) ** 2, axis=0, weights=weights) for t in tries])
    best = errors.argmin(axis=0)
    pick = range(labels.shape[1])
    return Lattice(
        tries[0].origin,
        np.array([tries[b].step[i] for i, b in zip(pick, best, strict=True)]),
        np.stack([tries[b].path[:, i] for i, b in zip(pick, best, strict=True)], axis=1),
    )


def decode_units(s: Form, d: int, *, digit: int = 1, fused: bool = False) -> tuple[list[Unit], dict[str, Number]]:
    """Hidden units and output bias that add one digit of theta_i to a_i in each loop while s >= 1.

    There are registers theta_i, c_i and a_i for each coordinate; s is any form. Let b = digit, let the base be
    B = 2^ceil(log2(3b+1)), and let q be the first digit of theta. Each loop computes theta <- B theta - q, c <- q,
    and a <- a + c [s >= 1]. For whole s and |c| <= b, c [s >= 1] = relu(2bs - b) - relu(2bs - b - c), which needs
    neither a product nor a second layer. The tail of a code is at most b / (B - 1) <= 1/3, so ramps of width 1/4 read
    the digit without error. `fused` uses relu(theta + 1) instead of relu(theta) and relu(-theta). This saves d units,
    but leading zeros of the code then cost bits in floating point.
    """
    b, base = digit, base_of(digit)
    gate = form((2 * b, s), (-b, ONE))
    units = [Unit(gate, {f"a{i}": 1 for i in range(d)})]
    bias: dict[str, Number] = {}
    for i in range(d):
        theta, c, a = f"theta{i}", f"c{i}", f"a{i}"
        units.append(Unit(form((1, gate), (-1, c)), {a: -1}))
        if fused:
            units.append(Unit({theta: 1, ONE: 1}, {theta: base - 1}))
            bias[theta] = 1 - base
        else:
            units += add({theta: 1}, {theta: base - 1}, signed=True)
        units.append(Unit({c: 1, ONE: b}, {c: -1}))
        bias[c] = b
        for sign, level in itertools.product((1, -1), range(1, b + 1)):
            ramp = {theta: sign * 4 * base, ONE: Fraction(3, 2) - 4 * level}
            units += at_least(ramp, {c: sign, theta: -sign})
    return units, bias


def radix_units(s: Form, d: int, bits: int) -> list[Unit]:
    """Hidden units that read `bits` binary digits of theta_i into a_i while -bits < s <= 0, one loop later.

    The registers are g, theta_i, c_i and a_i. g is 1 inside this window and is computed one loop ahead. Inside the
    window a <- 2 a + c (Horner), computed as a += relu(a + c - 2^(bits+1) (1 - g)). The digits are 0 or 1 in base 4.
    """
    units = at_least(form((1, s), (bits - 1, ONE)), {"g": 1}) + at_least(form((1, s), (-1, ONE)), {"g": -1})
    units += clear("g")
    for i in range(d):
        theta, c, a = f"theta{i}", f"c{i}", f"a{i}"
        units += add({theta: 1}, {theta: 3})
        units += at_least({theta: 16, ONE: -Fraction(5, 2)}, {c: 1, theta: -1})
        units += clear(c)
        units += add({a: 1, c: 1}, {a: 1}, gate=off_unless({"g": 1}, 2 ** (bits + 1)))
    return units


def step_units(s: Form, d: int) -> list[Unit]:
    """Hidden units that add relu(s) - relu(s - 1) = [s >= 1] to every y_i; eta(t) scales it to the label's change."""
    return at_least(form((1, s), (-1, ONE)), {f"y{i}": 1 for i in range(d)})


def base_of(digit: int) -> int:
    """The base for digits -b .. b: the least power of two that is at least 3 b + 1."""
    return 2 ** (3 * digit).bit_length()


def plain(labels: Array, *, interpolate: int = 1, digit: int = 1, tune: bool = False) -> Memory:
    """A weight-tied memory with half the error of Lemma 4.1: eps / (2 * interpolate * digit), eps the largest jump.

    Args:
        labels: (K, d), K >= 2.
        interpolate: B inserts B - 1 labels between neighbours, for B (K - 1) loops of the same layer.
        digit: the largest digit b, for K - 1 loops of a wider layer with 1 + d (4 b + 4) hidden units.
        tune: allow a step below eps if this lowers the mean squared error.

    Raises:
        ValueError: labels have the wrong shape or are not finite; a number is below 1.
    """
    labels = _checked(labels)
    d = labels.shape[1]
    strict.at_least(1, interpolate=interpolate, digit=digit)
    fine = _interpolated(labels, interpolate)
    path = tuned(fine, digit=digit) if tune else lattice(fine, digit=digit)
    digits = np.diff(path.path, axis=0).T.tolist()
    codes = tuple(encode(row[1:], base_of(digit)) for row in digits)
    units, bias = decode_units(S, d, digit=digit)
    names = ("s", *(f"{name}{i}" for name in ("theta", "c", "a") for i in range(d)))
    input_map: dict[str, Form] = {"s": {"k": interpolate}}
    for i in range(d):
        input_map |= {f"theta{i}": {ONE: codes[i].value}, f"c{i}": {ONE: digits[i][0]}}
    program = Program(
        Circuit(names, (Layer(tuple(units), bias={"s": -1, **bias}),)),
        ("k",), input_map, _affine(path.origin, path.step), len(fine) - 1, bits=codes[0].bits + 2,
    )  # fmt: skip
    return Memory(program, labels, path.values[::interpolate], codes)


def radix(labels: Array, bits: int) -> Memory:
    """A weight-tied memory with error range * 2^-(bits+1) for jumps of any size, in bits * K + 1 loops.

    The limit in Lemma 4.1 therefore applies to K - 1 loops, not to weight tying in general.

    Raises:
        ValueError: labels (K, d) have the wrong shape or are not finite; bits is below 1.
    """
    labels = _checked(labels)
    strict.at_least(1, bits=bits)
    count, d = labels.shape
    level = quantise_labels(labels, bits)
    codes = tuple(encode(bits_of(column, bits), 4) for column in level.path.T)
    names = ("s", "g", *(f"{name}{i}" for name in ("theta", "c", "a") for i in range(d)))
    input_map: dict[str, Form] = {"s": {"k": bits}, **{f"theta{i}": {ONE: codes[i].value} for i in range(d)}}
    circuit = Circuit(names, (Layer(tuple(radix_units(S, d, bits)), bias={"s": -1}),))
    output_map = _affine(level.origin, level.step)
    return Memory(
        Program(circuit, ("k",), input_map, output_map, bits * count + 1, codes[0].bits + 1),
        labels,
        level.values,
        codes,
    )


def modulated(labels: Array, variant: str = "selecting") -> Memory:
    """An exact timestep-modulated memory (Theorem 4.2), in K - 1 loops. At loop t the register s is k - t + 1.

    telescoping (width 2): y starts at y_0 and adds (y_t - y_{t-1}) [k >= t]. selecting (width 4): p adds y_t [k = t]
    once, so no label is rounded. The labels (K, d) are stored in eta(t), a table of K d parameters.

    Raises:
        ValueError: labels have the wrong shape or are not finite; the variant is unknown.
    """
    labels = _checked(labels)
    count, d = labels.shape
    coordinates = range(d)
    if variant == "telescoping":
        names, units = ("s", *(f"y{i}" for i in coordinates)), step_units(S, d)
        input_map: dict[str, Form] = {"s": {"k": 1}, **{f"y{i}": {ONE: Fraction(labels[0, i])} for i in coordinates}}
        output_map: tuple[Form, ...] = tuple({f"y{i}": 1} for i in coordinates)
        factors = np.diff(exact(labels), axis=0)
    elif variant == "selecting":
        names = ("s", *(f"p{i}" for i in coordinates), *(f"q{i}" for i in coordinates))
        units = is_zero({"s": 1, ONE: -1}, {f"p{i}": 1 for i in coordinates})
        units += add({"s": -1, ONE: 1}, {f"q{i}": 1 for i in coordinates})
        input_map, output_map = {"s": {"k": 1}}, tuple({f"p{i}": 1, f"q{i}": 1} for i in coordinates)
        once = exact(np.zeros((count - 1, d)))
        once[0] = exact(labels[0])
        factors = np.concatenate([exact(labels[1:]), once], axis=1)
    else:
        raise ValueError(f"variant={variant!r}: expected telescoping or selecting")
    eta = np.concatenate([exact(np.ones((count - 1, 1))), factors], axis=1)
    circuit = Circuit(names, (Layer(tuple(units), bias={"s": -1}),))
    bits = max(f.denominator.bit_length() - 1 for f in exact(labels).ravel())
    return Memory(Program(circuit, ("k",), input_map, output_map, count - 1, bits, eta), labels, labels)


def share_recalled(count: int, seed: int) -> dict[str, Any]:
    """The shares of the labels of ten random walks that plain looping recalls within a thousandth of a step."""
    shares = {dtype: [] for dtype in ("exact", "float64", "float32")}
    for trial in range(10):
        memory = plain(np.random.default_rng([seed, trial]).uniform(-1, 1, (count, 1)).cumsum(axis=0))
        step = float(memory.program.output_map[0]["a0"])
        for dtype, values in shares.items():
            ids = range(0, count, 1 + count // 20) if dtype == "exact" else range(count)  # exact arithmetic is slow
            right = np.abs(memory.recall(dtype, ids) - memory.ideal[ids]) < 1e-3 * step
            values.append(float(right.mean()))
    return {"count": count, **{dtype: float(np.mean(values)) for dtype, values in shares.items()}}


def quantise_labels(labels: Shaped[Array, "labels dim"], bits: int) -> Lattice:
    """Labels (K, d) rounded to the midpoints of 2^bits equal parts of the range of each coordinate."""
    low, high = labels.min(axis=0), labels.max(axis=0)
    width = np.where(high > low, (high - low) / 2**bits, 0.0)
    path = np.minimum((labels - low) / np.where(width > 0, width, 1), 2**bits - 1).astype(np.int64)
    return Lattice(low + width / 2, width, path)


def bits_of(values: Array, bits: int) -> list[int]:
    """The binary digits of whole numbers, one number after another, highest digit first."""
    return [(int(v) >> shift) & 1 for v in values for shift in range(bits - 1, -1, -1)]


def _interpolated(labels: Array, between: int) -> Array:
    k = np.arange(between * (len(labels) - 1) + 1) / between
    return np.stack([np.interp(k, np.arange(len(labels)), column) for column in labels.T], axis=1)


def _affine(origin: Array, step: Array) -> tuple[Form, ...]:
    return tuple({f"a{i}": Fraction(step[i]), ONE: Fraction(origin[i])} for i in range(len(step)))


def _checked(labels: Array) -> Array:
    labels = np.asarray(labels, dtype=float)
    if labels.ndim != 2 or len(labels) < 2 or not labels.shape[1]:
        raise ValueError(f"labels of shape {labels.shape}: expected (K, d) with K at least 2 and d at least 1")
    if not np.isfinite(labels).all():
        raise ValueError(
            f"labels: expected finite numbers, label {int(np.argwhere(~np.isfinite(labels))[0][0])} is not"
        )
    return labels
