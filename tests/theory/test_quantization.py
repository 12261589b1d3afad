"""Quantisation: right outside the ramps, and the ramps are as wide as said."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from looped.theory.arithmetic import exact
from looped.theory.quantization import cell_of, quantizer, trifling, trifling_measure


@pytest.mark.parametrize(
    ("d", "n", "slope"),
    [(1, 4, 2**6), (1, 16, 2**10), (2, 8, 2**10), (3, 5, 2**8), (2, 50, 2**20), (1, 1000, 2**40)],
)
def test_wrong_only_on_the_trifling_set(d, n, slope):
    x = np.random.default_rng(0).random((20_000, 1, d))
    program = quantizer(d, n, slope)
    assert (len(program.circuit.registers), program.circuit.cost().units, program.loops) == (2 * d, 2 * d, n - 1)
    off = trifling(x, n, slope)
    got, cells = program.run(x), cell_of(x, n)
    assert len(np.unique(cells)) == n
    assert (got == cells)[~off].all()
    share = trifling_measure(n, slope)
    assert abs(off.mean() - share) < 5 * (share / off.size) ** 0.5 + 1e-12
    if share > 1e-3:
        assert (got != cells)[off].mean() > 0.9


@pytest.mark.parametrize("n", [2, 3, 7])
def test_corners_and_borders_are_exact(n):
    borders = [Fraction(b, n) for b in range(n + 1)]
    expected = [0, *range(n)]
    x = exact(borders).reshape(-1, 1, 1)
    assert quantizer(1, n, 64).run(x).ravel().tolist() == expected
    assert cell_of(x, n).ravel().tolist() == expected
    assert cell_of(np.array([float(b) for b in borders]), n).tolist() == expected


@given(n=st.integers(2, 50), x=st.fractions(0, 1, max_denominator=1000))
def test_cells_by_counting_borders(n, x):
    assert cell_of(exact([x]), n)[0] == sum(x > Fraction(b, n) for b in range(1, n))


def test_bad_sizes():
    with pytest.raises(ValueError, match="n=1"):
        quantizer(1, 1, 64)
    with pytest.raises(ValueError, match="slope"):
        quantizer(1, 1000, 2**44)
