"""The block that solves Sudoku, against programs that share nothing with it: sets, plain search, the rules."""

import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from looped.cli import main
from looped.models.exit_rules import StateChange
from looped.tasks.sudoku import Sudoku, SudokuConfig
from looped.tasks.sudoku.board import valid
from looped.theory import sudoku
from looped.theory.circuit import Program, RunnableLayer
from looped.theory.weights import write

HARD = ".652.38..9.25.1..........2...98...6...4.7.3..........5..6.9....5.73..........67.4"  # 65 loops
TWO_SOLUTIONS = "..7....2..3..2.....2....4..3...5.7....6...35...4....8......8...7....4..3....73.18"  # 13 levels
HELD = ("one", "id", "lev", "dl", *sudoku.LINES, *(f"{line}^2" for line in sudoku.LINES))
"""Registers of the cell and of the search. The others but e and d, the digits' marks, are empty between loops."""


@pytest.fixture(scope="module", params=[2, 3])
def task(request: pytest.FixtureRequest) -> Sudoku:
    return Sudoku(SudokuConfig(box=request.param, pool=24))


def settled(program: Program, boards: np.ndarray, most: int = 10_000) -> np.ndarray:
    """The states at the end of the loop, in whole numbers."""
    before = None
    for state in program.states(boards.astype(np.int64), loops=most):
        if before is not None and (state == before).all():
            return state
        before = state
    raise AssertionError(f"no end within {most} loops")


def sets(program: Program, state: np.ndarray) -> list[list[set[int]]]:
    return [[set((np.flatnonzero(c) + 1).tolist()) for c in board] for board in sudoku.candidates(program, state)]


def first_solution(board: list[int]) -> list[int] | None:
    """The first solution in the order of the block: the cell with the fewest candidates, its smallest first."""
    left = sudoku.singles(board)
    if not all(left):
        return None
    if all(len(digits) == 1 for digits in left):
        filled = [min(digits) for digits in left]
        return filled if valid(np.array([filled]), np.array([board]))[0] else None
    cell = min((i for i, digits in enumerate(left) if len(digits) > 1), key=lambda i: len(left[i]))
    tries = (first_solution([*board[:cell], digit, *board[cell + 1 :]]) for digit in sorted(left[cell]))
    return next((found for found in tries if found), None)


def sparse(task: Sudoku, share: float, seed: int, count: int) -> np.ndarray:
    """Solved boards with cells blanked at random; they may have many solutions."""
    rng = np.random.default_rng(seed)
    boards = task.pool.solutions[rng.integers(0, len(task.pool.solutions), count)].astype(np.int64)
    return boards * (rng.random(boards.shape) < share)


def test_counts():
    cost = sudoku.program().circuit.cost()
    assert cost == (119, 6, 6, 0, 18, 256, 1184)
    assert sudoku.program(search=False).circuit.cost().units == cost.units - 2
    assert sum(bool(layer.heads) for layer in sudoku.program().circuit.layers) == 3


@pytest.mark.parametrize("share", [0.15, 0.35, 0.6])
def test_singles_leave_the_candidates_that_sets_leave(task: Sudoku, share: float):
    boards = sparse(task, share, 0, 60 if task.config.box == 2 else 3)
    program = sudoku.program(task.config.box, search=False)
    found = sets(program, settled(program, boards))
    assert found == [sudoku.singles(board) for board in boards.tolist()]


def board(text: str) -> np.ndarray:
    return np.array([[int(digit) for digit in text.replace(".", "0")]])


def test_search_finds_the_first_solution():
    boards = np.concatenate([np.zeros((1, 16), int), *(sparse(Sudoku(SudokuConfig(box=2, pool=24)), share, 1, 8)
                                                       for share in (0.1, 0.2, 0.35))])  # fmt: skip
    for box, puzzles in ((2, boards), (3, board(TWO_SOLUTIONS))):
        program = sudoku.program(box)
        digits = sudoku.candidates(program, settled(program, puzzles)).argmax(-1) + 1
        assert digits.tolist() == [first_solution(puzzle) for puzzle in puzzles.tolist()]


