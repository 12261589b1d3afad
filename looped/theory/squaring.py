"""Squares, products, powers and reciprocals by looping a fixed block of a few ReLU units.

Yarotsky (2017) writes x^2 on [0, 1] as x - sum_s 4^-s g_s(x), where g_s is the tent function applied s times, with a
new layer for each term. Here one block with constant weights computes a term in each loop, as in the fixed-size
networks of Zhang, Lu & Zhao (2023). The registers shrink instead of the weights: h = 4^-t g_t(x) and c = 4^-t.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from looped.theory.arithmetic import Number
from looped.theory.circuit import ONE, Circuit, Form, Layer, Program, Unit, form
from looped.theory.idioms import add, off_unless

BITS = 60  # inputs are multiples of 2^-60 in exact arithmetic; the largest is 1
LARGEST = 2  # above all values
HALF = Fraction(1, 2)


def square_units(h: str, writes: Form, *, scale: Form | None = None, gate: Form | None = None) -> list[Unit]:
    """The next term of (the square of what h began with) in `writes`, which began with the number itself.

    The tent of h / c, times c / 4, is h / 2 - relu(h - c / 2): the next h, which is also subtracted from the square.

    Args:
        scale: c, 4^-t after t loops. The default is the register c.
    """
    half = {"c": HALF} if scale is None else form((HALF, scale))
    return [
        *add({h: 1}, form((-HALF, h), (-HALF, writes)), gate=gate),
        *add(form((1, h), (-1, half)), form((-1, h), (1, writes)), gate=gate),
    ]


def square(loops: int) -> Program:
    """x^2 for x in [0, 1], never below it and at most 4^-(t+1) above it after t loops: 3 registers, 3 units."""
    units = (*square_units("h", {"y": 1}), *add({"c": 1}, {"c": Fraction(-3, 4)}))
    start: dict[str, Form] = {"h": {"x": 1}, "c": {ONE: 1}, "y": {"x": 1}}
    return Program(Circuit(("h", "c", "y"), (Layer(units),)), ("x",), start, ({"y": 1},), loops, BITS)


def untied(layers: int) -> Program:
    """The same function with a new layer for each term (Yarotsky, 2017), and 4^-t in its weights."""
    each = tuple(Layer(tuple(square_units("h", {"y": 1}, scale={ONE: Fraction(1, 4**t)}))) for t in range(layers))
    start: dict[str, Form] = {"h": {"x": 1}, "y": {"x": 1}}
    return Program(Circuit(("h", "y"), each), ("x",), start, ({"y": 1},), 1, BITS + 2 * layers)


class Quadratic(NamedTuple):
    """sum of factor * (form)^2 over `squares`, plus a linear form."""

    squares: tuple[tuple[Number, Form], ...] = ()
    linear: Form = {}  # noqa: RUF012

    def start(self) -> Form:
        """The value in which all squares are replaced by their roots: how a register that becomes this begins."""
        return form((1, self.linear), *self.squares)


def times(a: str, b: str) -> Quadratic:
    """a b, as 2 ((a + b) / 2)^2 - a^2 / 2 - b^2 / 2, or as a square."""
    if a == b:
        return Quadratic(((1, {a: 1}),))
    return Quadratic(((2, {a: HALF, b: HALF}), (-HALF, {a: 1}), (-HALF, {b: 1})))


def product(loops: int) -> Program:
    """x y for x and y in [0, 1], with an error of -4^-(t+1) to 2 * 4^-(t+1): 5 registers, 7 units."""
    xy = times("x", "y")
    squared = {f"h{i}": (factor, root) for i, (factor, root) in enumerate(xy.squares)}
    units = [unit for h, (factor, _) in squared.items() for unit in square_units(h, {"z": factor})]
    start: dict[str, Form] = {"z": xy.start(), "c": {ONE: 1}, **{h: root for h, (_, root) in squared.items()}}
    circuit = Circuit((*squared, "c", "z"), (Layer((*units, *add({"c": 1}, {"c": Fraction(-3, 4)}))),))
    return Program(circuit, ("x", "y"), start, ({"z": 1},), loops, BITS)


@dataclass(frozen=True)
class Iteration:
    """v <- (a quadratic form of all variables), for each variable v, again and again. All values lie in [0, 1]."""

    start: Mapping[str, Form]
    """Each variable as a form of the input x."""
    step: Mapping[str, Quadratic]

    def program(self, output: Form, steps: int, loops: int) -> Program:
        """The iteration as a fixed block: a step takes `loops` loops for its squares, and one more to begin the next.

        k counts the loops of a step down. `last` is 1 in the loop that begins the next step: there, the new values are
        distributed to the roots h of the next squares.
        """
        roots = [root for quadratic in self.step.values() for _, root in quadratic.squares]
        roots = [root for i, root in enumerate(roots) if root not in roots[:i]]
        h = [f"h{i}" for i in range(len(roots))]
        off, on = {"last": LARGEST}, off_unless({"last": 1}, LARGEST)
        units = [Unit({"k": -1, ONE: 1}, {"last": 1, "k": loops + 1}), *add({"c": 1}, {"c": Fraction(-3, 4)}, gate=off)]
        for name, root in zip(h, roots, strict=True):
            writes = form(*((factor, v) for v, q in self.step.items() for factor, r in q.squares if r == root))
            units += square_units(name, writes, gate=off)
        # What is left of c and h is cleared, and the value of each variable is replaced by the next start.
        starts = {**dict(zip(h, roots, strict=True)), **{v: q.start() for v, q in self.step.items()}}
        units += [unit for name in ("c", *h) for unit in add({name: 1}, {name: -1}, gate=on)]
        units += [
            unit
            for v in self.step
            for unit in add({v: 1}, form((-1, v), *((r.get(v, 0), name) for name, r in starts.items())), gate=on)
        ]
        constants = form(*((f.get(ONE, 0), name) for name, f in starts.items()))
        units += add({"last": 1}, form((-1, "last"), (1, "c"), (1, constants)))
        first = {name: _substitute(f, self.start) for name, f in starts.items()}
        input_map = {**first, "k": {ONE: loops - 1}, "c": {ONE: 1}}
        circuit = Circuit((*self.step, *h, "c", "last", "k"), (Layer(tuple(units), bias={"k": -1}),))
        return Program(circuit, ("x",), input_map, (output,), steps * (loops + 1) - 1, BITS)


def polynomial(coefficients: Sequence[Number], loops: int) -> Program:
    """sum_j coefficients[j] x^j for x in [0, 1], in ceil(log2 degree) steps: x^(2j) = x^j x^j, x^(2j+1) = x^j x^(j+1).

    Raises:
        ValueError: the degree is below 2.
    """
    degree = len(coefficients) - 1
    if degree < 2:
        raise ValueError(f"coefficients: {len(coefficients)} numbers; expected at least 3, for a square")
    exactly = [Fraction(c) for c in coefficients]
    powers = [f"x{j}" for j in range(1, degree + 1)]
    step = {"x1": Quadratic(linear={"x1": 1})}
    step |= {f"x{j}": times(f"x{j // 2}", f"x{(j + 1) // 2}") for j in range(2, degree + 1)}
    start: dict[str, Form] = {**{name: {} for name in powers}, "x1": {"x": 1}}
    output = form((exactly[0], ONE), *zip(exactly[1:], powers, strict=True))
    return Iteration(start, step).program(output, (degree - 1).bit_length(), loops)


def reciprocal(steps: int, loops: int) -> Program:
    """1 / x for x in [1/2, 1], by Newton's method from r = 1: the residual e = 1 - x r is squared in each step.

    r <- r (2 - x r) = r (1 + e) and e <- e^2. The register r holds half of r.
    """
    half = times("r", "e")
    step = {"r": Quadratic(half.squares, {"r": 1}), "e": times("e", "e")}
    return Iteration({"r": {ONE: HALF}, "e": {ONE: 1, "x": -1}}, step).program({"r": 2}, steps, loops)


def _substitute(f: Form, values: Mapping[str, Form]) -> dict[str, Number]:
    return form(*((factor, {ONE: 1} if name == ONE else values[name]) for name, factor in f.items()))
