"""The machines equal a plain interpreter after every loop, in whole numbers and as models, at their stated sizes."""

import math
import re

import numpy as np
import pytest
import torch

from looped.theory.circuit import Cost
from looped.theory.computer.checks import Wrong, in_model, in_whole_numbers
from looped.theory.computer.machine import MACHINES, WORD, Instruction, four, separate
from looped.theory.computer.random_programs import random_programs
from looped.theory.pointers import largest_right, measure


@pytest.mark.parametrize(
    ("kind", "cost"), {
        "subleq": Cost(19, 1, 4, 0, 3, 28, 128),
        "four": Cost(35, 1, 4, 0, 7, 110, 631),
        "self-modifying": Cost(14, 1, 5, 0, 2, 31, 141),
    }.items(),
)  # fmt: skip
def test_sizes(kind: str, cost: Cost):
    assert MACHINES[kind](5).program.circuit.cost() == MACHINES[kind](60).program.circuit.cost() == cost
    assert MACHINES[kind](5).loops == (2 if kind == "self-modifying" else 1)


@pytest.mark.parametrize("kind", MACHINES)
def test_random_programs(kind: str):
    """200 programs and more on each machine, compared after every loop."""
    for size, programs in ((1, 5), (2, 15), (8, 150), (24, 30)):
        machine = MACHINES[kind](size)
        batch = random_programs(machine, programs, 20, seed=size)
        assert in_whole_numbers(machine, batch) == Wrong(0, 0.0)
        assert in_model(machine, batch.part(0, 10)) == Wrong(0, 0.0)
        batch.memory[-1, 0, 0] += 1
        assert in_whole_numbers(machine, batch) == Wrong(1, 1.0)
        batch.counter[-1, 1] += 1
        assert in_whole_numbers(machine, batch).programs == 2


def test_softmax():
    """With all scores 12 times as large, softmax suffices; the size of the memory does not matter."""
    for size in (6, 20):
        machine = separate(size)
        batch = random_programs(machine, 10, 20, bound=2**20)
        assert in_model(machine, batch, inverse_temperature=4.0).programs > 5
        assert in_model(machine, batch, inverse_temperature=12.0).programs == 0
        error = in_model(machine, batch, inverse_temperature=16.0).error
        assert 0 < error < 0.01
    machine = four(6, bound=2**16)
    batch = random_programs(machine, 10, 20)
    assert in_model(machine, batch, inverse_temperature=math.log(8 * 2**16) - 3).programs > 0
    assert in_model(machine, batch, inverse_temperature=math.log(8 * 2**16) + 3).programs == 0


def test_pointers():
    for n in (4, 16):
        for name, (size, gap, temperature) in {
            "quadratic": (2, 1, math.log(2e6)),
            "centred": (2, 1, math.log(2e6)),
            "angles": (2, 1 - math.cos(2 * math.pi / n), None),
            "bits": (int(math.log2(n)), 2, math.log(math.log2(n) * 1e6) / 2),
        }.items():
            found = measure(name, n)
            assert found[:3] == (name, n, size)
            assert found.gap == pytest.approx(gap)
            assert temperature is None or found.inverse_temperature == pytest.approx(temperature, rel=1e-3)
    assert largest_right("quadratic", torch.bfloat16, most=64) == 16
    assert largest_right("centred", torch.bfloat16, most=64) == 32
    assert largest_right("bits", torch.bfloat16, most=64) == 64
    assert largest_right("quadratic", torch.float32, most=64) == 64


def test_numbers_out_of_range():
    machine = separate(3)
    halt = Instruction("sub", 0, 0, 0)
    with pytest.raises(ValueError, match=r"cell value -4294967297: expected at most 4,294,967,296 in size"):
        machine.inputs([0, -WORD - 1], [halt])
    with pytest.raises(ValueError, match=r"4 cells, 1 instructions: expected at most 3"):
        machine.inputs([0] * 4, [halt])
    for build in MACHINES.values():
        with pytest.raises(ValueError, match=r"machine of 1,000,000,000 tokens .* expected below 9.01e\+15"):
            build(10**9)
    large = separate(3, bound=2**47)
    doubling = [Instruction("sub", 0, 1, 1), Instruction("sub", 1, 0, 0), halt]
    with pytest.raises(ValueError, match=re.escape("does not hold every whole number")):
        list(large.program.states(large.inputs([2**47, 0, 0], doubling)[None], loops=40, dtype=np.float64))
