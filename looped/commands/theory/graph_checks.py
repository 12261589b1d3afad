"""The graph algorithms on random graphs, and the largest weights that floats hold exactly."""

import bisect
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from looped.commands.output import Table, print_table
from looped.commands.theory.graphs import agrees, answers, inputs_for, oracle, run_model, search_for
from looped.commands.theory.results import write_result
from looped.strict import at_least
from looped.theory.arithmetic import LIMITS, Array
from looped.theory.depth_first import components, depth_first
from looped.theory.graphs import Graph, Search, bellman_ford, breadth_first, dijkstra

NODES = (2, 3, 5, 8, 16, 32, 64)
DENSITIES = (0.05, 0.15, 0.4)
CASES: dict[str, tuple[tuple[int, ...], tuple[float | str, ...]]] = {
    "bfs": (NODES, DENSITIES),
    "dijkstra": (NODES, DENSITIES),
    "bellman-ford": (NODES[:-1], DENSITIES),
    "dfs": (NODES, DENSITIES),
    "scc": (NODES, (0.03, 0.1, 0.2, "1.5/n")),
}
"""Numbers of nodes and densities of the random graphs. Bellman-Ford has a token for each edge."""
LARGEST_WEIGHT = 100
INVERSE_TEMPERATURES = (8, 12, 16, 24, 48)
SOFT_GRAPHS = 20


def graphs(count: int = 36, seed: int = 0, out: Path | None = None) -> None:
    """Check every graph algorithm on random graphs against networkx, and print the largest exact weights.

    Args:
        count: random graphs for each algorithm, number of nodes (2 to 64) and density.
        seed: of the random graphs.
        out: folder for graphs.json and limits.svg.
    """
    at_least(1, count=count)
    at_least(0, seed=seed)
    rows = [check(algorithm, count, seed) for algorithm in CASES]
    columns = {
        "algorithm": "algorithm", "graphs": "graphs", "nodes": "nodes", "wrong": "wrong", "mean_loops": "loops (mean)",
        "mean_loops_taken": "until nothing changes", "seconds_int64": "CPU s, int64",
        "seconds_model": "CPU s, model in float64",
    }  # fmt: skip
    table = Table(*columns.values(), title="random graphs against networkx, in whole numbers and as a model")
    for row in rows:
        table.add_row(*(str(row[key]) for key in columns))
    print_table(table)
    weights = largest_weights()
    kinds = list(dict.fromkeys((row["algorithm"], row["dtype"]) for row in weights))
    table = Table("nodes", *(f"{a}, {d}" for a, d in kinds), title="largest weight that is certainly exact")
    for n in dict.fromkeys(row["nodes"] for row in weights):
        table.add_row(f"{n:,}", *(f"{row['weight']:,}" for row in weights if row["nodes"] == n))
    print_table(table)
    soft = [at_softmax(algorithm, seed) for algorithm in CASES if algorithm != "bfs"]
    title = f"softmax: graphs of 32 nodes that are right, of {SOFT_GRAPHS}, by inverse temperature"
    table = Table("algorithm", *map(str, INVERSE_TEMPERATURES), title=title)
    for row in soft:
        table.add_row(row["algorithm"], *map(str, row["right"]))
    print_table(table)
    sizes = largest_sizes()
    for row in sizes:
        print(f"{row['algorithm']} is certainly exact in {row['dtype']} up to {row['nodes']:,} nodes")
    if out:
        from looped.report import graph_figures

        facts = {"count": count, "seed": seed, "rows": rows, "weights": weights, "sizes": sizes, "softmax": soft}
        write_result(out, "graphs.json", facts)
        write_result(out, "limits.svg", graph_figures.limits(weights))


