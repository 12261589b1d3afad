"""Loops as serial steps: finite automata in ceil(log2 n) loops or in n, and increasing subsequences in n loops.

The word problem of the group S5 is a finite automaton. Merrill & Sabharwal (2025) state that looping a transformer
Theta(log n) times suffices for all regular languages. `doubling` is a circuit of our own for it. Nothing here shows
that fewer loops cannot suffice: that is a theorem under a conjecture about circuits.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from looped.theory.arithmetic import Array, Number
from looped.theory.circuit import ONE, Circuit, Form, Layer, Program, Unit, form
from looped.theory.idioms import add, at_least, clear, pointer

START = "^"
"""The token before the first letter."""
MOST_STATES = 50
MOST_LETTERS = 1000


class Automaton(NamedTuple):
    """A complete deterministic finite automaton. State 0 is the start."""

    states: tuple[str, ...]
    letters: tuple[str, ...]
    table: Int[Array, "letters states"]
    """The number of the state after a letter."""

    def maps(self, words: Int[Array, "batch n"]) -> Int[Array, "batch n_plus_1 states"]:
        """(batch, n + 1, states) where each state leads after 0, 1, ..., n letters, by following the definition."""
        found = [np.tile(np.arange(len(self.states)), (len(words), 1))]
        for letter in words.T:
            found.append(self.table[letter[:, None], found[-1]])
        return np.stack(found, axis=1)

    def tokens(self, words: Int[Array, "batch n"]) -> Int[Array, "batch n_plus_1"]:
        """The input of `doubling` and `serial`: the start token, then the letters."""
        return np.pad(words + 1, ((0, 0), (1, 0)))


def doubling(automaton: Automaton, length: int) -> Program:
    """The maps of all prefixes in ceil(log2 n) loops: d = 4 + 2 Q, one head with Q values, 2 Q^2 + 1 units.

    Token i holds the map w of a window that ends at letter i: state x leads to state w_x. Each loop reads the map g of
    the window before, at a distance that doubles, and composes: w_x <- w[g_x]. Before the first letter it reads the
    start token, whose map is the identity.

    Returns:
        A program from tokens (batch, n + 1) to maps (batch, n + 1, Q); token i belongs to the first i letters.
    """
    states = range(len(automaton.states))
    w, g = [f"w{x}" for x in states], [f"g{x}" for x in states]
    units = [*add({"off": 1}, {"off": 1}), *add({w[0]: 1}, dict.fromkeys(w[1:], 1)), *clear(*w[1:], *g)]
    for x in states:
        units += lookup({g[x]: 1}, w, {w[x]: 1})
    previous = pointer({"p": 1, "off": -1}, dict(zip(w, g, strict=True)))
    circuit = Circuit(("p", "pp", "one", "off", *w, *g), (Layer(tuple(units), (previous,)),))
    input_map: dict[str, Form] = {"one": {ONE: 1}, "off": {ONE: 1}, **_letter_maps(automaton, w)}
    loops = max(1, (length - 1).bit_length())  # a model loops at least once
    return _of_tokens(automaton, circuit, input_map, tuple({name: 1} for name in w), loops)


def serial(automaton: Automaton, length: int) -> Program:
    """The states after all prefixes in n loops, one letter a loop: d = 5 + Q, one head of size 2, 2 Q + 1 units.

    Token i holds the map w of letter i. Each loop reads the state s of the token before and moves it: s <- w[s].
    After t loops the first t tokens are right, and they stay right.

    Returns:
        A program from tokens (batch, n + 1) to states (batch, n + 1, 1).
    """
    w = [f"w{x}" for x in range(len(automaton.states))]
    units = [*add({w[0]: 1}, {"s": 1}), *lookup({"g": 1}, w, {"s": 1}), *clear("s", "g")]
    previous = pointer({"p": 1, "one": -1}, {"s": "g"})
    circuit = Circuit(("p", "pp", "one", *w, "g", "s"), (Layer(tuple(units), (previous,)),))
    input_map: dict[str, Form] = {"one": {ONE: 1}, **_letter_maps(automaton, w)}
    return _of_tokens(automaton, circuit, input_map, ({"s": 1},), length)


def increasing(length: int) -> Program:
    """The longest increasing subsequence that ends at each token, in n loops: d = 9, two heads of size 2, 9 units.

    Loop t + 1 offers the final length L of token t to all later tokens with a larger number. They accept L + 1 if it
    is more than their own. A layer cannot test two whole-number conditions, so loop t counts those that hold in b:
    later, and larger.

    Returns:
        A program from whole numbers (batch, n, 1) to lengths (batch, n, 1); the largest is the answer.
    """
    offer = form((1, "tl"), (1, ONE), (-1, "L"), (length + 1, "b"), (-2 * (length + 1), ONE))
    units = (
        *at_least({"a": 1, "ta": -1, ONE: -1}, {"b": 1}),
        *at_least({"p": 1, "t": -1, ONE: -1}, {"b": 1}),
        *add(offer, {"L": 1}),
        *clear("ta", signed=True),
        *clear("tl", "b"),
    )
    heads = (pointer({"t": 1}, {"a": "ta"}), pointer({"t": 1, "one": -1}, {"L": "tl"}))
    circuit = Circuit(("one", "p", "pp", "a", "t", "ta", "tl", "b", "L"), (Layer(units, heads, {"t": 1}),))
    return Program(
        circuit, ("a",), {"one": {ONE: 1}, "a": {"a": 1}, "L": {ONE: 1}}, ({"L": 1},), length, bits=0,
        positions={"p": lambda p: p, "pp": lambda p: p * p},
    )  # fmt: skip


def lookup(index: Form, registers: Sequence[str], writes: Form) -> list[Unit]:
    """r_i - r_0 -> writes, for registers with values 0 .. Q - 1 and a whole index i. Two units for each but the first.

    It is the sum of (r_y - r_{y-1}) [i >= y], and relu(r_y + Q (i - y)) - relu(r_{y-1} + Q (i - y)) is such a term.
    """
    units = []
    for y, (before, after) in enumerate(itertools.pairwise(registers), start=1):
        gate = form((len(registers), index), (-len(registers) * y, ONE))
        units += [*add(form((1, after), (1, gate)), writes), *add(form((1, before), (1, gate)), form((-1, writes)))]
    return units


def _letter_maps(automaton: Automaton, w: Sequence[str]) -> dict[str, Form]:
    """The registers w by token: the identity for the start token, and the map of each letter."""
    maps: list[dict[str, Number]] = [{START: x} for x in range(len(w))]
    for letter, row in enumerate(automaton.table.tolist()):
        for x, target in enumerate(row):
            maps[x][_token(letter)] = target
    return dict(zip(w, maps, strict=True))


def _token(letter: int) -> str:
    return f"letter {letter}"  # letters may have any names, such as that of the start token


def _of_tokens(
    automaton: Automaton, circuit: Circuit, input_map: dict[str, Form], output_map: tuple[Form, ...], loops: int
) -> Program:
    inputs = (START, *map(_token, range(len(automaton.letters))))
    return Program(
        circuit, inputs, input_map, output_map, loops, bits=0, tokens=True,
        positions={"p": lambda p: p, "pp": lambda p: p * p},
    )  # fmt: skip


def symmetric_group(points: int = 5) -> Automaton:
    """The word problem of a symmetric group: the letters are all permutations, the states are the points."""
    permutations = list(itertools.permutations(range(points)))
    names = tuple("".join(str(x + 1) for x in p) for p in permutations)
    return Automaton(tuple(str(x + 1) for x in range(points)), names, np.array(permutations))


def remainder(divisor: int) -> Automaton:
    """The remainder of a binary number, whose digits are read from the left."""
    table = np.array([[(2 * x + bit) % divisor for x in range(divisor)] for bit in (0, 1)])
    return Automaton(tuple(map(str, range(divisor))), ("0", "1"), table)


def random_automaton(states: int, letters: int, seed: int) -> Automaton:
    """An automaton with random transitions."""
    table = np.random.default_rng(seed).integers(0, states, (letters, states))
    return Automaton(tuple(map(str, range(states))), tuple(map(str, range(letters))), table)


BUILT_IN = {
    "s5": symmetric_group,
    "parity": lambda: Automaton(("even", "odd"), ("0", "1"), np.array([[0, 1], [1, 0]])),
    "seven": lambda: remainder(7),
    "random": lambda: random_automaton(7, 3, seed=0),
}


def parse(text: str, source: str) -> Automaton:
    """The automaton of a text with a line "state letter next-state" for each transition.

    The first line begins with the start state. Empty lines and lines that begin with # are left out.

    Raises:
        ValueError: a line has another form, or the table is not complete or too large; names the source.
    """
    found: dict[tuple[str, str], str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 3:
            raise ValueError(f"{source}, line {number}: {len(words)} words; expected state, letter, next state")
        state, letter, following = words
        if found.setdefault((state, letter), following) != following:
            raise ValueError(
                f"{source}, line {number}: a second transition from {state!r} with {letter!r}; expected one, because "
                "the automaton is deterministic"
            )
    states = tuple(dict.fromkeys(state for state, _ in found))
    letters = tuple(dict.fromkeys(letter for _, letter in found))
    if not found:
        raise ValueError(f"{source}: no transition; expected lines with state, letter, next state")
    for names, most, what in ((states, MOST_STATES, "states"), (letters, MOST_LETTERS, "letters")):
        if len(names) > most:
            raise ValueError(f"{source}: {len(names)} {what}; expected at most {most}")
    for (state, letter), following in found.items():
        if following not in states:
            raise ValueError(
                f"{source}: {state!r} with {letter!r} leads to {following!r}, which has no transitions; expected one "
                "for each letter"
            )
    if missing := next((pair for pair in itertools.product(states, letters) if pair not in found), None):
        raise ValueError(
            f"{source}: no transition from {missing[0]!r} with {missing[1]!r}; expected one for each state and letter"
        )
    table = [[states.index(found[state, letter]) for state in states] for letter in letters]
    return Automaton(states, letters, np.array(table))
