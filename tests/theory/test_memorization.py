"""Memorisation: exact where it must be, as wrong as the derivation says where not, and predicted."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from looped.theory.memorization import (
    base_of,
    encode,
    lattice,
    modulated,
    plain,
    quantise_labels,
    radix,
    significant_bits,
    tuned,
)


def random_labels(count: int, d: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, d))


def jumps(labels: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(labels, axis=0)).max(axis=0)


LABELS = st.tuples(st.integers(2, 12), st.integers(1, 3)).flatmap(
    lambda shape: arrays(float, shape, elements=st.floats(-100, 100, width=32))
)


@pytest.mark.parametrize("count", [2, 16, 1000])
@pytest.mark.parametrize("d", [1, 3])
def test_selecting_is_exact_to_the_bit_in_floats(count, d):
    labels = random_labels(count, d) * 10.0 ** np.random.default_rng(1).integers(-3, 3, (count, 1))
    memory = modulated(labels, "selecting")
    circuit = memory.program.circuit
    assert (len(circuit.registers), circuit.cost().units, memory.program.loops) == (2 * d + 1, 4, count - 1)
    assert np.array_equal(memory.recall("float64"), labels)


def test_telescoping_rounds_in_floats_and_not_in_exact_arithmetic():
    labels = random_labels(100, 2)
    memory = modulated(labels, "telescoping")
    assert (len(memory.program.circuit.registers), memory.program.circuit.cost().units) == (3, 2)
    assert 0 < memory.error("float64") < 4e-12
    assert memory.error("exact") == 0


@settings(max_examples=30, deadline=None)
@given(labels=LABELS)
def test_plain_meets_any_labels_within_half_the_largest_jump(labels):
    memory = plain(labels)
    k, d = labels.shape
    circuit = memory.program.circuit
    assert (len(circuit.registers), circuit.cost().units, memory.program.loops) == (3 * d + 1, 8 * d + 1, k - 1)
    got = memory.recall()
    scale = 1e-12 * (1 + np.abs(labels).max())
    assert (np.abs(got - memory.ideal) <= scale).all()
    assert (np.abs(got - labels).max(axis=0) <= jumps(labels) / 2 + scale).all()


@pytest.mark.parametrize(("count", "d", "ids"), [(26, 1, None), (200, 1, None), (300, 2, None), (5000, 1, [0, 4999])])
def test_plain_reads_every_digit_right_however_long_the_code(count, d, ids):
    labels = random_labels(count, d)
    memory = plain(labels)
    got = memory.recall("exact", ids)
    path = [[math.floor(Fraction(v) / Fraction(e) + Fraction(1, 2)) for v in column] for column, e in
            zip((labels - labels[0]).T, jumps(labels), strict=True)]  # fmt: skip
    expected = labels[0] + jumps(labels) * np.array(path).T
    np.testing.assert_allclose(got, expected[ids] if ids else expected, atol=1e-10, rtol=0)
    if ids is None:
        assert 0.48 < (np.abs(got - labels) / jumps(labels)).max() <= 0.5 + 1e-9  # the bound is attained
    if count == 5000:
        assert memory.codes[0].bits == 9996


def test_gate_is_a_product():
    relu = lambda v: max(v, 0)  # noqa: E731
    for b in range(1, 9):
        for s in range(-5, 6):
            for c in range(-b, b + 1):
                assert relu(2 * b * s - b) - relu(2 * b * s - b - c) == c * (s >= 1)


@pytest.mark.parametrize("b", [1, 2, 4, 8])
def test_more_loops_or_more_width_beat_the_lemma(b):
    labels = random_labels(60)
    eps = jumps(labels)[0]
    finer, wider = plain(labels, interpolate=b), plain(labels, digit=b)
    assert finer.program.loops == b * 59
    assert finer.program.circuit.cost().units == 9
    assert wider.program.loops == 59
    assert wider.program.circuit.cost().units == 5 + 4 * b
    for memory in (finer, wider):
        np.testing.assert_allclose(memory.recall(), memory.ideal, atol=1e-12)
        assert 0.8 * eps / (2 * b) < memory.error() <= eps / (2 * b) * (1 + 1e-9)


@pytest.mark.parametrize("bits", [1, 5, 16])
def test_radix_does_not_care_about_jumps(bits):
    labels = random_labels(40, 2)
    memory = radix(labels, bits)
    circuit = memory.program.circuit
    assert (len(circuit.registers), circuit.cost().units, memory.program.loops) == (8, 15, 40 * bits + 1)
    got = memory.recall()
    np.testing.assert_allclose(got, memory.ideal, atol=1e-12)
    bound = np.ptp(labels, axis=0) * 2.0 ** -(bits + 1)
    assert (np.abs(got - labels).max(axis=0) <= bound * (1 + 1e-9)).all()


def test_tuning_never_makes_it_worse_and_helps_where_few_jumps_are_large():
    labels = np.sin(np.linspace(0, 6, 300))[:, None]
    labels[150:] += 1.0
    square = lambda path: ((path.values - labels) ** 2).mean()  # noqa: E731
    assert square(tuned(labels)) < 0.5 * square(lattice(labels))
    memory = plain(labels, tune=True)
    np.testing.assert_allclose(memory.recall("exact", [0, 149, 150, 299]), memory.ideal[[0, 149, 150, 299]], atol=1e-12)
    assert np.abs(np.diff(tuned(labels).path, axis=0)).max() == 1


@pytest.mark.parametrize(("dtype", "limit", "beyond"), [("float32", 14, 24), ("float64", 28, 45)])
def test_precision_limit_is_said_before_it_is_met(dtype, limit, beyond):
    wrong = False
    for seed in range(20):
        short, long = plain(random_labels(limit, seed=seed)), plain(random_labels(beyond, seed=seed))
        step = float(short.program.output_map[0]["a0"])
        assert short.predicted(dtype).startswith(f"{dtype}: right")
        assert np.abs(short.recall(dtype) - short.ideal).max() < 1e-3 * step
        wrong = np.abs(long.recall(dtype) - long.ideal).max() > 0.5 * float(long.program.output_map[0]["a0"])
        assert long.predicted(dtype).startswith(f"{dtype}: {'fails' if wrong else 'right'}")
    assert wrong


@given(st.lists(st.integers(-1, 1), min_size=1, max_size=200))
def test_a_code_is_its_digits(digits):
    code = encode(digits, base_of(1))
    assert code.value == sum(Fraction(digit, 4**j) for j, digit in enumerate(digits, start=1))
    assert abs(code.value) <= Fraction(1, 3)
    shifted = encode([0] * 50 + digits, 4)
    assert significant_bits(shifted) == significant_bits(code) <= 2 * len(digits)


def test_label_quantisation_covers_the_range():
    labels = np.array([[0.0], [1.0], [0.5], [0.25]])
    assert quantise_labels(labels, 2).path.ravel().tolist() == [0, 3, 2, 1]
    assert radix(np.ones((3, 1)), 2).recall().ravel().tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plain(np.zeros((1, 1))), "labels of shape"),
        (lambda: plain(np.zeros(3)), "labels of shape"),
        (lambda: plain(np.array([[0.0], [np.nan]])), "label 1 is not"),
        (lambda: plain(np.zeros((3, 1)), digit=0), "digit=0"),
        (lambda: radix(np.zeros((3, 1)), 0), "bits=0"),
        (lambda: modulated(np.zeros((3, 1)), "other"), "variant='other'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
