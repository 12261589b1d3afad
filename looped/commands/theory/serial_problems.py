"""Problems of any size n with a circuit and an oracle: how many loops does the circuit need?"""

import bisect
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from looped.theory import automata, edit_distance, graphs
from looped.theory.arithmetic import Array
from looped.theory.automata import Automaton
from looped.theory.circuit import Graphs, Program

MOST_WEIGHT = 9  # of an edge


class Examples(NamedTuple):
    inputs: Array
    answers: Array
    """(batch, ...) by an oracle that shares no code with the circuit."""
    graphs: Graphs | None = None


class Problem(NamedTuple):
    """A problem of any size n, with a circuit that solves it."""

    loops: str
    """The number of loops as a formula."""
    program: Callable[[int], Program]
    """The circuit for size n."""
    draw: Callable[[np.random.Generator, int, int], Examples]
    """Random examples: generator, size n, number of examples."""
    read: Callable[[Array], Array]
    """The answers (batch, ...) from the outputs (batch, seq, outputs)."""


def last(outputs: Array) -> Array:
    """The outputs of the last token."""
    return outputs[:, -1]


def _words(automaton: Automaton, only_start: bool) -> Callable[[np.random.Generator, int, int], Examples]:
    def draw(rng: np.random.Generator, n: int, count: int) -> Examples:
        words = rng.integers(0, len(automaton.letters), (count, n))
        maps = automaton.maps(words)[:, -1]
        return Examples(automaton.tokens(words), maps[:, :1] if only_start else maps)

    return draw


def _sequences(rng: np.random.Generator, n: int, count: int) -> Examples:
    """Random sequences; the first one is sorted, which needs all loops."""
    numbers = rng.integers(-n, n + 1, (count, n))
    numbers[0] = np.arange(n)
    return Examples(numbers[..., None], np.array([[max(patience(row))] for row in numbers.tolist()]))


def _pairs(rng: np.random.Generator, n: int, count: int) -> Examples:
    """Pairs of strings of n of three letters."""
    from rapidfuzz.distance import Levenshtein

    strings = ["".join(row) for row in rng.choice(list("abc"), (2 * count, n))]
    pairs = list(zip(strings[::2], strings[1::2], strict=True))
    answers = [Levenshtein.distance(*pair, weights=(2, 2, 3)) for pair in pairs]
    return Examples(edit_distance.encode(pairs)[0], np.array(answers))


def _paths(rng: np.random.Generator, n: int, count: int) -> Examples:
    """Random graphs of n nodes, with the distances of all nodes from node 0."""
    import networkx

    inputs, near, answers = [], [], []
    for _ in range(count):
        ends = np.argwhere(rng.random((n, n)) < 3 / n).tolist()
        edges = [(u, v, int(rng.integers(1, MOST_WEIGHT + 1))) for u, v in ends if u != v]
        infinity = graphs.dijkstra(n, MOST_WEIGHT).infinity
        start, matrices = graphs.dijkstra_input(graphs.Graph.of(n, edges), 0, infinity)
        plain = networkx.DiGraph()
        plain.add_nodes_from(range(n))
        plain.add_weighted_edges_from(edges)
        lengths = networkx.single_source_dijkstra_path_length(plain, 0)
        inputs.append(start)
        near.append(matrices["near"])
        answers.append([lengths.get(v, infinity) for v in range(n)])
    return Examples(np.concatenate(inputs), np.array(answers), {"near": np.concatenate(near)})


def patience(numbers: list[int]) -> list[int]:
    """The longest increasing subsequence that ends at each place, by patience sorting."""
    piles: list[int] = []
    found = []
    for number in numbers:
        place = bisect.bisect_left(piles, number)
        piles[place : place + 1] = [number]
        found.append(place + 1)
    return found


S5 = automata.symmetric_group()
PARITY = automata.BUILT_IN["parity"]()
PROBLEMS: Mapping[str, Problem] = {
    "S5, doubling": Problem("ceil(log2 n)", lambda n: automata.doubling(S5, n), _words(S5, False), last),
    "parity, doubling": Problem("ceil(log2 n)", lambda n: automata.doubling(PARITY, n), _words(PARITY, False), last),
    "S5, serial": Problem("n", lambda n: automata.serial(S5, n), _words(S5, True), last),
    "increasing subsequence": Problem("n", automata.increasing, _sequences, lambda outputs: outputs.max(axis=1)),
    "edit distance": Problem(
        "2n + 2", lambda n: edit_distance.edit_distance(3 * n + 1, 2 * n + 2), _pairs,
        lambda outputs: outputs[:, -1].argmax(axis=-1),
    ),
    "shortest paths": Problem(
        "2n", lambda n: graphs.dijkstra(n, MOST_WEIGHT).program, _paths, lambda outputs: outputs[..., 0]
    ),
}  # fmt: skip
