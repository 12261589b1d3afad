"""Graph algorithms as weights: after every loop against plain programs, at the end against networkx."""

import bisect
import itertools
from collections.abc import Iterator

import networkx
import numpy as np
import pytest
import torch

from looped.theory import depth_first, graphs
from looped.theory.arithmetic import LIMITS, Array
from looped.theory.circuit import Graphs
from looped.theory.graphs import Graph, Search
from looped.theory.weights import write

SPECIAL = [
    Graph.of(1, []),
    Graph.of(1, [(0, 0, 3)]),
    Graph.of(6, []),
    Graph.of(6, [(u, v, 1 + (u * 5 + v * 3) % 7) for u, v in itertools.product(range(6), repeat=2)]),  # complete
    Graph.of(6, [(0, 1, 4), (1, 2, 0), (0, 2, 4), (3, 4, 1), (4, 3, 1), (4, 4, 0)]),  # two parts
    Graph.of(6, [(u, u + 1, 10) for u in range(5)] + [(5, 0, 10)]),  # a cycle
]
NAMES = ["bfs", "dijkstra", "bellman-ford", "dfs", "scc"]


def random_graphs(count: int) -> list[Graph]:
    rng = np.random.default_rng(1)
    found = []
    for i in range(count):
        nodes, density = int(rng.choice([2, 3, 5, 8, 13])), (0.05, 0.15, 0.4)[i % 3]
        pairs = [(u, v) for u in range(nodes) for v in range(nodes) if rng.random() < density]
        found.append(Graph.of(nodes, [(u, v, int(rng.integers(0, 100))) for u, v in pairs]))
    return found


GRAPHS = SPECIAL + random_graphs(100)


def batched(name: str, some: list[Graph]) -> tuple[Search, Array, Graphs]:
    """One program for graphs of equal size, with the inputs and matrices of all."""
    n = some[0].nodes
    weights = [0, *(w for graph in some for w in graph.edges.values())]
    match name:
        case "bfs":
            built, encoded = graphs.breadth_first(n), [graphs.breadth_first_input(graph, 0) for graph in some]
        case "dijkstra":
            built = graphs.dijkstra(n, max(weights))
            encoded = [graphs.dijkstra_input(graph, 0, built.infinity) for graph in some]
        case "bellman-ford":
            edges = max(len(graph.edges) for graph in some)
            built = graphs.bellman_ford(n, edges, max(weights), min(weights))
            encoded = [graphs.bellman_ford_input(graph, 0) for graph in some]
            # A token more often changes nothing.
            missing = [n + edges - tokens.shape[1] for tokens, _ in encoded]
            encoded = [
                (np.concatenate([t, t[:, :1].repeat(m, 1)], 1), {}) for (t, _), m in zip(encoded, missing, strict=True)
            ]
        case "dfs":
            built, encoded = depth_first.depth_first(n), [depth_first.depth_first_input(graph) for graph in some]
        case _:
            built, encoded = depth_first.components(n), [depth_first.components_input(graph) for graph in some]
    inputs, matrices = zip(*encoded, strict=True)
    return built, np.concatenate(inputs), {key: np.concatenate([m[key] for m in matrices]) for key in matrices[0]}


def groups(some: list[Graph]) -> list[list[Graph]]:
    ordered = sorted(some, key=lambda graph: graph.nodes)
    return [list(group) for _, group in itertools.groupby(ordered, key=lambda graph: graph.nodes)]


Registers = dict[str, list[int]]


def runs(name: str, some: list[Graph] = GRAPHS) -> Iterator[tuple[Graph, Search, list[Registers]]]:
    """For each graph the registers of its nodes after each loop, in int64."""
    for group in groups(some):
        built, inputs, matrices = batched(name, group)
        names = built.program.circuit.registers
        states = np.stack(list(built.program.states(inputs, graphs=matrices)))
        assert (np.abs(states).max(axis=(0, 1, 2)) <= [built.sizes[name] for name in names]).all()
        for i, graph in enumerate(group):
            loops = states[:, i, : graph.nodes].swapaxes(1, 2).tolist()
            yield graph, built, [dict(zip(names, state, strict=True)) for state in loops]


def known(graph: Graph) -> networkx.DiGraph:
    found = networkx.DiGraph()
    found.add_nodes_from(range(graph.nodes))
    found.add_weighted_edges_from((u, v, w) for (u, v), w in sorted(graph.edges.items()))
    return found


def test_breadth_first_search_reaches_one_level_in_a_loop():
    for graph, _, loops in runs("bfs"):
        levels, frontier = {0: 0}, {0}
        for loop, state in enumerate(loops, 1):
            frontier = {v for u, v in graph.edges if u in frontier and v not in levels}
            levels |= dict.fromkeys(frontier, loop)
            assert state["distance"] == [levels.get(v, loop) for v in range(graph.nodes)]
            assert state["reached"] == [int(v in levels) for v in range(graph.nodes)]
        assert levels == networkx.single_source_shortest_path_length(known(graph), 0)


