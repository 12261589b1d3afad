"""Shortest paths as looped transformers: breadth-first search, Bellman-Ford, Dijkstra.

Bellman-Ford is an ordinary transformer whose tokens are edges. In the others a token is a node, and a graph head sums
over its predecessors (Back de Luca & Fountoulakis, 2024). All numbers are whole, so the only limit on the size is that
of the numbers, which `Search.largest_number` bounds before anything runs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from looped.theory.arithmetic import Array
from looped.theory.bounds import largest_sum
from looped.theory.circuit import ONE, Circuit, Form, Head, Layer, Program, Unit, form
from looped.theory.idioms import clear, if_at_least, pointer


class Graph(NamedTuple):
    """A directed graph with whole weights. Its nodes are 0, 1, ..."""

    nodes: int
    edges: Mapping[tuple[int, int], int]
    """Weights by (from, to)."""

    @classmethod
    def of(cls, nodes: int, edges: Iterable[tuple[int, int, int]]) -> "Graph":
        """The graph of edges (from, to, weight). The lightest of parallel edges counts."""
        lightest: dict[tuple[int, int], int] = {}
        for start, end, weight in edges:
            lightest[start, end] = min(weight, lightest.get((start, end), weight))
        return cls(nodes, lightest)

    def matrix(self, entry: Callable[[int], int] = lambda weight: 1) -> Array:
        """(1, nodes, nodes): entry(weight) in row v, column u for each edge from u to v, otherwise 0."""
        matrix = np.zeros((1, self.nodes, self.nodes), np.int64)
        for (start, end), weight in self.edges.items():
            matrix[0, end, start] = entry(weight)
        return matrix


@dataclass(frozen=True)
class Search:
    """A program for all graphs of some size, with the bounds that its exactness depends on."""

    program: Program
    tokens: int
    sizes: Mapping[str, int]
    """The largest absolute value of each register."""
    entries: Mapping[str, int] = field(default_factory=dict)
    """The largest absolute entry of each matrix."""
    infinity: int = 0
    """Distances from here on mean that a node cannot be reached."""

    def largest_number(self) -> int:
        """A bound on every sum that the program computes. A type that holds all whole numbers up to it is exact."""
        return largest_sum(self.program.circuit.layers, self.sizes, self.tokens, self.entries)


def breadth_first(nodes: int) -> Search:
    """Breadth-first search, one level a loop: 3 registers, 1 graph head, 3 units.

    Input: [start] (1 for the source). Output: distance in edges. Graph "edges": 1 for an edge. After t loops, the nodes
    within t edges are reached, and the distance of all others is t.
    """
    layer = Layer(
        units=(
            Unit({ONE: 1, "reached": -1, "near": -1}, {"reached": -1}),  # reached <- 1 - relu(1 - reached - near)
            Unit({"reached": 1}, {"reached": -1, "distance": -1}),
            *clear("near"),
        ),
        heads=(Head(({"reached": 1},), ("near",), graph="edges"),),
        bias={"reached": 1, "distance": 1},
    )
    circuit = Circuit(("reached", "distance", "near"), (layer,))
    program = Program(circuit, ("start",), {"reached": {"start": 1}}, ({"distance": 1},), nodes, bits=0)
    sizes = {"reached": 1, "distance": nodes, "near": nodes}
    return Search(program, nodes, sizes, {"edges": 1}, infinity=nodes)


def breadth_first_input(graph: Graph, source: int) -> tuple[Array, dict[str, Array]]:
    """The input (1, nodes, 1) and the graphs of `breadth_first`."""
    return one_hot(graph, source), {"edges": graph.matrix()}


def bellman_ford(nodes: int, edges: int, largest: int, smallest: int = 0) -> Search:
    """Bellman-Ford with standard attention: a token is an edge from u to v of weight w. 9 registers, 2 heads, 4 units.

    The first tokens are edges of weight 0 from each node to itself. Every token holds in `d` the distance of v, and in
    `du` what was the distance of u a loop earlier. One head reads the distance of u, from any token whose v is u. The
    other reads the smallest du + w among the tokens with the same v, which is the new distance of v. Both act in
    every loop, so a distance crosses an edge in two loops. After 2k - 1 loops, d is the length of the shortest walk of
    at most k edges.

    Input: `bellman_ford_input`. Output: distance. Negative weights shift all stored distances, which must not be
    negative.

    Args:
        nodes, edges: of the graph, without the edges of weight 0.
        largest, smallest: bounds on the weights; smallest is at most 0.
    """
    shift = (nodes - 1) * -smallest
    start = (nodes - 1) * (largest - smallest) + shift + 1  # of nodes not reached; they sink by less than `shift`
    separation = start + largest - smallest + 1
    candidate = form((1, "du"), (1, "w"))
    best = Head(
        value=(candidate,),
        writes=("best",),
        query=({"v": 2 * separation}, {"one": 1}),
        key=({"v": 1}, form((-separation, "vv"), (-1, candidate))),
    )
    layer = Layer(
        units=(
            Unit({"read": 1}, {"du": 1, "read": -1}),
            Unit({"best": 1}, {"d": 1, "best": -1}),
            *clear("d", "du"),
        ),
        heads=(pointer({"u": 1}, {"d": "read"}, position="v", square="vv"), best),
    )
    circuit = Circuit(("one", "u", "v", "vv", "w", "d", "du", "read", "best"), (layer,))
    inputs = ("u", "v", "vv", "w", "from_v", "from_u")

    def distance(is_source: str) -> Form:
        return form((start, ONE), (shift - start, is_source))

    start_state = {"one": {ONE: 1}, "d": distance("from_v"), "du": distance("from_u")}
    program = Program(
        circuit, inputs, start_state | {name: {name: 1} for name in inputs[:4]}, ({"d": 1, ONE: -shift},),
        loops=max(1, 2 * nodes - 3), bits=0,
    )  # fmt: skip
    last = nodes - 1
    sizes = {"one": 1, "u": last, "v": last, "vv": last**2, "w": max(largest, -smallest)}
    sizes |= dict.fromkeys(("d", "du", "read", "best"), start)
    return Search(program, nodes + edges, sizes, infinity=(nodes - 1) * largest + 1)


def bellman_ford_input(graph: Graph, source: int) -> tuple[Array, dict[str, Array]]:
    """The input (1, nodes + edges, 6) of `bellman_ford`: u, v, v^2, w, [v is the source], [u is the source]."""
    edges = [(v, v, 0) for v in range(graph.nodes)] + [(u, v, w) for (u, v), w in graph.edges.items()]
    return np.array([[(u, v, v * v, w, v == source, u == source) for u, v, w in edges]], np.int64), {}


def dijkstra(nodes: int, largest: int) -> Search:
    """Dijkstra, two loops a node: 9 registers, 1 head, 1 graph head, 8 units.

    Loop A: the head reads the number s and the distance ds of the nearest node that is not done, ties by number. That
    node alone finds its own key there; it sets sel and done. Loop B: the head reads the selected node again. Graph head
    "near" writes infinity - w from s into its successors, which lower their distance to ds + w. No register holds the
    phase: a node that is done is not selected again, and without a selected node `near` is 0.

    Input: [start] (1 for the source). Output: distance, and the number of the node before (-1: none). Graph "near":
    infinity - w for an edge of weight w (see `dijkstra_input`).
    """
    infinity = (nodes - 1) * largest + 1
    size = nodes * (infinity + 1)  # above every n d + id
    key = form((nodes, "d"), (1, "id"))
    read = form((nodes, "ds"), (1, "s"))
    gain = form((1, "d"), (-1, "ds"), (1, "near"), (-infinity, ONE))
    units = (
        Unit(form((1, ONE), (1, read), (-1, key), (-size, "done")), {"sel": 1, "done": 1}),
        Unit(gain, {"d": -1}),
        *if_at_least(form((1, gain), (-1, ONE)), form((1, "s"), (-1, "parent")), nodes, {"parent": 1}),
        *clear("sel", "s", "ds", "near"),
    )
    heads = (
        first_not_done(form((-1, key)), size, {"s": {"id": 1}, "ds": {"d": 1}}, {"sel": 1}),
        Head(({"sel": 1},), ("near",), graph="near"),
    )
    circuit = Circuit(("one", "id", "d", "parent", "done", "sel", "s", "ds", "near"), (Layer(units, heads),))
    program = Program(
        circuit, ("start",),
        {"one": {ONE: 1}, "d": form((infinity, ONE), (-infinity, "start")), "parent": {ONE: -1}},
        ({"d": 1}, {"parent": 1}), 2 * nodes, bits=0, positions={"id": lambda position: position},
    )  # fmt: skip
    sizes = dict.fromkeys(("one", "done", "sel"), 1) | dict.fromkeys(("id", "parent", "s"), max(1, nodes - 1))
    near = max(infinity, largest)  # a graph of one node may have an edge to itself
    sizes |= {"d": infinity, "ds": infinity, "near": near}
    return Search(program, nodes, sizes, {"near": near}, infinity)


def dijkstra_input(graph: Graph, source: int, infinity: int) -> tuple[Array, dict[str, Array]]:
    """The input (1, nodes, 1) and the graphs of `dijkstra`, where `infinity` is that of the search."""
    return one_hot(graph, source), {"near": graph.matrix(lambda weight: infinity - weight)}


def first_not_done(priority: Form, span: int, reads: Mapping[str, Form], selected: Form) -> Head:
    """A head that reads the token of the highest priority that is not done; while a token is selected, it reads that.

    Args:
        priority: a form that differs from token to token, by less than `span`.
        reads: {register here: form there}.
        selected: a form that is 1 in the selected token, and 0 in others.
    """
    key = form((1, priority), (-span, "done"), (2 * span, selected))
    return Head(tuple(reads.values()), tuple(reads), query=({"one": 1},), key=(key,))


def one_hot(graph: Graph, node: int) -> Array:
    """(1, nodes, 1): 1 at the node."""
    return (np.arange(graph.nodes) == node).astype(np.int64)[None, :, None]
