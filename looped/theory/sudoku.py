"""Sudoku: naked and hidden singles, and complete search with backtracking, as six layers of a looped block.

A token is a cell. For each digit k it has a mark e_k: 0 while k is a candidate, and L + 1 after k was eliminated at
decision level L. To undo a level is therefore one comparison of each mark with the present level. One loop does one of
three things on the whole board. It eliminates all that naked and hidden singles exclude. If they exclude nothing, it
decides: the cell with the fewest candidates (at least two) keeps only its first. If there is a contradiction, it undoes
the present level and eliminates the decided digit at the level below. A solved board does not change any more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import isqrt

from jaxtyping import Bool, Shaped

from looped.strict import check
from looped.theory.arithmetic import Array
from looped.theory.bounds import largest_sum
from looped.theory.circuit import ONE, Circuit, Head, Layer, Program, Unit, form
from looped.theory.idioms import add, at_least, clear, is_zero, off_unless

LINES = ("row", "col", "box")
"""The registers with the number of the cell's row, column and box. Their squares are in "row^2" and so on."""
SCALARS = {
    "lev": "the present level; the same in every cell",
    "dl": "the level at which this cell was decided, or 0",
    "con": "contradictions here", "CON": "in all cells",
    "any": "digits to eliminate here", "PROG": "in all cells",
    "multi": "whether the cell has several candidates", "MULT": "the number of such cells",
    "ch": "the number of the cell to decide", "pick": "whether it is this one",
    "back": "whether to go back", "dec": "whether to decide",
}  # fmt: skip
DIGITS = {
    "e": "0 for a candidate, or L + 1",
    "c": "candidate", "s": "only candidate", "f": "first candidate",
    "S": "cells solved with the digit, over row, column and box",
    "Hrow": "cells of the row that may be the digit", "Hcol": "of the column", "Hbox": "of the box",
    "hid": "in how many of the three this cell is the only one",
    "x": "to eliminate in this loop",
    "d": "the digit that was decided",
}  # fmt: skip
"""Registers that there are for each digit, such as "e1"."""


def program(box: int = 3, *, search: bool = True, loops: int = 256) -> Program:
    """The circuit for boards of box**4 cells, on tokens: 0 is a blank cell, and a digit is its own token.

    The outputs of a cell are logits for 0, 1, ...: 0 for each candidate, and at most -20 for the others.

    Args:
        box: side of a box: 3 for 9x9 boards, 2 for 4x4.
        search: False leaves out the two units that decide. The block then only propagates singles.
        loops: the number of loops; more than a board needs do not change it.

    Raises:
        ValueError: box is not 2 or 3.
    """
    check(box in (2, 3), "box", box, "2 or 3")
    side = box**2
    digits = range(1, side + 1)
    own = [f"{family}{k}" for family, k in product(DIGITS, digits)]
    lines: dict[str, Callable[[int], int]] = {
        "row": lambda i: i // side,
        "col": lambda i: i % side,
        "box": lambda i: i // side // box * box + i % side // box,
    }
    squares = {f"{line}^2": lambda i, number=number: number(i) ** 2 for line, number in lines.items()}
    return Program(
        circuit=Circuit(("one", "id", *lines, *squares, *SCALARS, *own), tuple(_layers(side, search=search))),
        inputs=("blank", *(f"given{k}" for k in digits)),
        tokens=True,
        # A given digit eliminates the others at level 0.
        input_map={"one": {ONE: 1}} | {f"e{k}": {f"given{j}": 1 for j in digits if j != k} for k in digits},
        positions={"id": lambda i: i} | lines | squares,
        output_map=({ONE: -20}, *({f"e{k}": -20} for k in digits)),
        loops=loops,
        bits=0,
    )


