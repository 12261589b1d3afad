"""Squares, products, polynomials and reciprocals by a fixed block, and Lipschitz functions, against their bounds."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from looped.cli import main
from looped.theory import lipschitz, squaring
from looped.theory.arithmetic import Array, exact
from looped.theory.circuit import Program
from looped.theory.weights import write


def run(program: Program, x: Array) -> Array:
    return program.run(x.reshape(len(x), 1, -1))[:, 0, 0]


def model(program: Program, x: Array) -> Array:
    with torch.no_grad():
        return write(program, 1)(torch.from_numpy(x.reshape(len(x), 1, -1))).logits.numpy()[:, 0, 0]


@pytest.mark.parametrize("t", [1, 2, 6, 30])
def test_square_is_above_by_at_most_the_bound_which_is_attained(t: int):
    rng = np.random.default_rng(t)
    odd = [Fraction(2 * int(k) + 1, 2 ** (t + 1)) for k in rng.integers(0, 2**t, 10)]
    x = exact([*odd, 0, 1, *(Fraction(int(k), 2**50) for k in rng.integers(0, 2**50, 10))])
    errors = run(squaring.square(t), x) - x * x
    assert min(errors) == 0
    assert max(errors) == Fraction(1, 4 ** (t + 1)) == errors[0]
    assert (run(squaring.untied(t), x) == errors + x * x).all()


def test_floats_and_models():
    x = np.random.default_rng(0).random(500)
    for t, error in ((4, 4.0**-5), (26, 1e-15), (60, 1e-15)):
        assert np.abs(run(squaring.square(t), x) - x * x).max() <= error
        assert np.abs(model(squaring.square(t), x) - x * x).max() <= error
        assert np.abs(model(squaring.untied(t), x) - x * x).max() <= error
    assert 1e-8 < np.abs(run(squaring.square(26), x.astype(np.float32)) - x * x).max() < 1e-6


def test_products():
    pairs = np.random.default_rng(0).integers(0, 2**20 + 1, (20, 2))
    pairs[:4] = [(0, 0), (2**20, 2**20), (0, 2**20), (1, 2**20)]
    for t in (1, 4, 7):
        x = exact(pairs) * Fraction(1, 2**20)
        errors = run(squaring.product(t), x) - x[:, 0] * x[:, 1]
        assert min(errors) >= -Fraction(1, 4 ** (t + 1))
        assert max(errors) <= Fraction(2, 4 ** (t + 1))
        assert (
            np.abs(model(squaring.product(t), x.astype(float)) - run(squaring.product(t), x).astype(float)).max()
            < 1e-15
        )


def test_polynomials_and_reciprocals():
    x = np.random.default_rng(0).random(300)
    rng = np.random.default_rng(1)
    for degree in (2, 3, 5, 8):
        coefficients = rng.normal(size=degree + 1).tolist()
        program = squaring.polynomial(coefficients, 25)
        assert program.loops == 26 * (degree - 1).bit_length() - 1
        wanted = np.polynomial.Polynomial(coefficients)(x)
        assert np.abs(run(program, x) - wanted).max() < 1e-13
        assert np.abs(model(program, x) - wanted).max() < 1e-13
    upper = 0.5 + x / 2
    for steps in (1, 2, 3, 4):  # without errors of squares, Newton's method is wrong by (1 - x)^(2^steps) / x
        error = 1 / upper - run(squaring.reciprocal(steps, 25), upper)
        assert np.abs(error - (1 - upper) ** 2**steps / upper).max() < 1e-13
    assert np.abs(model(squaring.reciprocal(6, 25), upper) - 1 / upper).max() < 1e-13
    errors = [np.abs(run(squaring.reciprocal(6, t), upper) - 1 / upper).max() for t in (4, 8, 12)]
    assert errors[0] > 100 * errors[1] > 100 * 100 * errors[2]  # each loop divides the error by about 4
    with pytest.raises(ValueError, match="2 numbers; expected at least 3"):
        squaring.polynomial([1, 2], 3)


def test_sizes_do_not_depend_on_the_loops():
    for t in (3, 30):
        assert squaring.square(t).circuit.cost()[:2] == (3, 1)
        assert [p.circuit.cost().units for p in (squaring.square(t), squaring.product(t))] == [3, 7]
        assert squaring.untied(t).circuit.cost().units == 2 * t
    cost = squaring.reciprocal(4, 9).circuit.cost()
    assert (cost.registers, cost.units) == (8, 15)


@pytest.mark.parametrize(("dim", "cells"), [(1, 2), (1, 7), (1, 16), (2, 2), (2, 5), (3, 3)])
def test_lipschitz_functions(dim: int, cells: int):
    f = lipschitz.hills(dim, seed=cells)
    built = lipschitz.approximate(f, dim, cells)
    x = np.random.default_rng(0).integers(0, 2**15 + 1, (30, dim)) / 2**15
    assert (run(built.program, exact(x)).astype(float) == built(x)).all()
    assert np.abs(built(x) - f(x)).max() <= (1 + dim**0.5) / (2 * cells)
    cost = built.program.circuit.cost()
    assert (cost.registers, cost.units, cost.heads) == (2 * dim + 4, 2 * dim + 9, 0)
    assert built.program.loops == cells - 2 + (cells if dim == 1 else 2 * cells**dim - cells)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["theory", "square", "--loops", "3", "1", "--out", str(tmp_path / "s")]) == 0
    assert "4^-(loops+1)" in capsys.readouterr().out
    stored = json.loads((tmp_path / "s/square.json").read_text())
    assert [(row["loops"], row["exact"], row["untied"]) for row in stored["rows"]] == [(1, 4**-2, 7), (3, 4**-4, 21)]
    assert all(row["error"] < 1e-13 for row in stored["functions"] if row["function"] in ("x y", "x^8"))
    words = ["--n", "4", "8", "--samples", "500", "--out", str(tmp_path / "l")]
    assert main(["theory", "lipschitz", *words]) == 0
    rows = json.loads((tmp_path / "l/lipschitz.json").read_text())["rows"]
    assert all(row["error"] <= row["bound"] and row["difference"] == 0 for row in rows)
    for figure in ("s/square.svg", "l/lipschitz.svg"):
        assert "mathdefault" not in (tmp_path / figure).read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("square --loops", "loops=(): expected numbers from 1 to 60"),
        ("square --loops 99", "loops=(99,)"),
        ("square --loops 2 2", "--loops: 2 is given twice"),
        ("lipschitz --n 4", "n=(4,): expected two or more numbers from 2 to 512"),
        ("lipschitz --samples 0", "samples=0"),
    ],
)
def test_mistakes_in_these_commands(words: str, message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["theory", *words.split()]) == 2
    assert message in capsys.readouterr().err
