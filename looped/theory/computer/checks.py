"""Random programs on the machines, in whole numbers, as models and with softmax, against the interpreter."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from looped.theory.computer.machine import Machine
from looped.theory.computer.random_programs import Batch
from looped.theory.weights import write

AT_ONCE = 100
"""Programs in one batch of a model."""


class Wrong(NamedTuple):
    """The result of comparing memory, and the counter in every token, after every instruction."""

    programs: int
    """With a wrong whole number anywhere."""
    error: float
    """The largest distance of a cell from its number, after any instruction; infinite if not finite."""


def in_whole_numbers(machine: Machine, batch: Batch) -> Wrong:
    """Run the circuit in int64."""
    loops = len(batch.memory) * machine.loops
    return _compare(machine, batch, machine.program.states(batch.inputs, loops=loops))


@torch.no_grad()
def in_model(machine: Machine, batch: Batch, *, inverse_temperature: float | None = None) -> Wrong:
    """Run the `LoopedTransformer` in float64; with an inverse temperature, attention is softmax."""
    model = write(machine.program, machine.size, inverse_temperature=inverse_temperature)
    loops = len(batch.memory) * machine.loops
    total = Wrong(0, 0.0)
    for first in range(0, len(batch.inputs), AT_ONCE):
        part = batch.part(first, AT_ONCE)
        output = model(torch.from_numpy(part.inputs).double(), num_loops=loops, loop_states=True)
        assert output.loop_states is not None
        found = _compare(machine, part, (state.numpy() for state in output.loop_states))
        total = Wrong(total.programs + found.programs, max(total.error, found.error))
    return total


def _compare(machine: Machine, batch: Batch, states: Iterable[np.ndarray]) -> Wrong:
    names = machine.program.circuit.registers
    cell, counter = names.index("m"), names.index("pc")
    wrong, error = np.zeros(len(batch.inputs), dtype=bool), 0.0
    for loop, state in enumerate(states, 1):
        if loop % machine.loops:
            continue
        memory, at = batch.memory[loop // machine.loops - 1], batch.counter[loop // machine.loops - 1]
        state = state.astype(np.float64)
        distance = np.nan_to_num(np.abs(state[..., cell] - memory), nan=np.inf)
        off = np.nan_to_num(np.abs(state[..., counter] - at[:, None]), nan=np.inf)
        wrong |= (distance >= 0.5).any(1) | (off >= 0.5).any(1)
        error = max(error, float(distance.max()))
    return Wrong(int(wrong.sum()), error)