def check(algorithm: str, count: int, seed: int) -> dict[str, Any]:
    """One row: how many graphs were wrong, and the loops and seconds of the processor that they took."""
    rng = np.random.default_rng(seed)
    nodes, densities = CASES[algorithm]
    seconds, wrong, loops, taken = [0.0, 0.0], 0, [], []
    for graph in random_graphs(rng, product(nodes, densities, range(count)), negative=algorithm == "bellman-ford"):
        source = None if algorithm == "scc" else 0
        search = search_for(algorithm, graph)
        inputs, matrices = inputs_for(algorithm, graph, source, search)
        began = time.process_time()
        whole = search.program.run(inputs, graphs=matrices)
        between = time.process_time()
        model = run_model(search, inputs, matrices)
        seconds = [seconds[0] + between - began, seconds[1] + time.process_time() - between]
        wrong += not (is_right(algorithm, graph, source, search, whole) and (model.output == whole).all())
        loops.append(search.program.loops)
        taken.append(model.loops)
    return {
        "algorithm": algorithm, "graphs": len(loops), "nodes": f"{nodes[0]} to {nodes[-1]}",
        "densities": list(densities), "wrong": wrong, "loops": f"{min(loops)} to {max(loops)}",
        "mean_loops": round(float(np.mean(loops)), 1), "mean_loops_taken": round(float(np.mean(taken)), 1),
        "seconds_int64": round(seconds[0], 1), "seconds_model": round(seconds[1], 1),
    }  # fmt: skip


def is_right(algorithm: str, graph: Graph, source: int | None, search: Search, output: Array) -> bool:
    """Whether the output (1, tokens, outputs) is what networkx computes."""
    rows, wanted = answers(algorithm, graph.nodes, output[0], search), oracle(algorithm, graph, source)
    return all(agrees(algorithm, graph, rows, wanted, node) for node in range(graph.nodes))


def at_softmax(algorithm: str, seed: int) -> dict[str, Any]:
    """How many graphs of 32 nodes are right with softmax instead of hardmax, if the outputs are rounded at the end."""
    right = []
    for inverse_temperature in INVERSE_TEMPERATURES:
        cases = product((32,), (0.15,), range(SOFT_GRAPHS))
        found = 0
        for graph in random_graphs(np.random.default_rng(seed), cases, negative=algorithm == "bellman-ford"):
            source, search = None if algorithm == "scc" else 0, search_for(algorithm, graph)
            given = inputs_for(algorithm, graph, source, search)
            output = run_model(search, *given, inverse_temperature=float(inverse_temperature)).output
            found += bool(np.isfinite(output).all()) and is_right(algorithm, graph, source, search, np.rint(output))
        right.append(found)
    return {
        "algorithm": algorithm, "nodes": 32, "graphs": SOFT_GRAPHS, "inverse_temperatures": list(INVERSE_TEMPERATURES),
        "right": right,
    }  # fmt: skip


def random_graphs(
    rng: np.random.Generator, cases: Iterator[tuple[int, float | str, int]], *, negative: bool
) -> Iterator[Graph]:
    """Directed graphs, with edges from nodes to themselves and weights from 0 to 100.

    negative: every second has negative weights, but no cycle of negative length: w(u, v) + h(u) - h(v).
    """
    for n, density, number in cases:
        chance = 1.5 / n if isinstance(density, str) else density
        height = rng.integers(0, LARGEST_WEIGHT, n) * (negative and number % 2)
        edges = [
            (u, v, int(rng.integers(0, LARGEST_WEIGHT + 1) + height[u] - height[v]))
            for u, v in np.argwhere(rng.random((n, n)) < chance).tolist()
        ]
        yield Graph.of(n, edges)


def largest_weights() -> list[dict[str, Any]]:
    """For each number of nodes the largest weight for which no number leaves the exact range; 0 is none."""
    searches = {
        "dijkstra": lambda nodes, weight: dijkstra(nodes, weight),
        "bellman-ford": lambda nodes, weight: bellman_ford(nodes, nodes * (nodes - 1), weight),
    }
    return [
        {
            "algorithm": name, "dtype": dtype, "nodes": nodes,
            "weight": max(0, _largest(dtype, lambda w, n=nodes, s=search: s(n, w).largest_number())),
        }
        for name, search in searches.items()
        for dtype in ("float32", "float64")
        for nodes in (2**k for k in range(1, 15))
    ]  # fmt: skip


def largest_sizes() -> list[dict[str, Any]]:
    """The largest number of nodes for the searches whose numbers depend on nothing else."""
    searches = {"bfs": breadth_first, "dfs": depth_first, "scc": components}
    return [
        {"algorithm": name, "dtype": dtype, "nodes": _largest(dtype, lambda n, s=search: s(n + 1).largest_number()) + 1}
        for name, search in searches.items()
        for dtype in ("float32", "float64")
    ]


def _largest(dtype: str, number: Any) -> int:
    """The largest argument from 0 to 2^53 whose number is below the limit of the type; -1 is none."""
    return bisect.bisect_left(range(2**53), LIMITS[dtype], key=number) - 1
