"""A program in the library's own model: the loop runs until the program halts, a fixed point of the looped layer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from looped.models.exit_rules import ExitRule, Observation
from looped.theory.computer.machine import Machine
from looped.theory.weights import write

CHUNK = 500
"""Loops in one call; even, because an instruction may take two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Halted(ExitRule):
    """Done when the state is that of `loops` loops ago. The same then happens for ever."""

    loops: int = 1

    def __call__(self, observation: Observation) -> tuple[Tensor, tuple[Tensor, ...]]:
        states = (*(observation.carry or ()), observation.before)[-self.loops :]
        same = (observation.after == states[0]).all(-1)
        return same & (len(states) == self.loops), states


def execute(
    machine: Machine, inputs: Int64[np.ndarray, "size inputs"], loops: int, *, chunk: int = CHUNK
) -> Iterator[Float64[np.ndarray, "chunk size registers"]]:
    """The states after each loop of the model, an even number in each chunk, until the program halts or `loops`."""
    model = write(machine.program, machine.size)
    rows, state = torch.from_numpy(inputs)[None].double(), None
    for first in range(0, loops, chunk):
        asked = min(chunk, loops - first)
        rule = Halted(loops=machine.loops)
        with torch.no_grad():
            output = model(rows, num_loops=asked, initial_state=state, exit_rule=rule, loop_states=True)
        assert output.loop_states is not None
        state, states = output.state, output.loop_states[:, 0].numpy()
        yield states
        before = states[-1 - machine.loops] if len(states) > machine.loops else None
        if len(states) < asked or (before is not None and np.array_equal(states[-1], before)):
            return
