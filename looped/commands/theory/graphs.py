"""Graph algorithms written as weights, on a user's graph and on random ones (docs/constructions.md)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from tyro.conf import Positional

from looped.commands.output import Table, print_table, say
from looped.commands.theory.graph_files import NamedGraph, Weights, read_graph
from looped.commands.theory.results import write_result
from looped.lazy import torch
from looped.strict import nearest
from looped.theory import depth_first, graphs
from looped.theory.arithmetic import LIMITS, Array
from looped.theory.circuit import Graphs
from looped.theory.graphs import Graph, Search

if TYPE_CHECKING:
    import networkx

Algorithm = Literal["bfs", "dijkstra", "bellman-ford", "dfs", "scc"]
WEIGHTS: dict[str, Weights] = {"dijkstra": "at least 0", "bellman-ford": "any"}
COLUMNS = {
    "bfs": ("distance",), "dijkstra": ("distance", "before"), "bellman-ford": ("distance",),
    "dfs": ("parent", "finished as"), "scc": ("component of",),
}  # fmt: skip
SHOWN = 40
"""The largest number of nodes that are printed; figures have at most as many."""


def graph(
    algorithm: Positional[Algorithm],
    file: Positional[Path],
    source: str | None = None,
    undirected: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    out: Path | None = None,
) -> None:
    """Run a graph algorithm that is written as weights on any graph, and compare with networkx.

    Args:
        algorithm: bfs (breadth-first search), dijkstra, bellman-ford, dfs (depth-first search, with finishing numbers),
            or scc (strongly connected components).
        file: an edge list, with a line `a b weight` or `a b` for each edge, `a` for a node, and # before comments; or
            GraphML (.graphml) with the attribute weight. The lightest of parallel edges counts. Edges from a node to
            itself are allowed.
        source: the node to start from; the default is the first in the file.
        undirected: the edges of an edge list go both ways.
        out: folder for graph.json, timeline.svg (tokens by loop) and loops.svg (the graph at some loops).
    """
    import networkx

    named = read_graph(file, undirected=undirected, weights=WEIGHTS.get(algorithm, "ignored"))
    start = _source(named, algorithm, source)
    search = search_for(algorithm, named.graph)
    _check_size(file, search)
    try:
        wanted = oracle(algorithm, named.graph, start)
    except networkx.NetworkXUnbounded:
        raise ValueError(f"{file}: has a cycle of negative weight that the source reaches; expected none") from None
    cost, edges = search.program.circuit.cost(), len(named.graph.edges)
    say(
        f"one layer: registers {cost.registers}, heads {cost.heads} + {cost.graph_heads} of a graph, head size "
        f"{cost.head_size}, units {cost.units}, nonzero weights {cost.non_zeros}"
    )
    say(
        f"nodes {named.graph.nodes:,}, edges {edges:,} ({named.parallel:,} parallel ones left out), "
        f"loops at most {search.program.loops:,}, numbers up to {search.largest_number():,}"
    )
    inputs, matrices = inputs_for(algorithm, named.graph, start, search)
    small = named.graph.nodes <= SHOWN
    began = time.perf_counter()
    run = run_model(search, inputs, matrices, loop_states=small and out is not None)
    seconds = time.perf_counter() - began
    rows = answers(algorithm, named.graph.nodes, run.output[0], search)
    right = sum(agrees(algorithm, named.graph, rows, wanted, node) for node in range(named.graph.nodes))
    _print(named, algorithm, rows, None if start is None else named.names[start])
    say(
        f"{run.loops:,} loops, {seconds:.2f} s in float64; "
        f"networkx gives the same for {right:,} of {named.graph.nodes:,} nodes"
    )
    if out:
        facts = {
            "algorithm": algorithm, "file": file.name, "source": None if start is None else named.names[start],
            "nodes": named.graph.nodes, "edges": edges, "parallel": named.parallel, "right": right,
            "loops": run.loops, "most_loops": search.program.loops, "seconds": round(seconds, 3),
            "largest_number": search.largest_number(), "cost": cost._asdict(),
            "rows": [{"node": name, **dict(zip(COLUMNS[algorithm], _named(algorithm, row, named.names), strict=True))}
                     for name, row in zip(named.names, rows, strict=True)],
        }  # fmt: skip
        write_result(out, "graph.json", facts)
        if run.states is not None:
            from looped.report import graph_figures

            stages = stages_of(algorithm, search, run.states[:, 0, : named.graph.nodes])
            labels = graph_figures.STAGES[algorithm]
            write_result(out, "timeline.svg", graph_figures.timeline(named.names, stages, labels))
            drawn = networkx.kamada_kawai_layout(networkx.Graph(_networkx(named.graph).edges))
            places = [drawn.get(node, (node / SHOWN - 0.5, -1.15)) for node in range(named.graph.nodes)]
            figure = graph_figures.loops(named.names, np.array(places), list(named.graph.edges), stages, labels)
            write_result(out, "loops.svg", figure)
        else:
            say(f"no figures: expected at most {SHOWN} nodes")


def search_for(algorithm: str, graph: Graph) -> Search:
    """The program of an algorithm for a graph and all smaller ones."""
    largest, smallest = max(graph.edges.values(), default=0), min(graph.edges.values(), default=0)
    match algorithm:
        case "bfs":
            return graphs.breadth_first(graph.nodes)
        case "dijkstra":
            return graphs.dijkstra(graph.nodes, largest)
        case "bellman-ford":
            return graphs.bellman_ford(graph.nodes, len(graph.edges), max(largest, 0), min(smallest, 0))
        case "dfs":
            return depth_first.depth_first(graph.nodes)
        case _:
            return depth_first.components(graph.nodes)


def inputs_for(algorithm: str, graph: Graph, source: int | None, search: Search) -> tuple[Array, Graphs]:
    """The input (1, tokens, inputs) and the matrices of an algorithm."""
    match algorithm, source:
        case "bfs", int():
            return graphs.breadth_first_input(graph, source)
        case "dijkstra", int():
            return graphs.dijkstra_input(graph, source, search.infinity)
        case "bellman-ford", int():
            return graphs.bellman_ford_input(graph, source)
        case "dfs", _:
            return depth_first.depth_first_input(graph, source)
        case _:
            return depth_first.components_input(graph)


class ModelRun(NamedTuple):
    """The result of the program's `LoopedTransformer` in float64."""

    output: Array
    """(1, tokens, outputs)"""
    loops: int
    """The loops until nothing changed any more, or all."""
    states: Array | None
    """(loops, 1, tokens, registers)"""


