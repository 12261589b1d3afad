"""Depth-first search and strongly connected components (Kosaraju) as looped transformers of one layer.

Depth-first search always goes on at the node, not yet done, whose latest visited predecessor is the latest of all; ties
by number. So it is Dijkstra with the priority "time of the latest visited predecessor", and needs no steps back: when
node s is visited at depth k, all nodes on the stack at depth k or below finish. The node at depth k finishes as number
(visited nodes) - k, because exactly its k ancestors are visited and not finished.
"""

from collections.abc import Mapping

import numpy as np

from looped.theory.arithmetic import Array, Number
from looped.theory.circuit import ONE, Circuit, Form, Head, Layer, Program, Unit, form
from looped.theory.graphs import Graph, Search, first_not_done
from looped.theory.idioms import add, clear, if_at_least, off_unless

SHARED = ("one", "id", "key", "height", "done", "read_key", "read_height", "near", "time", "finish")


def depth_first(nodes: int) -> Search:
    """Depth-first search with parents and finishing numbers: 14 registers, 1 head, 1 graph head, 14 units, 2n+1 loops.

    Loop A: the head reads the next node s, which sets sel and done; nodes on the stack from which s does not descend
    finish. Loop B: the head reads s again; the graph head marks the successors of s as near. Those that are not done
    take s as parent, the height (nodes - depth) below that of s, and the time as priority.

    Input: `depth_first_input`. Output: parent (-1: none) and finishing number (1, 2, ...).
    """
    selected = {"sel": 1}
    units = (
        _select(nodes, 1, selected),
        *_first_search(nodes, 1, selected),
        *add(form((1, "s"), (-1, "parent")), {"parent": 1}, signed=True, gate=_unless_open(nodes)),
        Unit({"visiting": 1}, {"time": 1, "visiting": -1}),
        *clear("sel", "s"),
    )
    heads = (
        _next_node(nodes, 1, selected, {"s": {"id": 1}, "visiting": selected}),
        Head((selected,), ("near",), graph="edges"),
    )
    circuit = Circuit((*SHARED, "sel", "s", "visiting", "parent"), (Layer(units, heads),))
    program = Program(
        circuit, ("key",), _start(nodes) | {"parent": {ONE: -1}}, ({"parent": 1}, {"finish": 1}), 2 * nodes + 1, bits=0,
        positions={"id": lambda position: position},
    )  # fmt: skip
    sizes = _sizes(nodes, 1) | {"sel": 1, "visiting": 1, "s": nodes, "parent": nodes}
    return Search(program, nodes, sizes, {"edges": 1})


def components(nodes: int) -> Search:
    """Strongly connected components by two searches (Kosaraju): 18 registers, 1 + 2 graph heads, 21 units, 4n loops.

    The second search follows edges backwards and tries roots by falling finishing number. Its trees are the components.
    If all nodes are done, the head reads one that is done and not selected, and tells it to all (`end`). In that loop
    the last nodes finish; a loop later all tokens start the second search.

    Input: `components_input`. Output: the number of the root of the node's component.
    """
    in_first, in_second = {"second": 1}, form((1, ONE), (-1, "second"))  # gates: 0 in one search, 1 in the other
    selected = {"forward": 1, "backward": 1}
    at_switch = form((1, "second"), (1, ONE), (-1, "ended"))  # 0 in the loop that starts the second search
    units = (
        _select(nodes, 2, {"forward": 1}, in_first),
        _select(nodes, 2, {"backward": 1}, in_second),
        *_first_search(nodes, 2, selected, in_first),
        *add(
            form((1, "root"), (-1, "component")), {"component": 1}, signed=True, gate=_unless_open(nodes, in_second)
        ),
        Unit({"visiting": 1}, {"time": 1, "visiting": -1}),
        Unit({"end": 1}, {"ended": 1, "end": -1}),
        Unit(form((1, "done"), (-1, at_switch)), {"done": -1}),
        Unit(form((1, ONE), (-1, at_switch)), {"second": 1}),
        Unit(form((1, "key"), (-1, "finish"), (-_span(nodes, 2), at_switch)), {"key": -1}),  # key <- finish
        *clear("forward", "backward", "root", "ended"),
    )  # fmt: skip
    reads = {"root": {"component": 1}, "visiting": selected, "end": form((1, "done"), (-1, selected))}
    heads = (
        _next_node(nodes, 2, selected, reads),
        Head(({"forward": 1},), ("near",), graph="edges"),
        Head(({"backward": 1},), ("near",), graph="reversed"),
    )
    names = (*SHARED, "forward", "backward", "root", "visiting", "component", "end", "ended", "second")
    number = {name: lambda position: position for name in ("id", "component")}
    program = Program(
        Circuit(names, (Layer(units, heads),)), ("key",), _start(nodes), ({"component": 1},), 4 * nodes, bits=0,
        positions=number,
    )  # fmt: skip
    sizes = _sizes(nodes, 2) | {"root": nodes, "component": nodes}
    sizes |= dict.fromkeys(("forward", "backward", "visiting", "end", "ended", "second"), 1)
    return Search(program, nodes, sizes, {"edges": 1, "reversed": 1})


