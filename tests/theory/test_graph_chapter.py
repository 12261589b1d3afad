"""The numbers of docs/constructions.md on graphs are those of the programs and of the stored files."""

import json
import re
from pathlib import Path

from looped.commands.theory import COMMANDS
from looped.theory import depth_first, graphs

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/constructions.md").read_text()
CHAPTER = PAGE[PAGE.index("\n## 4. Graphs") : PAGE.index("\n## 5. ")]
RESULTS = ROOT / "results/constructions/graphs"


def stored(name: str) -> dict:
    return json.loads((RESULTS / name).read_text())


def test_sizes():
    n = 10
    searches = {
        "breadth-first search": (graphs.breadth_first(n), "n", n),
        "Bellman-Ford": (graphs.bellman_ford(n, 30, 9), "2n - 3", 2 * n - 3),
        "Dijkstra, with the node before": (graphs.dijkstra(n, 9), "2n", 2 * n),
        "depth-first search, with parents and finishing numbers": (depth_first.depth_first(n), "2n + 1", 2 * n + 1),
        "strongly connected components": (depth_first.components(n), "4n", 4 * n),
    }
    for name, (search, formula, loops) in searches.items():
        cost = search.program.circuit.cost()
        assert (cost.layers, search.program.loops) == (1, loops)
        heads = f"{cost.heads} + {cost.graph_heads} | {cost.head_size}"
        assert f"| {name} | {cost.registers} | {heads} | {cost.units} | {cost.non_zeros} | {formula} |" in CHAPTER


def test_random_graphs():
    facts = stored("graphs.json")
    wanted = {"bfs": 750, "dijkstra": 750, "bellman-ford": 400, "dfs": 750, "scc": 1000}
    for row in facts["rows"]:
        assert row["wrong"] == 0
        assert row["graphs"] >= wanted.pop(row["algorithm"])
        keys = ("nodes", "wrong", "mean_loops", "mean_loops_taken", "seconds_int64", "seconds_model")
        cells = " | ".join(str(row[key]) for key in keys)
        assert f"| {row['algorithm']} | {row['graphs']:,} | {cells} |" in CHAPTER
    assert not wanted
    for n in (8, 64, 512, 4096):
        weights = (f"{row['weight']:,}" if row["weight"] else "-" for row in facts["weights"] if row["nodes"] == n)
        assert f"| {n:,} | {' | '.join(weights)} |" in CHAPTER
    for row in facts["softmax"]:
        assert f"| {row['algorithm']} | {' | '.join(map(str, row['right']))} |" in CHAPTER
    sizes = {(row["algorithm"], row["dtype"]): f"{row['nodes']:,}" for row in facts["sizes"]}
    assert f"up to {sizes['dfs', 'float32']} nodes in float32" in " ".join(CHAPTER.split())
    assert f"up to {sizes['dfs', 'float64']} in float64" in " ".join(CHAPTER.split())


def test_examples_and_figures():
    commands = re.findall(
        r"looped theory (\w+) (?:([\w-]+) (examples/\S+) .*)?--out (results/constructions/\S+)", CHAPTER
    )
    assert len(commands) == 5
    assert {name for name, *_ in commands} == {"graph", "graphs"} <= set(COMMANDS)
    for _, algorithm, file, folder in commands:
        assert (ROOT / folder).is_dir()
        if algorithm:
            facts = json.loads((ROOT / folder / "graph.json").read_text())
            assert (facts["algorithm"], facts["file"]) == (algorithm, Path(file).name)
            assert facts["right"] == facts["nodes"]
    figures = re.findall(r"\]\(\.\./(\S+\.svg)\)", CHAPTER)
    assert len(figures) == 5
    assert all((ROOT / figure).stat().st_size < 300_000 for figure in figures)
    facts = stored("bellman-ford/graph.json")
    assert f"{facts['loops']} of {facts['most_loops']} loops" in CHAPTER
    facts = stored("dijkstra/graph.json")
    assert f"loops at most {facts['most_loops']}, numbers up to {facts['largest_number']:,}" in CHAPTER