def test_search_goes_back():
    program, puzzles = sudoku.program(), np.concatenate([board(HARD), board(TWO_SOLUTIONS)])
    registers = program.circuit.registers
    states = [*program.states(puzzles, loops=67)]
    depth = np.array([sudoku.level(program, state) for state in states])
    assert (np.diff(depth, axis=0) == -1).any(0).all()  # both boards
    assert (np.abs(np.diff(depth, axis=0)) <= 1).all()
    assert depth.max() == 13
    assert (states[63][0] != states[64][0]).any()
    assert (states[64] == states[66]).all()
    assert valid(sudoku.candidates(program, states[-1]).argmax(-1) + 1, puzzles).all()
    for state in states:
        lev, dl = (state[:, :, registers.index(name)] for name in ("lev", "dl"))
        marks = state[:, :, [registers.index(f"e{k}") for k in range(1, 10)]]
        decisions = state[:, :, [registers.index(f"d{k}") for k in range(1, 10)]]
        assert (decisions.sum(-1) == (dl > 0)).all()  # each has one digit
        assert (lev == lev[:, :1]).all()  # every cell has the same copy
        assert marks.min() >= 0
        assert (marks.max((1, 2)) <= lev[:, 0] + 1).all()
        for decided, level in zip(dl, lev[:, 0], strict=True):  # one decision at each level
            assert sorted(decided[decided > 0]) == list(range(1, level + 1))
        assert not state[
            :, :, [i for i, name in enumerate(registers) if name not in HELD and name[0] not in "ed"]
        ].any()


def test_the_model_has_the_same_states(task: Sudoku):
    boards = board(HARD) if task.config.box == 3 else sparse(task, 0.3, 2, 12)
    program = sudoku.program(task.config.box)
    loops = 40 if task.config.box == 3 else 16
    with torch.no_grad():
        output = write(program, boards.shape[1])(torch.from_numpy(boards), num_loops=loops, loop_states=True)
    assert output.loop_states is not None
    whole = np.stack(list(program.states(boards, loops=loops)))
    assert (output.loop_states.numpy() == whole).all()
    assert (output.logits.numpy() == program.output(whole[-1])).all()
    layers = [RunnableLayer(program.circuit, layer, whole.dtype, 0) for layer in program.circuit.layers]
    for before in whole[:-1]:
        functools.reduce(lambda state, layer: layer(state, {}), layers, before)
    assert 0 < max(layer.largest for layer in layers) <= sudoku.largest_number(task.config.box) < 2**18
    # float32 is refused if numbers leave its exact range.
    assert (np.stack(list(program.states(boards, loops=loops, dtype="float32"))) == whole).all()


def test_the_task_scores_it_as_perfect(task: Sudoku):
    batch = task.batch("test", 0, 8, seed=0)
    model = write(sudoku.program(task.config.box), task.spec.max_seq_len)
    with torch.no_grad():
        logits = model(batch.inputs, exit_rule=StateChange(threshold=1e-9)).logits
    assert logits.shape == (*batch.inputs.shape, task.spec.output_size)
    assert all((score == 1).all() for score in task.score(batch, logits).values())


def test_other_boards_are_refused():
    with pytest.raises(ValueError, match="box=4: expected 2 or 3"):
        sudoku.program(4)


def run(*words: str) -> int:
    return main(["theory", "sudoku", *words])


def test_command_on_generated_and_typed_puzzles(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("--box", "2", "--sample", "6", "--out", f"{tmp_path}/many") == 0
    assert "6 of 6 have the solution of an independent solver" in capsys.readouterr().out
    content = json.loads((tmp_path / "many/sudoku.json").read_text())
    assert content["puzzles"] == content["right"] == sum(row["solved"] for row in content["classes"]) == 6
    assert content["whole_numbers"]["puzzles"] == content["whole_numbers"]["equal"] == len(content["classes"])
    assert content["circuit"]["units"] == sudoku.program(2).circuit.cost().units
    assert {path.name for path in (tmp_path / "many").iterdir()} == {"sudoku.json", "loops.svg", "candidates.svg"}
    assert run("31.22....21..32.", "--box", "2", "--out", f"{tmp_path}/one") == 0
    assert "0 of 8 blanks wrong" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"sudoku.json", "grid.svg", "levels.svg"}


