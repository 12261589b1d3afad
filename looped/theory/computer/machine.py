"""Computers as one looped layer: SUBLEQ, and a machine of four operations (after Giannou et al., ICML 2023).

An instruction changes cell b and continues at instruction c if the result is at most 0, else at the next instruction.
SUBLEQ ("subtract and branch if less than or equal to zero") has one operation, mem[b] -= mem[a], and can compute
everything. Every token holds one cell and, with a program apart from data, one instruction. Every token also holds a
copy of the current instruction and of its counter. A write is therefore a comparison of one's own position with the
address, and nothing has to be broadcast. Both possible next instructions are fetched before the branch is decided,
because one layer of units can test one integer condition only. These two rules make one layer enough.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from looped.theory.arithmetic import LIMITS
from looped.theory.bounds import largest_sum
from looped.theory.circuit import ONE, Circuit, Form, Head, Layer, Program, Unit, form
from looped.theory.idioms import add, clear, if_at_least, if_zero, merged, off_unless, pointer

WORD, SHORT_WORD = 2**32, 2**24
"""The largest size of a number in a cell, with the program apart from the data and in the same cells.

With one memory a jump target is itself such a number, so the largest sums are near SHORT_WORD^2 and not WORD * size.
"""


class Operation(NamedTuple):
    """Linear in the registers ma and mb, which hold mem[a] and mem[b]."""

    result: Form
    """Decides the branch: at most 0 continues at c."""
    change: Form
    """Is added to mem[b]; empty if the operation writes nothing."""


SUBTRACT = Operation({"mb": 1, "ma": -1}, {"ma": -1})
SUBLEQ = {"sub": SUBTRACT}
FOUR = {
    "sub": SUBTRACT,
    "add": Operation({"mb": 1, "ma": 1}, {"ma": 1}),
    "move": Operation({"ma": 1}, {"ma": 1, "mb": -1}),
    "compare": Operation({"mb": 1, "ma": -1}, {}),
}


class Instruction(NamedTuple):
    """`operation` on the cells a and b, then a jump to the instruction `target` if the result is at most 0."""

    operation: str
    a: int
    b: int
    target: int


class Machine(NamedTuple):
    """A computer with a fixed number of tokens."""

    program: Program
    size: int
    """Tokens: as many as the larger of cells and instructions."""
    bound: int
    """The largest size of a number in a cell."""
    operations: tuple[str, ...]
    """Empty if the instructions are in the cells themselves."""

    @property
    def loops(self) -> int:
        """Loops for one instruction."""
        return 1 if self.operations else 2

    def inputs(self, memory: Sequence[int], code: Sequence[Instruction] = ()) -> Int64[np.ndarray, "size inputs"]:
        """The model's input, (size, inputs): cells and instructions; with the first instruction in every token.

        Raises:
            ValueError: more cells or instructions than tokens, or a number beyond the word size.
        """
        if max(len(memory), len(code)) > self.size:
            raise ValueError(f"{len(memory)} cells, {len(code)} instructions: expected at most {self.size} of each")
        if beyond := [value for value in memory if abs(value) > self.bound]:
            raise ValueError(f"cell value {beyond[0]}: expected at most {self.bound:,} in size, the word size")
        rows = np.zeros((self.size, len(self.program.inputs)), dtype=np.int64)
        rows[: len(memory), 0] = memory
        if self.operations:
            words = np.array([self._words(instruction) for instruction in code])
            rows[: len(code), 1 : 1 + words.shape[1]] = words
            rows[:, 1 + words.shape[1] :] = words[0]
        return rows

    def _words(self, instruction: Instruction) -> list[int]:
        kinds = [int(name == instruction.operation) for name in self.operations] if len(self.operations) > 1 else []
        return [*instruction[1:], *kinds]


def separate(size: int, operations: dict[str, Operation] = SUBLEQ, bound: int = WORD) -> Machine:
    """A machine whose program is apart from its data: one layer, one loop an instruction.

    After every loop, m is the memory, (a, b, c) is instruction pc, and all scratch registers are 0.

    Raises:
        ValueError: numbers would become too large for float64 to hold exactly.
    """
    several = list(operations) if len(operations) > 1 else []
    stored = ["A", "B", "C", *(f"[{name}]" for name in several)]
    now = ["a", "b", "c", *several]
    following, jump = [f"next {name}" for name in now], [f"jump {name}" for name in now]
    heads = (
        pointer({"a": 1}, {"m": "ma"}),
        pointer({"b": 1}, {"m": "mb"}),
        pointer({"pc": 1, "one": 1}, dict(zip(stored, following, strict=True))),
        pointer({"c": 1}, dict(zip(stored, jump, strict=True))),
    )
    # A gate multiplies the error of its boolean by a number larger than all cells. The signed form of a condition has
    # room for that error; without a gate, the other form has fewer constants. With hardmax both are exact.
    signed = bool(several)
    units: list[Unit] = []
    for name, operation in operations.items():
        gate = off_unless({name: 1}, 4 * bound * (size + 2)) if several else None
        positive, others = form((1, operation.result), (-1, ONE)), form((-1, operation.result))
        for to, if_positive, if_not in [
            *zip(now, following, jump, strict=True),
            ("pc", form((1, "pc"), (1, ONE)), "c"),
        ]:
            units += if_at_least(positive, form((1, if_positive)), size, {to: 1}, signed=signed, gate=gate)
            units += if_at_least(others, form((1, if_not)), size, {to: 1}, signed=signed, gate=gate)
        if operation.change:
            most = bound * len(operation.change)
            units += if_zero({"p": 1, "b": -1}, operation.change, most, {"m": 1}, gate=gate)
    units += clear(*now, "pc", *following, *jump) + clear("ma", "mb", signed=True)
    registers = ("p", "pp", "one", "m", *stored, *now, "pc", "ma", "mb", *following, *jump)
    largest = dict.fromkeys(("m", "ma", "mb"), bound) | dict.fromkeys(several + stored[3:], 1)
    return _machine(registers, heads, units, {}, ("m", *stored, *now), size, bound, largest, tuple(operations))


def four(size: int, bound: int = WORD) -> Machine:
    """The machine of four operations, which is `separate` with them."""
    return separate(size, FOUR, bound)


def self_modifying(size: int, bound: int = SHORT_WORD) -> Machine:
    """SUBLEQ with instructions in the same cells as data: one layer, two loops an instruction (fetch, execute).

    An instruction is three cells. Addresses outside the memory read the nearest cell and write nothing.

    Raises:
        ValueError: numbers would become too large for float64 to hold exactly.
    """
    words = {"a": "wa", "b": "wb", "c": "wc"}
    heads = (
        *(pointer({"pc": 1, "one": i}, {"m": word}) for i, word in enumerate(words.values())),
        pointer({"a": 1}, {"m": "ma"}),
        pointer({"b": 1}, {"m": "mb"}),
    )
    execute = off_unless({"h": 1}, 4 * bound * (size + 2))
    result, change = SUBTRACT
    units = [
        *(unit for x, word in words.items() for unit in add({word: 1}, {x: 1}, signed=True, gate={"h": 2 * bound})),
        *(unit for x in words for unit in add({x: 1}, {x: -1}, signed=True, gate=off_unless({"h": 1}, 2 * bound))),
        *if_at_least(form((1, result), (-1, ONE)), {ONE: 3}, 3, {"pc": 1}, signed=False, gate=execute),
        *if_at_least(form((-1, result)), {"c": 1, "pc": -1}, 2 * bound, {"pc": 1}, gate=execute),
        *if_zero({"p": 1, "b": -1}, change, bound, {"m": 1}, gate=execute),
        *clear(*words.values(), "ma", "mb", signed=True),
        Unit({"h": 1}, {"h": -2}),
    ]
    registers = ("p", "pp", "one", "m", "pc", *words, "h", *words.values(), "ma", "mb")
    largest = dict.fromkeys(("m", "pc", *words, *words.values(), "ma", "mb"), bound)
    return _machine(registers, heads, units, {"h": 1}, ("m",), size, bound, largest, ())


def _machine(
    registers: tuple[str, ...], heads: tuple[Head, ...], units: list[Unit], bias: Form, inputs: tuple[str, ...],
    size: int, bound: int, largest: dict[str, int], operations: tuple[str, ...],
) -> Machine:  # fmt: skip
    """`largest` bounds the registers that may be larger than the number of tokens, and booleans."""
    layer = Layer(tuple(merged(units)), heads, bias)
    known = dict.fromkeys(registers, size) | {"one": 1, "h": 1, "pp": size**2} | largest
    if (most := largest_sum([layer], known, size)) >= LIMITS["float64"]:
        raise ValueError(
            f"machine of {size:,} tokens with cells up to {bound:,}: its numbers reach {most:.3g}; expected below "
            f"{LIMITS['float64']:.3g}, from where on float64 does not hold every whole number"
        )
    program = Program(
        Circuit(registers, (layer,)), inputs, {name: {name: 1} for name in inputs} | {"one": {ONE: 1}},
        ({"m": 1}, {"pc": 1}), 1, bits=0, positions={"p": lambda p: p, "pp": lambda p: p * p},
    )  # fmt: skip
    return Machine(program, size, bound, operations)


MACHINES: dict[str, Callable[[int], Machine]] = {"subleq": separate, "four": four, "self-modifying": self_modifying}
"""By kind: a machine with a number of tokens, and with the default word size."""
