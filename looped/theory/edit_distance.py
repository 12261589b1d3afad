"""Edit distance and longest common subsequence of two strings of any lengths, as the weights of one looped layer.

The table D of the distances of prefixes is filled along its antidiagonals. Token j of the second string holds column j,
and loop t computes its row t - j. Only differences of neighbouring cells are stored. With gaps that cost w and
replacements that cost s <= 2 w, they are v(i, j) = D(i, j) - D(i-1, j) and h(i, j) = D(i, j) - D(i, j-1), both in
-w .. w. With u = D(i, j) - D(i-1, j-1) the recurrence is

    u = min(s [x_i != y_j], w + h(i-1, j), w + v(i, j-1)),    v(i, j) = u - h(i-1, j),    h(i, j) = u - v(i, j-1).

D is extended to the whole plane: D = w (j - i) for i <= 0 <= j, and w (i - j) for j <= 0 <= i. The recurrence then also
holds outside the table, whatever the letters are, because w + h or w + v is 0 there. All tokens therefore follow one
rule for ever, and no unit has to know where the table begins.
"""

import itertools
import string
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, Shaped

from looped.strict import check
from looped.theory.circuit import ONE, Circuit, Form, Head, Layer, Program, Unit, form
from looped.theory.idioms import add, clear, if_at_least, is_zero, pointer, table

REGISTERS = ("one", "pos", "sq", "sym", "bar0", "bar", "h", "v", "lv", "ld", "ptr", "xr", "match", "D", "out")
"""Constant: one, position and its square, token, whether the token is the bar. From the prelude: position of the bar.
State: h, v, the row's position in the first string, whether its letter matches, D. Read and cleared in each loop: v
and D of the left neighbour, the letter of the first string. out: the left neighbour's D, the answer at <sep>."""

TOKENS = ("pad", "<sep>", "|", *string.ascii_lowercase)
BAR = form((1, "pos"), (-1, "bar"))
"""The position counted from the bar: j for the j-th letter of the second string."""
MOST = 100
"""The largest cost of a gap. The table of u has (2 w + 1)^2 entries."""


def edit_distance(answers: int, loops: int, *, gap: int = 2, replace: int = 3, plateau: bool = False) -> Program:
    """The edit distance of x and y as a program on the tokens `x | y <sep>`: logits of 0 .. answers - 1 at <sep>.

    Args:
        loops: at least len(x) + len(y) + 2; more change nothing.
        gap: w, the cost of an inserted or deleted letter.
        replace: s, the cost of a replaced letter, at most 2 w.
        plateau: for softmax attention, whose errors the table of u must not pass on (see `idioms.table`).

    Raises:
        ValueError: an impossible cost.
    """
    logits = (form((2 * k, "out"), (-k * k, ONE)) for k in range(answers))  # highest at k = out
    return _program(gap, replace, loops, logits, plateau)


def lcs(answers: int, loops: int, *, plateau: bool = False) -> Program:
    """The length of the longest common subsequence, (len(x) + len(y) - D) / 2 for costs 1 and 2, as `edit_distance`."""
    twice = form((1, "pos"), (-1, ONE), (-1, "out"))  # <sep> is at the position len(x) + len(y) + 1
    logits = (form((k, twice), (-k * k, ONE)) for k in range(answers))
    return _program(1, 2, loops, logits, plateau)


def loops_for(letters: int) -> int:
    """The loops that two strings need that have so many letters together."""
    return letters + 2


def encode(pairs: Sequence[tuple[str, str]]) -> tuple[Int[np.ndarray, "pairs seq"], Int[np.ndarray, " pairs"]]:
    """The tokens of pairs of strings of a-z, padded on the right, and the position of <sep> in each."""
    texts = [[*first, "|", *second, "<sep>"] for first, second in pairs]
    seq, number = max(map(len, texts)), {name: k for k, name in enumerate(TOKENS)}
    tokens = [[number[name] for name in text] + [number["pad"]] * (seq - len(text)) for text in texts]
    return np.array(tokens), np.array([len(text) - 1 for text in texts])


