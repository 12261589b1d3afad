"""Sudoku by a block with constructed weights (docs/constructions.md)."""

import io
import math
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tyro.conf import Positional

from looped.commands.arguments import different
from looped.commands.output import Table, print_table
from looped.commands.theory.results import write_result
from looped.lazy import torch
from looped.reading import read_text
from looped.run_folder import EvalRow, ExitRow, read_rows
from looped.strict import at_least, check
from looped.tasks import TASKS, Task
from looped.theory import sudoku as circuit
from looped.theory.circuit import Program

BATCH = 64  # puzzles that the model solves together
SHOWN = 40  # with more puzzles, the table of single puzzles is left out


class Item(NamedTuple):
    """A puzzle with the file that it comes from and its class."""

    source: str
    kind: str
    problem: Any
    """The task's: `given` and `solution`, cells in row-major order, 0 = blank; and `rating`."""


class Result(NamedTuple):
    """The end of the loop on a puzzle."""

    loops: int
    """The last loop that changed the state."""
    left: int
    """Candidates in all cells."""
    solved: bool
    """Whether every cell has one candidate."""
    right: bool
    """The solution, or with singles only the candidates, are those of an independent program."""
    state: np.ndarray
    """(cells, registers)"""


def sudoku(
    puzzles: Positional[tuple[str, ...]] = (),
    singles_only: bool = False,
    box: Literal[2, 3] = 3,
    sample: int | None = None,
    loops: int = 20_000,
    seed: int = 0,
    on_bad_row: Literal["stop", "skip"] = "stop",
    beside: Path | None = None,
    out: Path | None = None,
) -> None:
    """Solve Sudoku puzzles by one looped block with constructed weights: singles, and search with backtracking.

    Args:
        puzzles: files of puzzles in the formats of training, or a puzzle as a row of cells (. or 0 is blank); without
            any, puzzles are generated.
        singles_only: only eliminate what naked and hidden singles exclude.
        box: side of a box; 3 for 9x9 boards, 2 for 4x4.
        sample: the most puzzles of each class of a file, drawn at random, or the number of generated puzzles; the
            default is all, or 20 generated ones.
        loops: the most loops for a puzzle.
        seed: seed of the random puzzles.
        on_bad_row: stop at a row that is not a puzzle with exactly one solution, or skip and name it.
        beside: run folder of a trained model with scores on the same classes, for the figure trained.svg.
        out: folder for sudoku.json and figures: loops.svg and candidates.svg, or of a single puzzle grid.svg and
            levels.svg.
    """
    at_least(1, sample=sample)
    at_least(0, seed=seed)
    different(puzzles=puzzles)
    check(1 <= loops <= 100_000, "loops", loops, "1 to 100000")
    trained = _trained(beside)
    settings: Any = TASKS["sudoku"].Config
    task = TASKS["sudoku"](settings(box=box, pool=sample or 20, pool_seed=seed))
    items = list(_items(task, puzzles, sample, np.random.default_rng(seed), on_bad_row))
    program = circuit.program(box, search=not singles_only)
    cost = program.circuit.cost()
    print(
        f"one block of {cost.layers} layers: {cost.registers} registers, {cost.heads} heads of size up to "
        f"{cost.head_size}, {cost.units} units, {cost.non_zeros:,} nonzero weights"
    )
    start = time.perf_counter()
    results = _solve(program, np.stack([item.problem.given for item in items]), loops)
    results = [
        result._replace(right=_right(program, item, result, singles_only=singles_only))
        for item, result in zip(items, results, strict=True)
    ]
    seconds = time.perf_counter() - start
    classes = _classes(items, results)
    _print(program, items, results, classes)
    if len(items) == 1 and not singles_only:
        print(task.describe(items[0].problem, torch.from_numpy(program.output(results[0].state[None])[0])))
    right = sum(result.right for result in results)
    oracle = "candidates that an independent program leaves" if singles_only else "solution of an independent solver"
    print(f"{right} of {len(items)} have the {oracle}; {seconds:.1f} s")
    if out:
        facts = {
            "singles_only": singles_only, "box": box, "sample": sample, "seed": seed, "circuit": cost._asdict(),
            "puzzles": len(items), "right": right, "seconds": round(seconds, 1), "classes": classes,
        }  # fmt: skip
        _write(out, facts, program, items, results)
        if trained:
            from looped.report import sudoku_figures

            write_result(out, "trained.svg", sudoku_figures.beside_trained(classes, trained))