def _layers(side: int, *, search: bool) -> Iterator[Layer]:
    cells, digits = side**2, range(1, side + 1)
    most = cells + 2  # no level or mark is larger, because each level decides a cell
    count = {f"c{k}": 1 for k in digits}

    # 1. The candidates of a cell.
    yield Layer(tuple(Unit({ONE: 1, f"e{k}": -1}, {f"c{k}": 1}) for k in digits))

    # 2. Solved cells have one candidate, and cells without any are contradictions. The first candidate.
    units = [Unit(form((1, f"c{k}"), (1, ONE), (-1, count)), {f"s{k}": 1}) for k in digits]
    units += [Unit(form((1, ONE), (-1, count)), {"con": 1} | {f"s{k}": -1 for k in digits})]
    units += [Unit({f"c{k}": 1} | {f"c{j}": -1 for j in range(1, k)}, {f"f{k}": 1}) for k in digits]
    units += at_least(form((1, count), (-2, ONE)), {"multi": 1})
    yield Layer(tuple(units))

    # 3. In each row, column and box: how often a digit is solved, and how many cells it may be in. A hidden single is
    # the only one; a digit without a cell is a contradiction.
    heads = tuple(
        _sum({f"s{k}": f"S{k}" for k in digits} | {f"c{k}": f"H{line}{k}" for k in digits}, side, line)
        for line in LINES
    )
    units = [Unit({f"c{k}": 2, f"H{line}{k}": -1}, {f"hid{k}": 1}) for line in LINES for k in digits]
    units += [Unit({ONE: 1, f"H{line}{k}": -1}, {"con": 1}) for line in LINES for k in digits]
    yield Layer(tuple(units), heads)

    # 4. A candidate stays if no other cell of its lines is solved with it, and no other digit is a hidden single here.
    units = []
    for k in digits:
        stays = form((1, f"c{k}"), (-1, f"S{k}"), (3, f"s{k}"), *((-1, f"hid{j}") for j in digits if j != k))
        units += [Unit({f"c{k}": 1}, {f"x{k}": 1, "any": 1}), Unit(stays, {f"x{k}": -1, "any": -1})]
    yield Layer(tuple(units), (_sum({"con": "CON"}, cells),))

    # 5. What to do in this loop, and the cell with the fewest candidates.
    scarce = form((cells * (side + 2), "multi"), (-cells, count), (-1, "id"))
    idle = form((1, ONE), (-1, "CON"), (-1, "PROG"))
    decide = [Unit(idle, {"dec": 1}), Unit(form((1, idle), (-1, "MULT")), {"dec": -1})] if search else []
    units = [*at_least({"CON": 1, ONE: -1}, {"back": 1}), *decide, *is_zero({"id": 1, "ch": -1}, {"pick": 1})]
    largest = Head(value=({"id": 1},), writes=("ch",), query=({"one": 1},), key=(scarce,))
    yield Layer(tuple(units), (_sum({"any": "PROG", "multi": "MULT"}, cells), largest))

    # 6. Eliminate, decide, or go back.
    here = form((1, "dec"), (1, "pick"), (-1, ONE))
    undone = {"back": 1, "dl": 1, "lev": -1}  # 1 in the cell that was decided at the level that is undone
    units = [Unit({"dec": 1}, {"dec": -1, "lev": 1}), Unit({"back": 1}, {"back": -1, "lev": -1})]
    units += add({"lev": 1, ONE: 1}, {"dl": 1}, gate=off_unless(here, most))
    units += add({"dl": 1}, {"dl": -1}, gate=off_unless(undone, most))
    for k in digits:
        e, d, f = f"e{k}", f"d{k}", f"f{k}"
        units += add({"lev": 1, ONE: 1}, {e: 1}, gate=off_unless({f"x{k}": 1, "back": -1}, most))
        other = form((1, here), (1, f"c{k}"), (-1, f), (-1, ONE))
        units += add({"lev": 1, ONE: 2}, {e: 1}, gate=off_unless(other, most))
        units += add({f: 1}, {d: 1}, gate=off_unless(here, 1))
        newest = {"back": 1, e: 1, "lev": -1, ONE: -1}  # no mark is above lev + 1
        units += add({e: 1}, {e: -1}, gate=off_unless(newest, most))
        units += add({"lev": 1}, {e: 1}, gate=off_unless(form((1, undone), (1, d), (-1, ONE)), most))
        units += add({d: 1}, {d: -1}, gate=off_unless(undone, 1))
    scratch = [f"{family}{k}" for family, k in product(DIGITS, digits) if family not in ("e", "d")]
    units += clear(*scratch, *(name for name in SCALARS if name not in ("lev", "dl", "dec", "back")))
    yield Layer(tuple(units))


def _sum(reads: Mapping[str, str], count: int, line: str | None = None) -> Head:
    """Sums over the `count` cells with the same number in `line`, or over all cells. {register there: register here}.

    A head computes means over ties. The values have the factor `count`, because a mean must be a whole number.
    """
    value, writes = tuple({name: count} for name in reads), tuple(reads.values())
    if line is None:
        return Head(value, writes)
    return Head(value, writes, query=({line: 2}, {"one": 1}), key=({line: 1}, {f"{line}^2": -1}))


def largest_number(box: int) -> int:
    """A bound on all sums of `program`."""
    side = box**2
    cells = side**2
    sizes = {"one": 1, "id": cells, "lev": cells, "dl": cells + 1, "con": 3 * side + 1, "any": side, "ch": cells}
    sizes |= {"CON": cells * (3 * side + 1), "PROG": cells * side, "MULT": cells}
    sizes |= dict.fromkeys(("multi", "pick", "back", "dec"), 1)
    sizes |= dict.fromkeys(LINES, side) | {f"{line}^2": cells for line in LINES}
    largest = {"e": cells + 2, "S": 3 * side, "Hrow": side, "Hcol": side, "Hbox": side, "hid": 3}
    sizes |= {f"{family}{k}": largest.get(family, 1) for family, k in product(DIGITS, range(1, side + 1))}
    return largest_sum(program(box).circuit.layers, sizes, cells)


def candidates(program: Program, state: Shaped[Array, "*batch cells registers"]) -> Bool[Array, "*batch cells digits"]:
    """Which digits are candidates of each cell."""
    first = program.circuit.registers.index("e1")
    return state[..., first : first + len(program.inputs) - 1] == 0


def level(program: Program, state: Shaped[Array, "*batch cells registers"]) -> Shaped[Array, "*batch"]:
    """The number of decisions that are in force."""
    return state[..., 0, program.circuit.registers.index("lev")]


def singles(puzzle: Sequence[int]) -> list[set[int]]:
    """The candidates of each cell once naked and hidden singles exclude nothing more, by sets.

    This shares nothing with the circuit, which is compared with it.
    """
    side = isqrt(len(puzzle))
    box = isqrt(side)
    lines = [[(i, j) for j in range(side)] for i in range(side)]
    lines += [[(i, j) for i in range(side)] for j in range(side)]
    lines += [
        [(a + i, b + j) for i, j in product(range(box), repeat=2)] for a, b in product(range(0, side, box), repeat=2)
    ]
    left = {(i // side, i % side): {k} if k else set(range(1, side + 1)) for i, k in enumerate(puzzle)}
    before = None
    while before != left:
        before = {cell: set(digits) for cell, digits in left.items()}
        for line in lines:
            for cell in line:
                others = [left[other] for other in line if other != cell]
                left[cell] -= {k for digits in others if len(digits) == 1 for k in digits}
                if hidden := left[cell].difference(*others):
                    left[cell] = hidden
    return list(left.values())