def cells(
    states: Shaped[np.ndarray, "loops seq registers"], first: str, second: str
) -> Iterator[tuple[int, int, int, float]]:
    """The cells of D as (loop, i, j, value), read from the states of the tokens of one pair after each loop.

    The pointer of a token says which row its register D holds.
    """
    state = dict(zip(REGISTERS, np.moveaxis(states, -1, 0), strict=True))
    for loop, column in np.ndindex(len(states), len(second) + 1):
        token = len(first) + column
        row = round(state["ptr"][loop, token]) - 2
        if 0 <= row <= len(first):
            yield loop + 1, row, column, float(state["D"][loop, token])


def largest_number(seq: int, loops: int) -> int:
    """A bound on all products and sums in the attention to `seq` tokens, which are the largest numbers of a run.

    It is |2 t| p + p^2 for the pointer t into the first string. A letter of that string has the largest t.
    """
    first = seq // 2
    return 2 * (first + loops) * (seq - 1) + (seq - 1) ** 2


def _program(gap: int, replace: int, loops: int, logits: Iterator[Form], plateau: bool) -> Program:
    check(1 <= gap <= MOST, "gap", gap, f"1 to {MOST}")
    check(0 <= replace <= 2 * gap, "replace", replace, f"0 to {2 * gap}, because two gaps of {gap} replace a letter")
    return Program(
        circuit=Circuit(REGISTERS, (_core(gap, replace, plateau),)),
        inputs=TOKENS,
        tokens=True,
        input_map={"one": {ONE: 1}, "sym": {name: k for k, name in enumerate(TOKENS)}, "bar0": {"|": 1}},
        positions={"pos": lambda p: p, "sq": lambda p: p * p},
        prelude=(_prelude(gap),),
        output_map=tuple(logits),
        loops=loops,
        bits=3 if plateau else 0,  # a plateau ends at a multiple of 1/8
    )


def _prelude(w: int) -> Layer:
    """Row 0: h = w right of the bar and -w elsewhere; v = -w from the bar on and w before; D = w j; ptr = 1 - j."""
    find = Head(value=({"pos": 1},), writes=("bar",), query=({"one": 1},), key=({"bar0": 16},))  # 16: also for softmax
    units = (
        Unit(form((1, BAR), (1, ONE)), {"v": -2 * w}),
        Unit(BAR, {"v": 2 * w, "h": 2 * w, "ptr": -1, "D": w}),
        Unit(form((1, BAR), (-1, ONE)), {"h": -2 * w}),
        Unit(form((-1, BAR)), {"ptr": 1}),
    )
    return Layer(units, (find,), bias={"h": -w, "v": w, "ptr": 1})


def _core(w: int, s: int, plateau: bool) -> Layer:
    left = pointer(form((1, "pos"), (-1, "one")), {"v": "lv", "D": "ld"}, position="pos", square="sq")
    letter = pointer({"ptr": 1}, {"sym": "xr"}, position="pos", square="sq")
    # u depends on three bounded numbers, which are the digits of one: h + w, lv + w, and [letters match].
    base, steps = 2 * w + 1, range(2 * w + 1)
    number = form((1, "h"), (w, ONE), (base, "lv"), (base * w, ONE), (base**2, "match"))
    u = [min(s, a, b) for b, a in itertools.product(steps, steps)] + [0, 0]  # 0 whenever the letters match
    recurrence, bias = table(number, u, {"h": 1, "v": 1}, plateau=plateau)
    rows_done = ({"ptr": 1, ONE: -2}, {"ptr": 1, "bar": -1, ONE: -2})  # at least 0 from row 1 on; after the last row
    units = (
        *clear("match", "xr"),
        # The letter is compared one loop before its cell is computed, because one layer tests one integer condition.
        *is_zero({"xr": 1, "sym": -1}, {"match": 1}),
        *recurrence,
        *add({"lv": 1}, {"lv": -1, "h": -1}, signed=True),
        *add({"h": 1}, {"h": -1, "v": -1}, signed=True),
        *clear("v", signed=True),
        *if_at_least(rows_done[0], {"v": 1}, w, {"D": 1}),
        *if_at_least(rows_done[1], {"v": 1}, w, {"D": -1}),
        *add({"ld": 1}, {"ld": -1, "out": 1}),
        *clear("out"),
    )
    return Layer(units, (left, letter), bias=form((1, bias), (1, {"ptr": 1})))