def test_dijkstra_after_every_loop():
    for graph, built, loops in runs("dijkstra"):
        infinity = built.infinity
        distance, parent, done = {0: 0}, {}, set()
        near = None
        for loop, state in enumerate(loops):
            if loop % 2 == 0:
                order = [(distance.get(v, infinity), v) for v in range(graph.nodes) if v not in done]
                near = min(order)[1]
                done.add(near)
            else:
                for (u, v), weight in graph.edges.items():
                    if u == near and u in distance and distance[u] + weight < distance.get(v, infinity):
                        distance[v], parent[v] = distance[u] + weight, u
            assert state["d"] == [distance.get(v, infinity) for v in range(graph.nodes)]
            assert state["parent"] == [parent.get(v, -1) for v in range(graph.nodes)]
            assert {v for v in range(graph.nodes) if state["done"][v]} == done
        assert distance == networkx.single_source_dijkstra_path_length(known(graph), 0)


def with_negative_weights(graph: Graph) -> Graph:
    """Weights w(u, v) + h(u) - h(v): lengths of cycles are as before."""
    return Graph(graph.nodes, {(u, v): w + u * u % 31 - v * v % 31 for (u, v), w in graph.edges.items()})


@pytest.mark.parametrize("negative", [False, True])
def test_bellman_ford_after_every_loop(negative):
    smallest = 0
    some = list(map(with_negative_weights, GRAPHS)) if negative else GRAPHS
    for graph, built, loops in runs("bellman-ford", some):
        smallest = min(smallest, *graph.edges.values(), 0)
        distance = {0: 0}
        for loop, state in enumerate(loops, 1):
            if loop % 2:
                ways = [(v, distance[u] + w) for (u, v), w in graph.edges.items() if u in distance]
                for v, way in ways:
                    distance[v] = min(distance.get(v, way), way)
            shift = -built.program.output_map[0].get("1", 0)
            found = [d - shift if d - shift < built.infinity else None for d in state["d"]]
            assert found == [distance.get(v) for v in range(graph.nodes)]
        assert distance == networkx.single_source_bellman_ford_path_length(known(graph), 0)
    assert (smallest < -10) == negative


def walk(successors: list[list[int]], roots: list[int]) -> Iterator[tuple[list[int], list[int], dict[int, int]]]:
    """The stack, the finished nodes and the parents of a recursive search, after each visit and at the end."""
    visited: set[int] = set()
    stack: list[int] = []
    finished: list[int] = []
    parents: dict[int, int] = {}

    def visit(node: int) -> Iterator[tuple[list[int], list[int], dict[int, int]]]:
        visited.add(node)
        stack.append(node)
        yield stack, finished, parents
        for child in successors[node]:
            if child not in visited:
                parents[child] = node
                yield from visit(child)
        finished.append(stack.pop())

    for root in roots:
        if root not in visited:
            yield from visit(root)
    yield stack, finished, parents


def neighbours(graph: Graph, backwards: bool = False) -> list[list[int]]:
    edges = [(v, u) if backwards else (u, v) for u, v in graph.edges]
    return [sorted(v for start, v in edges if start == u) for u in range(graph.nodes)]


def check_stack(state: dict[str, list[int]], stack: list[int], finished: list[int]) -> None:
    nodes = range(len(state["id"]))
    found = sorted((v for v in nodes if state["done"][v] and not state["finish"][v]), key=lambda v: -state["height"][v])
    assert found == stack
    assert sorted((v for v in nodes if state["finish"][v]), key=lambda v: state["finish"][v]) == finished
    assert [state["finish"][v] for v in finished] == list(range(1, len(finished) + 1))


def test_depth_first_search_has_the_same_stack_after_every_visit():
    for graph, _, loops in runs("dfs"):
        steps = walk(neighbours(graph), list(range(graph.nodes)))
        for state, (stack, finished, parents) in zip(loops[::2], steps, strict=True):
            check_stack(state, stack, finished)
            assert all(state["parent"][v] == parents.get(v, -1) for v in stack + finished)
        expected = networkx.dfs_postorder_nodes(known(graph))
        assert sorted(range(graph.nodes), key=lambda v: state["finish"][v]) == list(expected)
    assert max(len(graph.edges) for graph in GRAPHS) > 50


def test_components_after_every_visit():
    for graph, _, loops in runs("scc"):
        n = graph.nodes
        assert len(loops) == 4 * n
        first = walk(neighbours(graph), list(range(n)))
        finished: list[int] = []
        for state, (stack, finished, _) in zip(loops[: 2 * n + 1 : 2], first, strict=True):
            check_stack(state, stack, finished)
        roots = finished[::-1]
        second = walk(neighbours(graph, backwards=True), roots)
        for state, (stack, finished, _) in zip(loops[2 * n + 2 :: 2], second, strict=False):
            visited = {*stack, *finished}
            assert {v for v in range(n) if state["done"][v]} == visited
            assert len({state["component"][v] for v in stack}) == 1
        last = loops[-1]["component"]
        parts = {frozenset(v for v in range(n) if last[v] == root) for root in last}
        assert parts == set(map(frozenset, networkx.strongly_connected_components(known(graph))))