def _trained(run: Path | None) -> dict[str, list[tuple[int, float]]]:
    """The loops and the share of solved boards, for each class.

    Raises:
        ValueError: the folder has no such scores.
    """
    shares: dict[str, list[tuple[int, float]]] = {}
    for row in [] if run is None else read_rows(run, EvalRow):
        if row.metric == "board" and not isinstance(row, ExitRow):
            shares.setdefault(row.group, []).append((row.num_loops, row.value))
    if run is not None and not shares:
        raise ValueError(f"{run}: expected a run folder with scores on Sudoku boards in {EvalRow.file}")
    return shares


def _items(
    task: Task,
    names: Sequence[str],
    sample: int | None,
    rng: np.random.Generator,
    on_bad_row: Literal["stop", "skip"],
) -> Iterator[Item]:
    """The puzzles that the user named, or generated ones.

    Raises:
        ValueError: a file or puzzle is malformed, or has no solution or several; as the task says it.
    """
    texts: dict[str, list[str]] = {}
    for name in names:
        typed = re.fullmatch(r"[0-9.*_]+", name) is not None and not Path(name).exists()
        if not typed and len(name) == task.config.box**4 and not Path(name).exists():
            raise ValueError(f"{name}: no such file, and no puzzle; expected digits, and . or 0 for a blank")
        text = name if typed else read_text(Path(name))
        texts[name if typed else str(Path(name))] = io.StringIO(text, newline=None).readlines()
    if not names:
        pool: Any = task
        texts["generated"] = ["".join(map(str, cells)) for cells in pool.pool.puzzles.tolist()]
    for source, lines in texts.items():
        of_class: dict[str, list[Any]] = {}
        for problem in task.read(lines, source, on_bad_row)[0]:
            of_class.setdefault(_class(problem.rating, problem.given), []).append(problem)
        for kind, members in sorted(of_class.items()):
            chosen = range(len(members))
            if sample is not None and sample < len(members):
                chosen = np.sort(rng.choice(len(members), sample, replace=False)).tolist()
            yield from (Item(Path(source).name, kind, members[i]) for i in chosen)


def _class(rating: str | None, given: np.ndarray) -> str:
    """The rating, a number as a band such as 5-6; without a rating the band of the number of clues."""
    if rating is None:
        width = 2 * math.isqrt(math.isqrt(len(given))) - 1
        low = int((given > 0).sum()) // width * width
        return f"{low}-{low + width - 1} clues"
    try:
        low = math.floor(float(rating))
    except (ValueError, OverflowError):
        return rating
    return f"{low}-{low + 1}"


def _solve(program: Program, boards: np.ndarray, loops: int) -> list[Result]:
    """Loop on every board until its state does not change any more.

    Raises:
        ValueError: some boards need more loops.
    """
    from looped.models.exit_rules import StateChange
    from looped.theory.weights import write

    # The states are whole numbers, and much smaller than 10^9: a smaller relative change is none.
    unchanged = StateChange(threshold=1e-9)
    model = write(program, boards.shape[1])
    results = []
    for start in range(0, len(boards), BATCH):
        inputs = torch.from_numpy(boards[start : start + BATCH].astype(np.int64))
        # One loop more shows that the last change is over, and another one that this was before the model's last loop.
        with torch.no_grad():
            found = model(inputs, num_loops=loops + 2, exit_rule=unchanged)
        assert found.loops_taken is not None
        states = found.state.numpy()
        left = circuit.candidates(program, states).sum(-1)
        for taken, state, cells in zip(found.loops_taken[:, 0].tolist(), states, left, strict=True):
            results.append(Result(taken - 1, int(cells.sum()), bool((cells == 1).all()), False, state))
    if unfinished := sum(result.loops > loops for result in results):
        raise ValueError(f"loops={loops}: {unfinished} of {len(boards)} puzzles need more; expected a larger number")
    return results


