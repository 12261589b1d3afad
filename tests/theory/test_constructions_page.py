"""The programs in docs/constructions.md print what the page says, and its first table is that of the weights."""

import json
import re
import subprocess
import sys
from pathlib import Path

from looped.commands.theory import COMMANDS
from looped.commands.theory.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/constructions.md").read_text()
CASES = ("pairs", "examples", "programs", "graphs", "puzzles")


def stored(name: str) -> dict:
    return json.loads((ROOT / "results/constructions" / name).read_text())


def test_python_blocks():
    blocks = re.findall(r"```python\n(.*?)```\s+```text\n(.*?)```", PAGE, re.DOTALL)
    assert blocks
    for code, expected in blocks:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
        assert done.stdout == expected, done.stderr


def checked() -> dict[str, str]:
    """How many cases are in the stored results: in whole numbers, and in the model."""
    strings, machines = stored("edit-distance/checks/strings.json"), stored("machines/machines.json")
    graphs, serial, sudoku = (
        stored("graphs/graphs.json"),
        stored("serial/serial.json"),
        stored("sudoku/search/sudoku.json"),
    )
    found: dict[str, tuple[str, list[dict], list[dict]]] = {}
    for name, task in (("edit distance, costs 2, 2, 3", "edit_distance"), ("longest common subsequence", "lcs")):
        whole = [row for row in strings["whole"] if (row["gap"] == "LCS") == (task == "lcs")]
        model = [row for row in strings["model"] if (row["task"], row["dtype"]) == (task, "float64")]
        found[name] = ("pairs", whole, model)
    for name, kind in (
        ("SUBLEQ, program apart from data", "subleq"),
        ("SUBLEQ, self-modifying", "self-modifying"),
        ("sub, add, move, compare, each with a branch", "four"),
    ):
        rows = [row for row in machines["random"] if row["machine"] == kind]
        found[name] = ("programs", rows, rows)
    for name, kind in (
        ("breadth-first search", "bfs"),
        ("Bellman-Ford, standard attention", "bellman-ford"),
        ("Dijkstra", "dijkstra"),
        ("depth-first search", "dfs"),
        ("strongly connected components", "scc"),
    ):
        rows = [row for row in graphs["rows"] if row["algorithm"] == kind]
        found[name] = ("graphs", rows, rows)
    found["Sudoku, complete search"] = ("puzzles", [sudoku["whole_numbers"]], [sudoku])
    of = {"permutations of 5 points, all prefixes": "S5", "longest increasing subsequence": "increasing subsequence"}
    for name, kind in of.items():
        rows = [row for row in serial["checks"] if row["circuit"] == kind]
        found[name] = ("words" if kind == "S5" else "sequences", rows, rows)
    return {
        name: f"{count(whole, False):,} / {count(model, True):,} {what}" for name, (what, whole, model) in found.items()
    }


def count(rows: list[dict], model: bool) -> int:
    """The cases of the rows, none of which is wrong."""
    wrong = ("wrong_in_model", "wrong_model") if model else ("wrong",)
    names = ("programs_in_model",) if model else ()
    assert rows
    for row in rows:
        assert not any(row.get(name, 0) for name in wrong)
        assert row.get("right", row.get("examples")) in (row.get("examples"), row.get("puzzles"))
    return sum(next(row[name] for name in (*names, *CASES) if name in row) for row in rows)


def table() -> list[str]:
    """The rows of the first table of the page, from the weights and from the stored results."""
    tested, lines = checked(), []
    for name, (program, loops) in CATALOGUE.items():
        cost, before = program.circuit.cost(), sum(layer.non_zeros() for layer in program.prelude)
        heads = f"{cost.heads} + {cost.graph_heads}" if cost.graph_heads else cost.heads
        weights = f"{cost.non_zeros:,} + {before}" if before else f"{cost.non_zeros:,}"
        cells = (cost.layers, cost.registers, heads, cost.head_size, cost.units, weights, loops, tested.get(name, ""))
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return lines


def test_first_table():
    assert len(table()) == 15
    assert "\n".join(table()) in PAGE


def test_commands_exist_and_their_folders_are_stored():
    commands = re.findall(r"looped theory (\w+)[^\n`]*--out (results/constructions/[\w/-]+)", PAGE)
    assert len(commands) >= 15
    assert {name for name, _ in commands} <= set(COMMANDS)
    assert all((ROOT / folder).is_dir() for _, folder in commands)
    theory = (ROOT / "docs/theory.md").read_text()
    assert not [name for name in COMMANDS if f"looped theory {name}" not in PAGE + theory and f"`{name}`" not in PAGE]