@pytest.mark.parametrize("name", NAMES)
def test_a_program_for_more_nodes_is_right_too(name):
    for graph in GRAPHS[:12]:
        n = graph.nodes
        isolated = Graph(n + 3, {**graph.edges, (n, n): 100})  # the sizes come from a larger graph
        built, inputs, matrices = batched(name, [graph])
        larger = batched(name, [isolated])[0]
        found = built.program.run(inputs, graphs=matrices)[0, :n]
        if name == "dijkstra":
            inputs, matrices = graphs.dijkstra_input(graph, 0, larger.infinity)
        again = larger.program.run(inputs, graphs=matrices)[0, :n]
        if built.infinity:
            found, again = np.where(found < built.infinity, found, -2), np.where(again < larger.infinity, again, -2)
        assert (found == again).all()


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_the_model_has_the_same_state_after_every_loop_and_more_loops_change_nothing(name):
    for group in groups(GRAPHS[:30]):
        built, inputs, matrices = batched(name, group)
        model = write(built.program, inputs.shape[1])
        given = {key: torch.from_numpy(matrix) for key, matrix in matrices.items()}
        loops = built.program.loops
        output = model(torch.from_numpy(inputs).double(), graphs=given, num_loops=loops + 5, loop_states=True)
        assert output.loop_states.dtype == torch.float64
        states = built.program.states(inputs, graphs=matrices, loops=loops + 5)
        assert (np.stack(list(states)) == output.loop_states.numpy()).all()
        most = built.infinity or group[0].nodes  # breadth-first search counts on where it does not arrive
        early, late = (built.program.output(output.loop_states[loop].numpy()) for loop in (loops - 1, -1))
        assert (np.minimum(early, most) == np.minimum(late, most)).all()


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES[1:])
def test_sharp_softmax_gives_the_same(name):
    group = [graph for graph in GRAPHS if graph.nodes == 8][:4]
    built, inputs, matrices = batched(name, group)
    given = {key: torch.from_numpy(matrix) for key, matrix in matrices.items()}
    exact = built.program.run(inputs, graphs=matrices)
    for inverse_temperature in (48.0, 0.01):
        model = write(built.program, inputs.shape[1], inverse_temperature=inverse_temperature)
        output = model(torch.from_numpy(inputs).double(), graphs=given).logits.numpy()
        assert (np.rint(output) == exact).all() == (inverse_temperature > 1)


def test_sizes():
    """The counts of docs/constructions.md: registers, layers, heads, graph heads, head size, units, nonzero weights."""
    found = {name: tuple(batched(name, SPECIAL[3:4])[0].program.circuit.cost()) for name in NAMES}
    assert found == {
        "bfs": (3, 1, 0, 1, 1, 3, 13),
        "dijkstra": (9, 1, 1, 1, 2, 8, 44),
        "bellman-ford": (9, 1, 2, 0, 2, 4, 25),
        "dfs": (14, 1, 1, 1, 4, 14, 80),
        "scc": (18, 1, 1, 2, 5, 21, 124),
    }
    loops = {name: batched(name, SPECIAL[3:4])[0].program.loops for name in NAMES}
    assert loops == {"bfs": 6, "dijkstra": 12, "bellman-ford": 9, "dfs": 13, "scc": 24}


@pytest.mark.parametrize("name", ["dijkstra", "bellman-ford"])
def test_weights_up_to_the_limit_are_exact_in_float32(name):
    def weighted(largest: int) -> Graph:
        return Graph.of(8, [(u, v, largest - (u * v) % 5) for u in range(8) for v in (u + 1, u // 2) if v < 8])

    def bound(largest: int) -> int:
        return batched(name, [weighted(largest)])[0].largest_number()

    largest = bisect.bisect_left(range(2**20), LIMITS["float32"], key=bound) - 1
    assert bound(largest) < LIMITS["float32"] <= bound(largest + 1)
    built, inputs, matrices = batched(name, [weighted(largest)])
    exact = built.program.run(inputs, graphs=matrices)
    assert 6 * largest < exact[..., 0].max() < built.infinity  # a long way
    result = built.program.run(inputs, graphs=matrices, dtype=np.float32)
    assert result.dtype == np.float32
    assert (result == exact).all()
    built, inputs, matrices = batched(name, [weighted(30 * largest)])
    with pytest.raises(ValueError, match="float32 does not hold"):
        built.program.run(inputs, graphs=matrices, dtype=np.float32)
