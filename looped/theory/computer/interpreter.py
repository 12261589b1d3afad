"""The same computers in plain Python, to which the looped layers are compared. It shares no code with them."""

from collections.abc import Iterator, Sequence

Step = tuple[int, list[int]]
"""The counter and the memory after an instruction."""


def interpret(memory: Sequence[int], code: Sequence[tuple[str, int, int, int]]) -> Iterator[Step]:
    """The steps of a program apart from its data, without end. The memory is one list, which changes."""
    cells, counter = list(memory), 0
    while True:
        operation, a, b, target = code[counter]
        x, y = cells[a], cells[b]
        result = {"sub": y - x, "add": y + x, "move": x, "compare": y - x}[operation]
        if operation != "compare":
            cells[b] = result
        counter = target if result <= 0 else counter + 1
        yield counter, cells


def interpret_image(memory: Sequence[int]) -> Iterator[Step]:
    """The steps of SUBLEQ in one memory, without end. Addresses outside read the nearest cell and write nothing."""
    cells, counter = list(memory), 0

    def read(address: int) -> int:
        return cells[min(max(address, 0), len(cells) - 1)]

    while True:
        a, b, target = read(counter), read(counter + 1), read(counter + 2)
        result = read(b) - read(a)
        if 0 <= b < len(cells):
            cells[b] = result
        counter = target if result <= 0 else counter + 3
        yield counter, cells