def test_command_on_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    task = Sudoku(SudokuConfig(pool=10, min_clues=30, max_clues=40))
    rows = ["puzzle,level", *("".join(map(str, p)) + f",{'ab'[i % 2]}" for i, p in enumerate(task.pool.puzzles))]
    (tmp_path / "rated.csv").write_text("\n".join([*rows, "11" + 79 * "." + ",b"]))
    scores = [{"group": "a", "num_loops": n, "metric": "board", "value": 0.5, "low": 0, "high": 1, "n": 9,
               "split": "test", "trained_loops": 8, "step": 1, "flops_per_example": 1} for n in (1, 4)]  # fmt: skip
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))
    words = [
        "--singles-only",
        "--sample",
        "3",
        "--beside",
        str(tmp_path),
        "--on-bad-row",
        "skip",
        "--out",
        f"{tmp_path}/out",
    ]
    assert run(f"{tmp_path}/rated.csv", *words) == 0
    out, error = capsys.readouterr()
    assert "6 of 6 have the candidates that an independent program leaves" in out
    assert error == f"{tmp_path}/rated.csv: skipped the bad rows in lines 12\n"
    content = json.loads((tmp_path / "out/sudoku.json").read_text())
    assert sorted((row["file"], row["class"], row["puzzles"]) for row in content["classes"]) == [
        ("rated.csv", "a", 3), ("rated.csv", "b", 3),
    ]  # fmt: skip
    for row in content["classes"]:
        assert row["loops"] == sorted(row["loops"])
        assert (row["median"], row["most"]) == (np.median(row["loops"]), row["loops"][-1])
    assert "trained" in (tmp_path / "out/trained.svg").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("11.............. --box 2", "line 1: the puzzle has no solution: 1 is twice in row 1"),
        ("1...1........... --box 2", "the puzzle has no solution: 1 is twice in column 1"),
        ("1....1.......... --box 2", "the puzzle has no solution: 1 is twice in box 1"),
        ("123....4........ --box 2", "line 1: the puzzle has no solution\n"),
        ("12.............. --box 2", "the puzzle has more than one solution"),
        ("12.............", "expected 81 characters, not 15"),
        ("5............... --box 2", "expected digits 1 to 4"),
        ("absent.txt", "absent.txt: No such file"),
        ("x" * 81, "x: no such file, and no puzzle; expected digits"),
        (f"{HARD} --loops 64", "loops=64: 1 of 1 puzzles need more"),
        ("--loops 0", "loops=0: expected 1 to 100000"),
        ("--sample 0", "sample=0: expected at least 1"),
        ("--seed -1", "seed=-1: expected at least 0"),
        ("--box 4", "'4'"),
        ("a a", "a is given twice"),
        ("--beside .", ".: expected a run folder with scores on Sudoku boards"),
    ],
)
def test_mistakes(words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*words.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_the_chapter_tells_the_stored_numbers():
    root = Path(__file__).resolve().parents[2]
    chapter = " ".join((root / "docs/constructions.md").read_text().split())
    results = root / "results/constructions/sudoku"
    stored = {path.parent.name: json.loads(path.read_text()) for path in results.glob("*/sudoku.json")}
    assert set(stored) == set(re.findall(r"--out results/constructions/sudoku/(\w+)", chapter))
    assert all(content["right"] == content["puzzles"] for content in stored.values())
    assert all(content["whole_numbers"]["equal"] == len(content["classes"]) for content in stored.values())
    singles, search = stored["singles"], stored["search"]
    assert f"In all {singles['puzzles']} runs" in chapter
    assert f"All {search['puzzles']} solutions" in chapter
    assert f"took {singles['seconds']:.0f} and {search['seconds']:.0f} seconds" in chapter
    loops = sum(sum(row["loops"]) for row in search["classes"])
    assert f"about {1000 * search['seconds'] / loops:.0f} ms for each loop of a puzzle" in chapter
    of_singles = {(row["file"], row["class"]): row for row in singles["classes"]}
    for row in search["classes"]:
        only = of_singles[row["file"], row["class"]]
        name = f"{row['file'].partition('.')[0]} | {row['class']} | {row['puzzles']}"
        cells = [f"{of['solved']} | {of['median']:g}, {of['most']}" for of in (only, row)]
        assert f"| {name} | {' | '.join(cells)} |" in chapter
    assert f"in at most {max(row['most'] for row in stored['generated']['classes'])} loops" in chapter
    assert f"after {stored['one']['classes'][0]['most']} loops" in chapter
    for size in (sudoku.program(3).circuit.cost(), sudoku.program(2).circuit.cost()):
        assert all(f"{number:,}" in chapter for number in (size.registers, size.units, size.non_zeros))
    assert search["circuit"] == sudoku.program().circuit.cost()._asdict()
