"""Every idiom, on every small whole number."""

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from looped.theory import idioms
from looped.theory.arithmetic import exact
from looped.theory.circuit import ONE, Circuit, Form, Head, Layer, Program, Unit, form

B = 6
VALUES = range(-B, B + 1)


def after(units: list[Unit], inputs: dict[str, Any], bias: Form | None = None) -> dict[str, np.ndarray]:
    """The registers after one application of the units to numbers or arrays, exactly; r starts at 0."""
    names = tuple(dict.fromkeys([*inputs, "r"]))
    circuit = Circuit(names, (Layer(tuple(units), bias=bias or {}),))
    program = Program(
        circuit, tuple(inputs), {n: {n: 1} for n in inputs}, tuple({n: 1} for n in names), 1, bits=8
    )  # fmt: skip
    columns = np.stack(np.broadcast_arrays(*inputs.values()), axis=-1).reshape(-1, 1, len(inputs))
    return dict(zip(names, program.run(exact(columns))[:, 0].T, strict=True))


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
    e, x, y = np.array(list(itertools.product(VALUES, VALUES, (-3, 0, 2)))).T
    given, wanted = {"e": e, "x": x, "y": y}, (x + 2 * y) * (e >= 0)
    assert (after(units, given)["r"] == wanted).all()
    assert (after(above, given)["r"] == wanted).all()


@pytest.mark.parametrize("b", [0, 1])
def test_conditions_with_a_boolean(b):
    gate = idioms.off_unless({"b": 1}, 4 * B * (B + 2))
    e, x = np.array(list(itertools.product(VALUES, VALUES))).T
    given, at, read, writes = {"e": e, "x": x, "b": b}, {"e": 1}, {"x": 1}, {"r": 3}
    assert (after(idioms.if_at_least(at, read, B, writes, gate=gate), given)["r"] == 3 * x * b * (e >= 0)).all()
    assert (after(idioms.if_zero(at, read, B, writes, gate=gate), given)["r"] == 3 * x * b * (e == 0)).all()
    assert (after(idioms.at_least(at, {"r": 1}, gate=gate), given)["r"] == b * (e >= 0)).all()
    assert (after(idioms.is_zero(at, {"r": 1}, gate=gate), given)["r"] == b * (e == 0)).all()
    e, x = e[x >= 0], x[x >= 0]
    given = {"e": e, "x": x, "b": b}
    units = idioms.if_at_least(at, read, B, writes, signed=False, gate=gate)
    assert (after(units, given)["r"] == 3 * x * b * (e >= 0)).all()
    units = idioms.if_zero(at, read, B, writes, signed=False, gate=gate)
    assert (after(units, given)["r"] == 3 * x * b * (e == 0)).all()


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


