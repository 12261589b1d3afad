"""The parts of every construction: conditions, tables and pointers as hidden units and heads.

All registers hold whole numbers, and `x -> r` means that x is added to register r. One layer of hidden units can test
one integer condition together with any booleans, but not two integer conditions: compute one of them a loop earlier,
as a boolean register. Gates are forms that are 0 where the units shall act, and at least as large as every
pre-activation where they shall not.
"""

import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction

from looped.theory.arithmetic import Number
from looped.theory.circuit import ONE, Form, Head, Unit, form


def clear(*registers: str, signed: bool = False) -> list[Unit]:
    """Set registers to 0, from values at least 0, or from any with `signed`. One unit each, or two."""
    signs = (1, -1) if signed else (1,)
    return [Unit({name: sign}, {name: -sign}) for name in registers for sign in signs]


def add(x: Form, writes: Form, *, signed: bool = False, gate: Form | None = None) -> list[Unit]:
    """x -> writes, where x >= 0, or any x with `signed`. One unit, or two."""
    signs = (1, -1) if signed else (1,)
    return [Unit(form((sign, x), (-1, gate or {})), _times(sign, writes)) for sign in signs]


def if_at_least(
    e: Form, x: Form, bound: Number, writes: Form, *, signed: bool = True, gate: Form | None = None
) -> list[Unit]:
    """x [e >= 0] -> writes, for a whole form e and |x| <= bound (signed), or 0 <= x <= bound. Two units.

    signed: relu(x + 2 B e + B) - relu(2 B e + B). Otherwise: relu(x + B e) - relu(B e).
    """
    condition = form((2 * bound, e), (bound, ONE)) if signed else form((bound, e))
    off = form((-1, gate or {}))
    return [
        Unit(form((1, x), (1, condition), (1, off)), writes),
        Unit(form((1, condition), (1, off)), _times(-1, writes)),
    ]


def if_zero(
    e: Form, x: Form, bound: Number, writes: Form, *, signed: bool = True, gate: Form | None = None
) -> list[Unit]:
    """x [e = 0] -> writes, which is x [e >= 0] - x [e >= 1]. Four units; arguments as in `if_at_least`."""
    above = form((1, e), (-1, ONE))
    return [
        *if_at_least(e, x, bound, writes, signed=signed, gate=gate),
        *if_at_least(above, x, bound, _times(-1, writes), signed=signed, gate=gate),
    ]


def at_least(e: Form, writes: Form, *, gate: Form | None = None) -> list[Unit]:
    """[e >= 0] -> writes, for a whole form e. Two units: relu(e + 1) - relu(e)."""
    return [
        Unit(form((1, e), (offset, ONE), (-1, gate or {})), _times(sign, writes)) for offset, sign in ((1, 1), (0, -1))
    ]


def is_zero(e: Form, writes: Form, *, gate: Form | None = None) -> list[Unit]:
    """[e = 0] -> writes, for a whole form e. Three units: relu(e + 1) - 2 relu(e) + relu(e - 1)."""
    tent = ((1, 1), (0, -2), (-1, 1))
    return [Unit(form((1, e), (offset, ONE), (-1, gate or {})), _times(factor, writes)) for offset, factor in tent]


def table(s: Form, values: Sequence[Number], writes: Form, *, plateau: bool = False) -> tuple[list[Unit], Form]:
    """values[s] -> writes, for a whole form s in 0 .. len(values) - 1. Returns the units and an output bias.

    Between whole numbers the function is linear: one unit for each change of slope. With `plateau` it is constant
    within 3/8 of every whole number, and steep between: two units for each change of value. An error of s below 3/8
    then does no harm, such as the errors that softmax makes.
    """
    units: list[Unit] = []
    steps = [b - a for a, b in itertools.pairwise(values)]
    if plateau:
        for at, step in enumerate(steps):
            for offset, factor in ((Fraction(3, 8), 4 * step), (Fraction(5, 8), -4 * step)):
                units.append(Unit(form((1, s), (-at - offset, ONE)), _times(factor, writes)))
    else:
        for at, (before, after) in enumerate(itertools.pairwise([0, *steps])):
            units.append(Unit(form((1, s), (-at, ONE)), _times(after - before, writes)))
    return [unit for unit in units if any(unit.writes.values())], _times(values[0], writes)


def pointer(
    target: Form, reads: Mapping[str, str], *, position: str = "p", square: str = "pp", one: str = "one"
) -> Head:
    """A head that reads the token at the position `target`, a whole form: {register there: register here}.

    The score is t^2 - (p - t)^2, up to a term that is the same for all tokens. Beyond the ends it reads the end.

    Args:
        position, square: the registers with p and p^2. A token with a huge value in `square` is never read.
        one: a register that is 1 in every token.
    """
    return Head(
        value=tuple({name: 1} for name in reads),
        writes=tuple(reads.values()),
        query=(form((2, target)), {one: 1}),
        key=({position: 1}, {square: -1}),
    )


def off_unless(boolean: Form, size: Number) -> Form:
    """A gate that lets units act where a boolean form is 1; `size` bounds their pre-activations where it is 0."""
    return form((size, ONE), (-size, boolean))


def merged(units: Sequence[Unit]) -> list[Unit]:
    """The same function with fewer units: those that read the same form become one, which writes all they write."""
    writes: dict[frozenset[tuple[str, Number]], dict[str, Number]] = {}
    for unit in units:
        reads = frozenset((name, value) for name, value in unit.reads.items() if value)
        writes[reads] = form((1, writes.get(reads, {})), (1, unit.writes))
    return [Unit(dict(reads), written) for reads, written in writes.items()]


def _times(factor: Number, f: Form) -> dict[str, Number]:
    return form((factor, f))
