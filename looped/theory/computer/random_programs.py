"""Random programs for the machines, with their states by the interpreter."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from looped.theory.computer.interpreter import Step, interpret, interpret_image
from looped.theory.computer.machine import Instruction, Machine


class Batch(NamedTuple):
    """Programs of one machine, with the states that they should have."""

    inputs: Int64[np.ndarray, "programs size inputs"]
    memory: Int64[np.ndarray, "instructions programs size"]
    """After every instruction."""
    counter: Int64[np.ndarray, "instructions programs"]
    drawn: int
    """Programs that were drawn; those with a number beyond the word size were left out."""

    def part(self, first: int, count: int) -> "Batch":
        """So many of the programs, from `first` on."""
        some = slice(first, first + count)
        return Batch(self.inputs[some], self.memory[:, some], self.counter[:, some], self.drawn)


def random_programs(
    machine: Machine, programs: int, instructions: int, *, seed: int = 0, bound: int | None = None
) -> Batch:
    """Programs with random addresses, targets, operations, and data from -20 to 19.

    With one memory, every cell is random: an address, with probability 1/2, or a number from -20 to 19. The last
    instruction of a program apart from its data is a jump, as a program must not run off its end.

    Args:
        bound: the largest size of a number in a cell; None is the word size.
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[np.ndarray, list[list[int]], list[int]]] = []
    drawn = 0
    while len(found) < programs:
        drawn += 1
        inputs, steps = _draw(machine, rng)
        memory, counter = [], []
        for at, cells in itertools.islice(steps, instructions):
            if max(map(abs, (at, *cells))) > (bound or machine.bound):
                break
            memory.append(cells.copy())
            counter.append(at)
        else:
            found.append((inputs, memory, counter))
    inputs, memory, counter = (np.array(part) for part in zip(*found, strict=True))
    return Batch(inputs, memory.swapaxes(0, 1), counter.T, drawn)


def _draw(machine: Machine, rng: np.random.Generator) -> tuple[np.ndarray, Iterator[Step]]:
    n = machine.size
    data = rng.integers(-20, 20, n)
    if not machine.operations:
        image = np.where(rng.random(n) < 0.5, rng.integers(0, n, n), data).tolist()
        return machine.inputs(image), interpret_image(image)
    kinds, fields = rng.integers(0, len(machine.operations), n), rng.integers(0, n, (n, 3))
    code = [Instruction(machine.operations[k], *map(int, f)) for k, f in zip(kinds, fields, strict=True)]
    a, _, target = fields[-1].tolist()
    code[-1] = Instruction("sub", a, a, target)
    return machine.inputs(data.tolist(), code), interpret(data.tolist(), code)