def test_no_sum_leaves_the_exact_range_unseen():
    """Also not sums of registers that no unit reads, of biases, of many tokens, and of the input and output maps."""
    unread = (Layer((Unit({"a": 1}, {"b": 1}),)),)
    programs = {
        "state": (unread, {"a": 1}, {"b": 1}),
        "bias": ((Layer(bias={"b": 1}),), {"b": 1}, {"b": 1}),
        "mean": ((Layer(heads=(Head(({"a": 1},), ("b",)),)),), {"a": 1}, {"b": 1}),
        "ties": ((Layer(heads=(Head(({"a": 1},), ("b",), ({"a": 0},), ({"a": 1},)),)),), {"a": 1}, {"b": 1}),
        "heads": ((Layer(heads=(Head(({"a": 1}, {"a": 1}), ("b", "b"), graph="g"),)),), {"a": 1}, {"b": 1}),
        "input": (unread, {"a": 4}, {"b": 1}),
        "output": (unread, {"a": 1}, {"b": 4}),
    }
    graph = np.eye(3)[None]
    for name, (layers, given, answer) in programs.items():
        program = Program(Circuit(("a", "b"), layers), ("x",), {k: {"x": v} for k, v in given.items()}, (answer,), 3, 0)
        for dtype, bits in ((np.float32, 24), (np.float64, 53), (np.int64, 63)):
            inputs = np.full((1, 3, 1), 2**bits - 2 if name == "bias" else 2 ** (bits - 1) - 1, dtype=object)
            with pytest.raises(ValueError, match="does not hold every whole number"):
                program.run(inputs, dtype=dtype, loops=3, graphs={"g": graph})
            small = program.run(inputs // 8, dtype=dtype, graphs={"g": graph}, loops=1)
            assert (small == program.run(inputs // 8, dtype=object, graphs={"g": graph.astype(int)}, loops=1)).all(), (
                name
            )


def test_whole_programs_refuse_fractions_in_floats():
    layer = Layer(tuple(idioms.at_least({"x": 1}, {"y": 1})))
    program = Program(Circuit(("x", "y"), (layer,)), ("x",), {"x": {"x": 1}}, ({"y": 1},), 1, bits=0)
    assert program.run(np.array([[[-1.0], [0.0]]])).ravel().tolist() == [0, 1]
    with pytest.raises(ValueError, match="expected whole ones"):
        program.run(np.array([[[-0.5], [0.0]]]))


def test_whole_arithmetic_refuses_fractions():
    circuit = Circuit(("x", "y"), (Layer(heads=(Head(({"x": 1},), ("y",), graph="g"),)),))
    program = Program(circuit, ("x",), {"x": {"x": 1}}, ({"y": 1},), 1, bits=0)
    inputs, graph = np.array([[[1], [2]]]), np.array([[[0, 1], [1, 0]]])
    assert program.run(inputs, graphs={"g": graph}).ravel().tolist() == [2, 1]
    assert program.run(inputs, loops=0, graphs={"g": graph}).ravel().tolist() == [0, 0]
    with pytest.raises(ValueError, match="expected whole ones"):
        program.run(inputs, graphs={"g": graph / 2})
    with pytest.raises(ValueError, match="expected whole ones"):
        program.run(inputs / 2, dtype=np.int64, graphs={"g": graph})
    with pytest.raises(ValueError, match="expected whole ones"):
        list(Circuit(("x",), (Layer(bias={"x": 0.5}),)).states(inputs, 1))


def test_forms_and_heads_are_checked():
    with pytest.raises(ValueError, match="name '1': expected another one"):
        list(Circuit((ONE,), (Layer(),)).states(np.ones((1, 1, 1)), 1))
    with pytest.raises(ValueError, match="register 'y': expected one of x"):
        list(Circuit(("x",), (Layer((Unit({"y": 1}, {"x": 1}),)),)).states(np.ones((1, 1, 1)), 1))
    head = idioms.pointer({ONE: 1}, {"x": "x"}, position="x", square="x", one="x")
    with pytest.raises(ValueError, match="attention has no bias"):
        list(Circuit(("x",), (Layer(heads=(head,)),)).states(np.ones((1, 1, 1)), 1))


def test_names_that_no_register_has_are_refused():
    head = Head(({"x": 1},), ("y",))
    for layer, where in ((Layer(heads=(head,)), "head"), (Layer(bias={"y": 1}), "bias")):
        with pytest.raises(ValueError, match=f"{where}: writes 'y'; expected one of x"):
            Circuit(("x",), (layer,))
    with pytest.raises(ValueError, match="registers: expected different names"):
        Circuit(("x", "x"), ())
    circuit = Circuit(("x",), (Layer(),))
    with pytest.raises(ValueError, match="input_map: writes 'y'"):
        Program(circuit, ("a",), {"y": {"a": 1}}, ({"x": 1},), 1)
    with pytest.raises(ValueError, match="positions: writes 'y'"):
        Program(circuit, ("a",), {}, ({"x": 1},), 1, positions={"y": lambda p: p})
    with pytest.raises(ValueError, match="bias: writes 'y'"):
        Program(circuit, ("a",), {}, ({"x": 1},), 1, prelude=(Layer(bias={"y": 1}),))
    program = Program(circuit, ("a",), {"x": {"a": 1}}, ({"x": 1},), 1, bits=0)
    with pytest.raises(ValueError, match=r"inputs: have shape \(2, 1\); expected \(batch, seq, 1\)"):
        program.run(np.ones((2, 1), int))