def depth_first_input(graph: Graph, source: int | None = None) -> tuple[Array, dict[str, Array]]:
    """The input (1, nodes, 1) and the graphs of `depth_first`. Roots are tried by number, but `source` first.

    The input is the key of a node as a root, from nodes to 2 nodes.
    """
    keys = [2 * graph.nodes - (0 if node == source else 1 + node) for node in range(graph.nodes)]
    return np.array(keys, np.int64)[None, :, None], {"edges": graph.matrix()}


def components_input(graph: Graph) -> tuple[Array, dict[str, Array]]:
    """The input (1, nodes, 1) and the graphs of `components`."""
    keys, graphs = depth_first_input(graph)
    return keys, graphs | {"reversed": graphs["edges"].swapaxes(-1, -2)}


def _span(nodes: int, searches: int) -> int:
    """All keys are below it.

    In descending order: nodes (time + 3) - id of successors, where 0 <= time <= searches * nodes; `depth_first_input`
    of roots in the first search; finishing numbers of roots in the second search.
    """
    return nodes * (searches * nodes + 3)


def _next_node(nodes: int, searches: int, selected: Form, reads: Mapping[str, Form]) -> Head:
    """The head of all searches. At the end it reads a done node, with a height at least that of every node."""
    height = form((1, "height"), (nodes, "done"), (-nodes, selected))
    all_reads = {"read_key": {"key": 1}, "read_height": height, **reads}
    return first_not_done({"key": 1}, _span(nodes, searches), all_reads, selected)


def _select(nodes: int, searches: int, selected: Form, gate: Form | None = None) -> Unit:
    """The node whose key was read is selected, and done."""
    off = form((_span(nodes, searches), "done"), (_span(nodes, searches), gate or {}))
    return Unit(form((1, ONE), (1, "key"), (-1, "read_key"), (-1, off)), {**selected, "done": 1})


def _first_search(nodes: int, searches: int, selected: Form, gate: Form | None = None) -> list[Unit]:
    """Keys and heights of successors, finishing numbers, and clearing. The gate turns off heights."""
    key = form((nodes, "time"), (3 * nodes, ONE), (-1, "id"))
    below = form((1, "read_height"), (-1, ONE), (-1, "height"))
    not_above = form((1, "read_height"), (-1, "height"))
    number = form((1, "time"), (1, "height"), (-nodes, ONE))
    size = nodes * (2 * nodes + searches)
    finished = form((size, ONE), (-size, "done"), (size, "finish"), (size, selected))
    return [
        Unit(form((1, key), (-1, "key"), (-1, off_unless({"near": 1}, _span(nodes, searches)))), {"key": 1}),
        *add(below, {"height": 1}, signed=True, gate=_unless_open(nodes, gate)),
        *if_at_least(not_above, number, nodes, {"finish": 1}, signed=False, gate=finished),
        *clear("read_key", "read_height", "near"),
    ]


def _unless_open(nodes: int, gate: Form | None = None) -> dict[str, Number]:
    """A gate that is 0 for successors of the selected node that are not done."""
    return form((nodes, ONE), (-nodes, "near"), (nodes, "done"), (nodes, gate or {}))


def _start(nodes: int) -> dict[str, Form]:
    return {"one": {ONE: 1}, "key": {"key": 1}, "height": {ONE: nodes}}


def _sizes(nodes: int, searches: int) -> dict[str, int]:
    sizes = dict.fromkeys(("key", "read_key"), _span(nodes, searches))
    sizes |= {"height": nodes, "read_height": 2 * nodes, "time": searches * nodes}
    return sizes | {"one": 1, "id": nodes - 1, "done": 1, "near": 1, "finish": nodes}