def _right(program: Program, item: Item, result: Result, *, singles_only: bool) -> bool:
    found = [set((np.flatnonzero(cell) + 1).tolist()) for cell in circuit.candidates(program, result.state)]
    if singles_only:
        return found == circuit.singles(item.problem.given.tolist())
    return found == [{digit} for digit in item.problem.solution.tolist()]


def _classes(items: Sequence[Item], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Numbers of each class of each file; classes with names go from few loops to many."""
    of_class: dict[tuple[str, str], list[Result]] = {}
    for item, result in zip(items, results, strict=True):
        of_class.setdefault((item.source, item.kind), []).append(result)
    rows = [
        {
            "file": source, "class": kind, "puzzles": len(of), "solved": sum(r.solved for r in of),
            "right": sum(r.right for r in of), "median": float(np.median([r.loops for r in of])),
            "most": max(r.loops for r in of), "loops": sorted(r.loops for r in of),
        }
        for (source, kind), of in of_class.items()
    ]  # fmt: skip
    files = [item.source for item in items]
    return sorted(
        rows, key=lambda row: (files.index(row["file"]), int(re.split(r"\D", row["class"])[0] or 0), row["median"])
    )


def _print(
    program: Program, items: Sequence[Item], results: Sequence[Result], classes: Sequence[dict[str, Any]]
) -> None:
    if len(items) <= SHOWN:
        table = Table("puzzle", "class", "clues", "loops", "candidates left", "decisions in force", "solved")
        for number, (item, result) in enumerate(zip(items, results, strict=True), start=1):
            clues, level = int((item.problem.given > 0).sum()), int(circuit.level(program, result.state))
            cells = (number, item.kind, clues, result.loops, result.left, level, "yes" if result.solved else "no")
            table.add_row(*map(str, cells))
        print_table(table)
    if len(items) > 1:
        table = Table("file", "class", "puzzles", "solved", "loops: median", "most", title="loops over difficulty")
        for row in classes:
            names = ("file", "class", "puzzles", "solved", "median", "most")
            table.add_row(*(f"{row[name]:g}" if name == "median" else str(row[name]) for name in names))
        print_table(table)


def _write(
    out: Path, facts: dict[str, Any], program: Program, items: Sequence[Item], results: Sequence[Result]
) -> None:
    """The numbers and the figures. The middle puzzle of each class runs once more, in whole numbers (int64)."""
    from looped.report import sudoku_figures

    lines, equal = [], 0
    for row in facts["classes"]:
        members = [i for i, item in enumerate(items) if (item.source, item.kind) == (row["file"], row["class"])]
        middle = sorted(members, key=lambda i: results[i].loops)[len(members) // 2]
        given = items[middle].problem.given
        states = _states(program, given, results[middle].loops)
        equal += bool((states[-1] == results[middle].state).all())
        possible = circuit.candidates(program, states)
        lines.append({"file": row["file"], "class": row["class"], "left": possible.sum((1, 2)).tolist()})
        if len(items) == 1:
            write_result(out, "grid.svg", sudoku_figures.grid(possible, given))
            write_result(out, "levels.svg", sudoku_figures.levels(circuit.level(program, states)))
    if len(items) > 1:
        write_result(out, "loops.svg", sudoku_figures.loops_by_class(facts["classes"]))
        write_result(out, "candidates.svg", sudoku_figures.candidates(lines))
    write_result(out, "sudoku.json", {**facts, "whole_numbers": {"puzzles": len(lines), "equal": equal}})


def _states(program: Program, given: np.ndarray, loops: int) -> np.ndarray:
    """(loops + 1, cells, registers) the state before the loop and after each, in whole numbers."""
    board = given[None].astype(np.int64)
    return np.concatenate([program.start(board), *program.states(board, loops=loops)])
