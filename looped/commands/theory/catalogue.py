"""All algorithms that are written as weights, with their sizes."""

from pathlib import Path

from looped.commands.output import Table, print_table
from looped.commands.theory.results import write_result
from looped.theory import automata, depth_first, edit_distance, graphs, squaring, sudoku
from looped.theory.circuit import Program
from looped.theory.computer import machine

NODES = 16
S5 = automata.symmetric_group()
# The sizes do not depend on the lengths, nodes or cells that a program is made for.
CATALOGUE: dict[str, tuple[Program, str]] = {
    "edit distance, costs 2, 2, 3": (edit_distance.edit_distance(200, 122), "n + m + 2"),
    "longest common subsequence": (edit_distance.lcs(60, 122), "n + m + 2"),
    "SUBLEQ, program apart from data": (machine.separate(NODES).program, "1 an instruction"),
    "SUBLEQ, self-modifying": (machine.self_modifying(NODES).program, "2 an instruction"),
    "sub, add, move, compare, each with a branch": (
        machine.separate(NODES, machine.FOUR).program,
        "1 an instruction",
    ),
    "breadth-first search": (graphs.breadth_first(NODES).program, "n"),
    "Bellman-Ford, standard attention": (graphs.bellman_ford(NODES, 40, 9).program, "2n - 3"),
    "Dijkstra": (graphs.dijkstra(NODES, 9).program, "2n"),
    "depth-first search": (depth_first.depth_first(NODES).program, "2n + 1"),
    "strongly connected components": (depth_first.components(NODES).program, "4n"),
    "Sudoku, complete search": (sudoku.program(), "differs by puzzle"),
    "permutations of 5 points, all prefixes": (automata.doubling(S5, 64), "ceil(log2 n)"),
    "the same, one letter a loop": (automata.serial(S5, 64), "n"),
    "longest increasing subsequence": (automata.increasing(64), "n"),
    "square of a number, error 4^-(t+1)": (squaring.square(20), "t"),
}


def constructions(out: Path | None = None) -> None:
    """Print the sizes of all algorithms that are written as weights, counted from the weights.

    Args:
        out: folder for constructions.json.
    """
    rows = [
        {
            "problem": name,
            **program.circuit.cost()._asdict(),
            "prelude_non_zeros": sum(layer.non_zeros() for layer in program.prelude),
            "loops": loops,
        }
        for name, (program, loops) in CATALOGUE.items()
    ]
    heads = ("problem", "layers", "registers", "heads", "head size", "units", "nonzero weights", "loops")
    table = Table(*heads, title="algorithms as weights; + is graph heads, or a prelude before the loop")
    for row in rows:
        table.add_row(
            row["problem"], str(row["layers"]), str(row["registers"]), _sum(row["heads"], row["graph_heads"]),
            str(row["head_size"]), str(row["units"]), _sum(row["non_zeros"], row["prelude_non_zeros"]), row["loops"],
        )  # fmt: skip
    print_table(table)
    if out:
        write_result(out, "constructions.json", {"rows": rows})


def _sum(main: int, more: int) -> str:
    return f"{main:,} + {more:,}" if more else f"{main:,}"