def run_model(
    search: Search,
    inputs: Array,
    matrices: Graphs,
    *,
    loop_states: bool = False,
    inverse_temperature: float | None = None,
) -> ModelRun:
    """Run the model until a loop changes nothing: the state holds everything, so later loops would change nothing.

    inverse_temperature: softmax with this factor instead of hardmax.
    """
    from looped.models import StateChange
    from looped.theory.weights import write

    model = write(search.program, inputs.shape[1], inverse_temperature=inverse_temperature)
    given = {name: torch.from_numpy(matrix).double() for name, matrix in matrices.items()}
    stop = StateChange(threshold=1e-30)
    with torch.no_grad():
        result = model(torch.from_numpy(inputs).double(), graphs=given, exit_rule=stop, loop_states=loop_states)
    taken = int(result.loops_taken.max())
    states = None if result.loop_states is None else result.loop_states[:taken].numpy()
    return ModelRun(result.logits.numpy(), taken, states)


Answer = tuple[int | None, ...]


def answers(algorithm: str, nodes: int, output: Array, search: Search) -> list[Answer]:
    """For each node what `COLUMNS` names; None is no distance or no node."""
    rows = [tuple(int(value) for value in row) for row in output[:nodes]]
    if algorithm in ("dfs", "scc"):
        return [(None if row[0] < 0 else row[0], *row[1:]) for row in rows]
    found = [row if row[0] < search.infinity else (None, *row[1:]) for row in rows]
    return [(row[0], *(None if before < 0 else before for before in row[1:])) for row in found]


def oracle(algorithm: str, graph: Graph, source: int | None) -> dict[int, Any]:
    """The result of networkx: distances, (parent, finishing number), or components, by node.

    Raises:
        networkx.NetworkXUnbounded: a cycle of negative weight can be reached from the source.
    """
    import networkx

    known = _networkx(graph, source)
    match algorithm, source:
        case "bfs", int():
            return dict(networkx.single_source_shortest_path_length(known, source))
        case "dijkstra", int():
            return dict(networkx.single_source_dijkstra_path_length(known, source))
        case "bellman-ford", int():
            return dict(networkx.single_source_bellman_ford_path_length(known, source))
        case "dfs", _:
            walked = [(u, v) for u, v, kind in networkx.dfs_labeled_edges(known) if kind == "forward"]
            parents = {v: None if u == v else u for u, v in walked}
            post = enumerate(networkx.dfs_postorder_nodes(known), 1)
            return {node: (parents[node], number) for number, node in post}
        case _:
            return {node: part for part in networkx.strongly_connected_components(known) for node in part}


