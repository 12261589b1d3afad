"""The machines equal a plain interpreter after every loop, in whole numbers and as models, at their stated sizes."""

import re

import numpy as np
import pytest
import torch

from looped.theory.circuit import Cost
from looped.theory.machine import FOUR, WORD, Instruction, Machine, self_modifying, separate
from looped.theory.random_programs import Batch, random_programs
from looped.theory.weights import write

BUILD = {"subleq": separate, "four": lambda size: separate(size, FOUR), "self-modifying": self_modifying}


@pytest.mark.parametrize(
    ("kind", "cost"), {
        "subleq": Cost(19, 1, 4, 0, 3, 28, 128),
        "four": Cost(35, 1, 4, 0, 7, 110, 631),
        "self-modifying": Cost(14, 1, 5, 0, 2, 31, 141),
    }.items(),
)  # fmt: skip
def test_sizes(kind: str, cost: Cost):
    assert BUILD[kind](5).program.circuit.cost() == BUILD[kind](60).program.circuit.cost() == cost
    assert BUILD[kind](5).loops == (2 if kind == "self-modifying" else 1)


def wrong(machine: Machine, batch: Batch, states: np.ndarray) -> int:
    """Programs with a wrong cell, or a wrong counter in any token, after any instruction; states by loop."""
    names = machine.program.circuit.registers
    after = states[machine.loops - 1 :: machine.loops]
    cells = (after[..., names.index("m")] != batch.memory).any((0, 2))
    return int((cells | (after[..., names.index("pc")] != batch.counter[..., None]).any((0, 2))).sum())


@pytest.mark.parametrize("kind", BUILD)
@torch.no_grad()
def test_random_programs(kind: str):
    for size, programs in ((1, 5), (2, 15), (8, 120), (24, 60)):
        machine = BUILD[kind](size)
        batch = random_programs(machine, programs, 30, seed=size)
        loops = 30 * machine.loops
        states = np.stack(list(machine.program.states(batch.inputs, loops=loops)))
        assert wrong(machine, batch, states) == 0
        states[-1, 0, 0, machine.program.circuit.registers.index("m")] += 1
        assert wrong(machine, batch, states) == 1
        few = Batch(batch.inputs[:20], batch.memory[:, :20], batch.counter[:, :20], 0)
        output = write(machine.program, size)(torch.from_numpy(few.inputs).double(), num_loops=loops, loop_states=True)
        assert output.loop_states is not None
        assert wrong(machine, few, output.loop_states.numpy()) == 0


def test_numbers_out_of_range():
    machine = separate(3)
    halt = Instruction("sub", 0, 0, 0)
    with pytest.raises(ValueError, match=r"cell value -4294967297: expected at most 4,294,967,296 in size"):
        machine.inputs([0, -WORD - 1], [halt])
    with pytest.raises(ValueError, match=r"4 cells, 1 instructions: expected at most 3"):
        machine.inputs([0] * 4, [halt])
    for build in BUILD.values():
        with pytest.raises(ValueError, match=r"machine of 1,000,000,000 tokens .* expected below 9.01e\+15"):
            build(10**9)
    large = separate(3, bound=2**47)
    doubling = [Instruction("sub", 0, 1, 1), Instruction("sub", 1, 0, 0), halt]
    with pytest.raises(ValueError, match=re.escape("does not hold every whole number")):
        list(large.program.states(large.inputs([2**47, 0, 0], doubling)[None], loops=40, dtype=np.float64))
