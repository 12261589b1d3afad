"""Five memories recall the labels exactly, at the sizes derived, and hold no fewer bits than the labels have."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theory_cases import all_cells, centres

from looped.theory.arithmetic import exact
from looped.theory.cells import Cells
from looped.theory.memories import KINDS, formula, measure, memory, stages
from looped.theory.weights import write

RANDOM = np.random.default_rng(0).integers(0, 16, (64, 2))
SMALL = np.random.default_rng(1).integers(0, 8, (24, 1))


@pytest.mark.parametrize(("kind", "groups"), [*((kind, 8) for kind in KINDS), ("grouped", 64)])
def test_sixty_four_labels_exactly_and_in_the_model(kind, groups):
    program = memory(kind, RANDOM, 4, groups=groups)
    k = np.arange(64).reshape(-1, 1, 1)
    assert (program.run(k, dtype=object)[:, 0] == RANDOM).all()
    if kind == "digits":
        with pytest.raises(ValueError, match="float64 does not hold every whole number"):
            program.run(k, dtype=float)
        with pytest.raises(ValueError, match="beyond the range of int64"):
            program.run(k)
    else:
        assert (program.run(k)[:, 0] == RANDOM).all()
        assert (program.run(k, dtype=float)[:, 0] == RANDOM).all()
        model = write(program, 1)
        assert len(model.core) == (63 if kind == "deep" else 1)
        assert len(model.prelude) == (2 if kind == "grouped" else 0)
        assert (model(torch.from_numpy(k).double()).logits[:, 0].numpy(force=True) == RANDOM).all()


def test_grouped_trades_numbers_for_loops():
    labels = np.random.default_rng(1).integers(0, 16, (256, 1))
    for groups in (1, 2, 32, 64, 256):
        size = measure("grouped", labels, 4, groups=groups)
        assert (size.numbers, size.loops, size.numbers * size.bits) == (groups, 1 + 1024 // groups, 1024)


@pytest.mark.parametrize("labels", [RANDOM, SMALL], ids=["64", "24"])
def test_sizes_are_the_formulas(labels):
    (count, d), bits = labels.shape, 4 if labels is RANDOM else 3
    choices = (1, 7, 8, 33) if labels is RANDOM else range(1, 25, 2)
    for kind, groups in [*((kind, 8) for kind in KINDS), *(("grouped", groups) for groups in choices)]:
        size = measure(kind, labels, bits, groups=groups)
        assert size == formula(kind, count, d, bits, groups=groups)
        assert size.numbers * size.bits >= count * d * bits  # else two sets of labels would have the same weights
        recalled = memory(kind, labels, bits, groups=groups).run(np.arange(count).reshape(-1, 1, 1), dtype=object)
        assert (recalled[:, 0] == labels).all()
    assert measure("digits", labels, bits) == measure("grouped", labels, bits, groups=1)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_any_labels(data):
    count, d, bits = data.draw(st.tuples(st.integers(2, 20), st.integers(1, 3), st.integers(1, 5)))
    labels = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=count * d, max_size=count * d)))
    labels = labels.reshape(count, d)
    groups = data.draw(st.integers(1, count))
    for kind in KINDS:
        program = memory(kind, labels, bits, groups=groups)
        assert (program.run(np.arange(count).reshape(-1, 1, 1), dtype=object)[:, 0] == labels).all()


@pytest.mark.parametrize("size", [(1, 2, 2), (2, 1, 2), (1, 1, 5)])
def test_behind_quantisation_and_contextual_mapping(size):
    """From real tokens to labels: the front end of Theorem 3.6 with every memory, exactly and in the model."""
    cells = Cells(*size, gap=False)
    d, seq, n = size
    labels = np.random.default_rng(0).integers(0, 4, (cells.count, d))
    beta = all_cells(d, seq, n)
    inside = np.random.default_rng(0).random((40, seq, d))
    for kind in KINDS:
        program = memory(kind, labels, 2, groups=3, front=stages(cells))
        assert (program.run(exact(centres(beta, n))) == labels[cells.contextual_id(beta)]).all()
        assert (program.run(exact(inside[:5])) == labels[cells.lookup(inside[:5])]).all()
        if kind != "digits":
            found = write(program, seq)(torch.from_numpy(inside)).logits.numpy(force=True)
            assert (found == labels[cells.lookup(inside)]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: memory("other", RANDOM, 4), "kind='other': expected one of wide, deep"),
        (lambda: memory("wide", RANDOM[:1], 4), "labels of shape"),
        (lambda: memory("wide", RANDOM, 3), r"whole numbers in 0 .. 2\^3 - 1"),
        (lambda: memory("wide", RANDOM - 1, 4), "labels: expected whole numbers"),
        (lambda: memory("grouped", RANDOM, 4, groups=65), "groups=65: expected 1 to the number of labels, 64"),
    ],
)
def test_bad_labels(call, message):
    with pytest.raises(ValueError, match=message):
        call()