def agrees(algorithm: str, graph: Graph, rows: Sequence[Answer], wanted: dict[int, Any], node: int) -> bool:
    """Whether the answer for a node is that of networkx. Any of several shortest ways is right."""
    row = rows[node]
    if algorithm == "dfs":
        return row == wanted[node]
    if algorithm == "scc":
        return {other for other, (root,) in enumerate(rows) if root == row[0]} == wanted[node]
    distance, *before_it = row
    if distance != wanted.get(node):
        return False
    if not before_it:
        return True
    (before,) = before_it
    if before is None:
        return distance in (None, 0)
    edge = graph.edges.get((before, node))
    return before in wanted and edge is not None and wanted[before] + edge == wanted[node]


def stages_of(algorithm: str, search: Search, states: Array) -> Array:
    """(nodes, loops) the stage of each node after each loop, a place in `graph_figures.STAGES`."""
    names = search.program.circuit.registers
    value = {name: states[..., column].T for column, name in enumerate(names)}
    if algorithm == "bfs":
        return value["reached"]
    if algorithm == "dijkstra":
        return np.where(value["done"] == 1, 2, value["d"] < search.infinity)
    if algorithm == "bellman-ford":
        shift = -search.program.output_map[0].get("1", 0)
        distance = value["d"] - shift
        settled = np.logical_and.accumulate((distance == distance[:, -1:])[:, ::-1], axis=1)[:, ::-1]
        return np.where(distance >= search.infinity, 0, np.where(settled, 2, 1))
    stage = value["done"] + (value["finish"] > 0)
    if algorithm == "dfs":
        return stage
    knows = (value["done"] == 1) | (value["component"] != value["id"])
    return np.where(value["second"] == 1, 2 + knows, stage)


def _networkx(graph: Graph, first: int | None = None) -> networkx.DiGraph:
    """The graph with nodes, roots and neighbours in ascending order, but `first` as the first root."""
    import networkx

    known = networkx.DiGraph()
    known.add_nodes_from(sorted(range(graph.nodes), key=lambda node: (node != first, node)))
    known.add_weighted_edges_from((u, v, weight) for (u, v), weight in sorted(graph.edges.items()))
    return known


def _source(named: NamedGraph, algorithm: str, source: str | None) -> int | None:
    if algorithm == "scc":
        if source is not None:
            raise ValueError(f"source={source!r}: has no effect on scc; expected none")
        return None
    if source is None:
        return 0
    if source not in named.names:
        raise ValueError(f"source={source!r}: no such node{nearest(source, named.names)}; expected one of the file")
    return named.names.index(source)


def _check_size(file: Path, search: Search) -> None:
    """Raises ValueError if matrices exceed the memory, or numbers the exact range of float64."""
    from looped.models.memory import check_memory

    cost = search.program.circuit.cost()
    matrices = 4 * max(cost.heads, 1) + 3 * cost.graph_heads
    check_memory(f"{file}: {search.tokens:,} tokens", 8 * matrices * search.tokens**2, torch.device("cpu"))
    if (largest := search.largest_number()) >= LIMITS["float64"]:
        raise ValueError(
            f"{file}: numbers up to {largest:.2g}; expected fewer nodes or smaller weights, because float64 holds all "
            f"whole numbers below {LIMITS['float64']:.2g} only"
        )


def _named(algorithm: str, row: Answer, names: Sequence[str]) -> list[str | int | None]:
    """The answer with names of nodes in the columns that have some."""
    are_nodes = [column in ("before", "parent", "component of") for column in COLUMNS[algorithm]]
    return [names[x] if is_node and x is not None else x for x, is_node in zip(row, are_nodes, strict=True)]


def _print(named: NamedGraph, algorithm: str, rows: Sequence[Answer], source: str | None) -> None:
    title = f"{algorithm} from {source}" if source else algorithm
    table = Table("node", *COLUMNS[algorithm], title=title)
    for name, row in list(zip(named.names, rows, strict=True))[:SHOWN]:
        table.add_row(name, *("-" if cell is None else str(cell) for cell in _named(algorithm, row, named.names)))
    if len(rows) > SHOWN:
        table.caption = f"the first {SHOWN} of {len(rows):,} nodes; --out writes all"
    print_table(table)
