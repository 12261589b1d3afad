"""The steps of a program by the interpreter, and the refusal of programs that a machine cannot run."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from looped.theory.computer.assembler import Image
from looped.theory.computer.interpreter import interpret, interpret_image
from looped.theory.computer.machine import Machine


class Event(NamedTuple):
    """One instruction as the interpreter executes it."""

    at: int
    """The counter before it; the address of its first word, with one memory."""
    cell: int
    """The address that it may change."""
    before: int
    after: int
    counter: int
    """The counter after it."""

    @property
    def halts(self) -> bool:
        """Whether it changed nothing. It is then executed for ever."""
        return (self.at, self.before) == (self.counter, self.after)


def follow(image: Image, instructions: int) -> list[Event]:
    """The steps of the interpreter until the program halts (an instruction changes nothing), or so many instructions.

    Raises:
        ValueError: a number leaves the word size, or, with one memory, an address leaves the memory.
    """
    steps = interpret(image.memory, image.code) if image.code else interpret_image(image.memory)
    cells, counter, events, bound = image.memory, 0, [], image.bound
    while len(events) < instructions:
        at = counter
        for address in () if image.code else cells[at : at + 2]:
            if not 0 <= address < len(cells):
                raise image.line(at).error(f"address {address}: expected 0 to {len(cells) - 1}")
        cell = image.code[at].b if image.code else cells[at + 1]
        before = cells[cell]
        counter, cells = next(steps)
        after = cells[cell]
        if abs(after) > bound:
            found = f"{image.name(cell)} becomes {after}"
            raise image.line(at).error(f"{found}; expected at most {bound:,} in size, the word size")
        if not image.code and not 0 <= counter <= len(cells) - 3:
            ends = f"target {counter}: expected 0 to {len(cells) - 3}"
            raise image.line(at).error(f"{ends}; the program runs off its end")
        events.append(Event(at, cell, before, after, counter))
        if (counter, after) == (at, before):
            break
    return events


def expected_states(image: Image, machine: Machine, events: Sequence[Event]) -> Iterator[tuple[np.ndarray, int]]:
    """Memory and counter after every loop; a loop that only fetches changes neither."""
    memory = np.zeros(machine.size, dtype=np.int64)
    memory[: len(image.memory)] = image.memory
    counter = 0
    for event in events:
        for _ in range(machine.loops - 1):
            yield memory.copy(), counter
        memory[event.cell], counter = event.after, event.counter
        yield memory.copy(), counter
