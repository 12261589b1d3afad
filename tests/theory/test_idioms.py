"""Every idiom, on every small whole number."""

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from looped.theory import idioms
from looped.theory.circuit import ONE, Circuit, Form, Layer, Program, Unit, exact, form

B = 6
VALUES = range(-B, B + 1)


def after(units: list[Unit], inputs: dict[str, Fraction | int], bias: Form | None = None) -> dict[str, Fraction]:
    """The registers after one application of the units, in exact arithmetic; r starts at 0."""
    names = tuple(dict.fromkeys([*inputs, "r"]))
    circuit = Circuit(names, (Layer(tuple(units), bias=bias or {}),))
    program = Program(
        circuit, tuple(inputs), {n: {n: 1} for n in inputs}, tuple({n: 1} for n in names), 1, bits=8
    )  # fmt: skip
    return dict(zip(names, program.run(exact(list(inputs.values()))[None, None])[0, 0], strict=True))


def pairs() -> Iterator[tuple[int, int]]:
    return itertools.product(VALUES, VALUES)


def test_clear_and_add():
    for x in VALUES:
        assert after(idioms.clear("x", signed=True), {"x": x})["x"] == 0
        assert after(idioms.clear("x"), {"x": x})["x"] == min(x, 0)
        assert after(idioms.add({"x": 1}, {"r": 2}, signed=True), {"x": x})["r"] == 2 * x
        assert after(idioms.add({"x": 1}, {"r": 1}), {"x": x})["r"] == max(x, 0)


def test_merged():
    """Two conditional sums that share the second half of their condition need three units instead of four."""
    above = [*idioms.if_at_least({"e": 1}, {"x": 1}, B, {"r": 1}), *idioms.if_at_least({"e": 1}, {"y": 1}, B, {"r": 2})]
    units = idioms.merged(above)
    assert (len(above), len(units)) == (4, 3)
    for (e, x), y in itertools.product(pairs(), (-3, 0, 2)):
        wanted = (x + 2 * y) * (e >= 0)
        assert after(units, {"e": e, "x": x, "y": y})["r"] == after(above, {"e": e, "x": x, "y": y})["r"] == wanted


@pytest.mark.parametrize("b", [0, 1])
def test_conditions_with_a_boolean(b):
    gate = idioms.off_unless({"b": 1}, 4 * B * (B + 2))
    for e, x in pairs():
        given = {"e": e, "x": x, "b": b}
        read, written = {"x": 1}, {"r": 3}
        assert after(idioms.if_at_least({"e": 1}, read, B, written, gate=gate), given)["r"] == 3 * x * b * (e >= 0)
        assert after(idioms.if_zero({"e": 1}, read, B, written, gate=gate), given)["r"] == 3 * x * b * (e == 0)
        if x >= 0:
            units = idioms.if_at_least({"e": 1}, read, B, written, signed=False, gate=gate)
            assert after(units, given)["r"] == 3 * x * b * (e >= 0)
            units = idioms.if_zero({"e": 1}, read, B, written, signed=False, gate=gate)
            assert after(units, given)["r"] == 3 * x * b * (e == 0)
    for e in VALUES:
        given = {"e": e, "b": b}
        assert after(idioms.at_least({"e": 1}, {"r": 1}, gate=gate), given)["r"] == b * (e >= 0)
        assert after(idioms.is_zero({"e": 1}, {"r": 1}, gate=gate), given)["r"] == b * (e == 0)


@pytest.mark.parametrize("plateau", [False, True])
def test_table_of_two_bounded_integers(plateau):
    def function(a: int, b: int) -> int:
        return a * b - 3 * max(a, b)

    values = [function(s % 4, s // 4) for s in range(12)]
    units, bias = idioms.table(form((1, "a"), (4, "b")), values, {"r": 2}, plateau=plateau)
    for a, b in itertools.product(range(4), range(3)):
        assert after(units, {"a": a, "b": b}, bias)["r"] == 2 * function(a, b)
        if plateau and 0 < a < 3:
            for error in (Fraction(-3, 8), Fraction(3, 8)):
                assert after(units, {"a": a + error, "b": b}, bias)["r"] == 2 * function(a, b)
    assert len(units) == len([u for u in units if any(u.writes.values())]) <= (22 if plateau else 11)


def test_pointer_reads_one_token_and_the_end_beyond_it():
    registers = ("p", "pp", "one", "t", "x", "r")
    circuit = Circuit(registers, (Layer(heads=(idioms.pointer({"t": 1, "one": 1}, {"x": "r"}),)),))
    for n, target in itertools.product((1, 2, 5), VALUES):
        state = np.array([[(p, p * p, 1, target - 1, 10 + p, 0) for p in range(n)]])
        for dtype in (np.int64, object, np.float32):
            (result,) = circuit.states(state.astype(dtype), 1)
            assert (result[0, :, 5] == 10 + min(max(target, 0), n - 1)).all()


def test_whole_numbers_are_refused_before_they_are_wrong():
    doubling = Circuit(
        ("x",),
        (
            Layer(
                tuple(idioms.add({"x": 1}, {"x": 1})),
            ),
        ),
    )
    for dtype, bits in ((np.float32, 24), (np.float64, 53), (np.int64, 63)):
        with pytest.raises(ValueError, match=f"expected below .* {np.dtype(dtype).name} does not hold"):
            list(doubling.states(np.ones((1, 1, 1), dtype), 70))
        *_, state = doubling.states(np.ones((1, 1, 1), dtype), bits - 2)
        assert int(state[0, 0, 0]) == 2 ** (bits - 2)
    *_, last = doubling.states(np.ones((1, 1, 1), object), 200)
    assert last[0, 0, 0] == 2**200


def test_forms_and_heads_are_checked():
    with pytest.raises(ValueError, match="register 'y': expected one of x"):
        list(Circuit(("x",), (Layer((Unit({"y": 1}, {"x": 1}),)),)).states(np.ones((1, 1, 1)), 1))
    head = idioms.pointer({ONE: 1}, {"x": "x"}, position="x", square="x", one="x")
    with pytest.raises(ValueError, match="attention has no bias"):
        list(Circuit(("x",), (Layer(heads=(head,)),)).states(np.ones((1, 1, 1)), 1))
