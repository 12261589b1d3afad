"""The Sudoku task: splits, groups, encoding, scores and what a person sees."""

import doctest
import hashlib
import json
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from looped.tasks.base import SPLITS, Split
from looped.tasks.sudoku import Sudoku, SudokuConfig
from looped.tasks.sudoku import task as sudoku
from looped.tasks.sudoku.board import canonical, generate, invariant, valid
from looped.tasks.sudoku.task import Puzzle

RATINGS = ("5.0", "5.9", "7.2", "10.4", "Expert", "Easy", "")


@cache
def small() -> Sudoku:
    return Sudoku(SudokuConfig(box=2, pool=400))


@cache
def puzzles_9x9() -> tuple[np.ndarray, np.ndarray]:
    return generate(560, 3, 30, 40, np.random.default_rng(0))


@pytest.fixture
def file(tmp_path) -> str:
    """560 puzzles of 9x9, 80 of each rating."""
    path = tmp_path / "puzzles.csv"
    rows = zip(*(("".join(map(str, board)) for board in boards.tolist()) for boards in puzzles_9x9()), strict=True)
    lines = [f"{puzzle},{solution},{RATINGS[i % 7]}" for i, (puzzle, solution) in enumerate(rows)]
    path.write_text("\n".join(["puzzle,solution,difficulty", *lines]))
    return str(path)


def logits_for(digits: torch.Tensor, symbols: int) -> torch.Tensor:
    return 20 * torch.nn.functional.one_hot(digits, symbols).float()


def test_example_of_the_docstring():
    result = doctest.testmod(sudoku)
    assert result.attempted >= 4
    assert result.failed == 0


# Splits and groups


@pytest.mark.parametrize("box", [2, 3])
def test_splits_are_disjoint_up_to_symmetry(box, file):
    task = small() if box == 2 else Sudoku(SudokuConfig(files=(file,)))
    keys = {}
    for split in SPLITS:
        drawn = task.sample(split, 300, np.random.default_rng(0))  # training boards are augmented
        key = (
            canonical(np.stack([p.given for p in drawn]))
            if box == 2
            else invariant(np.stack([p.solution for p in drawn]))
        )
        keys[split] = set(key.tolist())
        assert len(keys[split]) > 5
    assert not keys["train"] & (keys["validation"] | keys["test"])
    assert not keys["validation"] & keys["test"]


def test_every_puzzle_of_the_pool_is_in_one_split():
    task = small()
    rows = np.concatenate([task._members[split, None] for split in SPLITS])
    assert sorted(rows.tolist()) == list(range(400))
    assert len(task._members["train", None]) > 250


def test_training_is_augmented_and_the_rest_is_not(file):
    plain = Sudoku(SudokuConfig(files=(file,), augment=False))
    pool = {board.tobytes() for board in puzzles_9x9()[0]}
    cases: tuple[tuple[Sudoku, Split, int], ...] = (
        (Sudoku(SudokuConfig(files=(file,))), "train", 0),
        (Sudoku(SudokuConfig(files=(file,))), "test", 50),
        (plain, "train", 50),
        (plain, "validation", 50),
    )
    for task, split, known in cases:
        drawn = task.sample(split, 50, np.random.default_rng(0))
        assert sum(p.given.tobytes() in pool for p in drawn) == known
        assert valid(np.stack([p.solution for p in drawn]), np.stack([p.given for p in drawn])).all()


def test_evaluation_repeats_no_puzzle_before_all_were_drawn():
    task = small()
    rows = task._members["test", None]
    fake = Sudoku(SudokuConfig(box=2))
    # Equivalent and even equal puzzles may be in a pool: number them to tell them apart.
    fake.pool = task.pool._replace(ratings=[str(i) for i in range(400)])
    drawn = fake.sample("test", len(rows), np.random.default_rng(0))
    assert sorted(int(p.rating or 0) for p in drawn) == rows.tolist()
    assert len(fake.sample("test", 3 * len(rows), np.random.default_rng(0))) == 3 * len(rows)


def test_groups_are_rating_bands_in_natural_order(file):
    task = Sudoku(SudokuConfig(files=(file,)))
    assert task.groups == ("5-6", "7-8", "10-11", "Easy", "Expert", "unrated")
    for group in task.groups:
        found = {p.rating for p in task.sample("test", 9, np.random.default_rng(0), group)}
        expected = {"5-6": {"5.0", "5.9"}, "7-8": {"7.2"}, "10-11": {"10.4"}, "unrated": {None}}
        assert found <= expected.get(group, {group})
    with pytest.raises(ValueError, match=r"group='6-7': expected one of 5-6, 7-8"):
        task.sample("test", 1, np.random.default_rng(0), "6-7")


def test_groups_of_generated_puzzles_are_clue_counts():
    assert small().groups == ("3-5 clues", "6-8 clues")
    for group, low, high in (("3-5 clues", 3, 5), ("6-8 clues", 6, 8)):
        clues = [int((p.given > 0).sum()) for p in small().sample("test", 20, np.random.default_rng(0), group)]
        assert low <= min(clues) <= max(clues) <= high
    task = Sudoku(SudokuConfig(pool=40, min_clues=33, max_clues=37))
    assert set(task.groups) <= {"30-34 clues", "35-39 clues"}
    assert set((task.pool.puzzles > 0).sum(1).tolist()) == {33, 34, 35, 36, 37}


def test_one_bound_on_the_clues_moves_the_other():
    assert ((Sudoku(SudokuConfig(pool=5, min_clues=50)).pool.puzzles > 0).sum(1) == 50).all()
    assert ((Sudoku(SudokuConfig(box=2, pool=5, max_clues=4)).pool.puzzles > 0).sum(1) == 4).all()


def test_rows_are_chosen_by_clues_and_rating(file):
    clues = (puzzles_9x9()[0] > 0).sum(1)
    for config, expected in (
        (SudokuConfig(files=(file,), min_rating=5.5), 240),
        (SudokuConfig(files=(file,), max_rating=7.2), 240),
        (SudokuConfig(files=(file,), min_rating=5.9, max_rating=7.2), 160),
        (SudokuConfig(files=(file,), min_clues=36), (clues >= 36).sum()),
        (SudokuConfig(files=(file,), max_clues=33, max_rating=5.0), (clues[::7] <= 33).sum()),
    ):
        pool = Sudoku(config).pool
        assert 0 < len(pool.puzzles) == len(pool.solutions) == len(pool.ratings) == expected < 560
    with pytest.raises(ValueError, match="none of the 560 puzzles is in the range"):
        Sudoku(SudokuConfig(files=(file,), min_rating=11.0)).prepare()


def test_files_are_put_together_and_bad_rows_counted(file, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("".join(map(str, puzzles_9x9()[0][0].tolist())) + "\nbad row\n")
    with pytest.raises(ValueError, match=r"other.txt, line 2: expected 81 characters, not 7"):
        Sudoku(SudokuConfig(files=(file, str(other)))).prepare()
    pool = Sudoku(SudokuConfig(files=(file, str(other)), on_bad_row="skip")).pool
    assert (len(pool.puzzles), pool.skipped) == (560, 1)
    assert capsys.readouterr().err == (
        f"{other}: skipped the bad rows in lines 2\n{file}, {other}: 1 puzzles are copies of others and do not count\n"
    )


@pytest.mark.parametrize("layout", ["in one file", "in two files", "with dots", "with another rating"])
def test_copies_of_a_puzzle_count_once(layout, file, tmp_path):
    other = tmp_path / "copies.csv"
    header, *lines = Path(file).read_text().splitlines()
    if layout == "with dots":
        lines = [line.replace("0", ".") for line in lines]
    if layout == "with another rating":
        lines = [line.rpartition(",")[0] + ",1.0" for line in lines]
    if layout == "in one file":
        lines += lines
    other.write_text("\n".join([header, *lines]))
    once = Sudoku(SudokuConfig(files=(file,)))
    twice = Sudoku(SudokuConfig(files=(str(other),) if layout == "in one file" else (file, str(other))))
    assert len(twice.pool.puzzles) == 560
    assert twice.pool.ratings == once.pool.ratings
    for split in SPLITS:
        assert twice.available(split) == once.available(split)
        for group in once.groups:
            assert twice.available(split, group) == once.available(split, group)


def test_copies_in_a_generated_pool_are_evaluated_once():
    task = Sudoku(SudokuConfig(box=2, pool=6000))
    different = {puzzle.tobytes() for puzzle in task.pool.puzzles}
    assert len(different) < 6000
    assert sum(task.available(split) for split in SPLITS) == len(different)
    for split in ("validation", "test"):
        drawn = task.sample(split, task.available(split), np.random.default_rng(0))
        assert len({p.given.tobytes() for p in drawn}) == len(drawn)


def test_answers_need_no_file_and_no_pool(file, tmp_path, monkeypatch):
    config = SudokuConfig(files=(file,))
    assert config.paths == ("files", "test_files")
    problem = Sudoku(config).sample("test", 1, np.random.default_rng(0))[0]
    line = "".join(map(str, problem.given.tolist()))
    Path(file).unlink()
    monkeypatch.setattr(sudoku, "generate", None)
    for settings in (config, SudokuConfig()):
        task = Sudoku.load(settings, tmp_path)
        read, skipped = task.read([line], "text", "stop")
        assert skipped == 0
        assert (read[0].solution == problem.solution).all()
        batch = task.encode(read)
        logits = logits_for(batch.targets, 10)
        assert task.score(batch, logits)["board"].tolist() == [1]
        assert task.answer(read[0], logits[0])["answer"] == "".join(map(str, problem.solution.tolist()))
        assert line[0] in task.describe(read[0], logits[0])


def test_sources_are_the_digests_of_the_files(file, tmp_path):
    assert Sudoku(SudokuConfig()).sources() == {}
    other = tmp_path / "absent"
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert Sudoku(SudokuConfig(files=(file,))).sources() == {file: digest}
    with pytest.raises(ValueError, match=f"{other}: No such file"):
        Sudoku(SudokuConfig(files=(file, str(other)))).sources()


@pytest.mark.parametrize(("box", "pool"), [(3, 10**9), (2, 10**10), (3, 2**62)])
def test_a_pool_that_does_not_fit_the_memory_is_refused(box, pool):
    with pytest.raises(
        ValueError, match=rf"pool={pool}: takes about \d+ GB of the \d+ GB of memory; expected at most \d+"
    ):
        Sudoku(SudokuConfig(box=box, pool=pool)).prepare()


def test_empty_split_says_so():
    task = Sudoku(SudokuConfig(box=2, pool=1))
    empty: list[Split] = [split for split in SPLITS if not len(task._members[split, None])]
    assert len(empty) == 2
    for split in empty:
        with pytest.raises(ValueError, match=f"no Sudoku puzzle in the {split} split: there are only 1 puzzles in all"):
            task.batch(split, 0, 4, seed=0)


def test_pool_is_made_once_and_only_when_needed(monkeypatch):
    calls = []
    monkeypatch.setattr(sudoku, "generate", lambda *args: calls.append(args) or generate(*args))
    task = Sudoku(SudokuConfig(box=2, pool=60))
    task.read(["3102200002100320"], "text", "stop")
    assert not calls
    task.prepare()
    copy = pickle.loads(pickle.dumps(task))
    for made in (task, copy):
        assert made.groups
        made.sample("train", 3, np.random.default_rng(0))
    assert len(calls) == 1


def test_pool_seed_decides_the_pool():
    pools = [Sudoku(SudokuConfig(box=2, pool=50, pool_seed=seed)).pool.puzzles for seed in (0, 0, 1)]
    assert (pools[0] == pools[1]).all()
    assert (pools[0] != pools[2]).any()


# Encoding and scores


@pytest.mark.parametrize("loss", ["blanks", "all"])
def test_encoding(loss):
    task = Sudoku(SudokuConfig(box=2, loss=loss))
    problems = small().sample("train", 6, np.random.default_rng(0))
    batch = task.encode(problems)
    assert (batch.inputs.numpy() == np.stack([p.given for p in problems])).all()
    assert (batch.targets.numpy() == np.stack([p.solution for p in problems])).all()
    assert batch.attention_mask.all()
    assert (batch.mask == ((batch.inputs == 0) | (loss == "all"))).all()
    assert 0 < (batch.inputs == 0).sum() < batch.inputs.numel()
    assert (task.spec.vocab_size, task.spec.output_size, task.spec.max_seq_len) == (5, 5, 16)


def test_scores_of_known_answers():
    problems = small().sample("test", 6, np.random.default_rng(0))
    batch = small().encode(problems)
    digits = batch.targets.clone()
    first_blank = (batch.inputs[0] == 0).nonzero()[0]
    digits[0, first_blank] = digits[0, first_blank] % 4 + 1  # board 0: a blank is wrong
    first_clue = (batch.inputs[1] > 0).nonzero()[0]
    digits[1, first_clue] = digits[1, first_clue] % 4 + 1  # board 1: a given is not kept
    digits[2] = digits[2] % 4 + 1  # board 2: everything is renamed; rules are obeyed, nothing is right
    logits = logits_for(digits, 5)
    logits[3, :, 0] = 99  # board 3: "blank" is never an answer
    num_blanks = (batch.inputs[0] == 0).sum().item()
    scores = small().score(batch, logits)
    assert scores["board"].tolist() == [0, 1, 0, 1, 1, 1]
    assert scores["cells"].tolist() == pytest.approx([1 - 1 / num_blanks, 1, 0, 1, 1, 1])
    assert scores["valid"].tolist() == [0, 1, 0, 1, 1, 1]  # givens are copied
    everything = Sudoku(SudokuConfig(box=2, loss="all"))
    scores = everything.score(everything.encode(problems), logits)
    assert scores["board"].tolist() == [0, 1, 0, 1, 1, 1]
    assert scores["valid"].tolist() == [0, 0, 0, 1, 1, 1]  # the model has to keep them itself


def test_scores_in_bfloat16_and_of_a_full_board():
    full = small().pool.solutions[:2]
    batch = small().encode([Puzzle(board, board) for board in full])
    scores = small().score(batch, torch.zeros(2, 16, 5, dtype=torch.bfloat16))
    assert [scores[name].tolist() for name in ("board", "cells", "valid")] == [[1, 1]] * 3


@pytest.mark.parametrize("loss", ["blanks", "all"])
def test_answer_and_visualisation(loss):
    task = Sudoku(SudokuConfig(box=2, loss=loss))
    problem = small().sample("test", 1, np.random.default_rng(3))[0]._replace(rating="7.2")
    solution = torch.from_numpy(problem.solution).long()
    blank = torch.from_numpy(problem.given == 0)
    right = logits_for(solution, 5)
    wrong = logits_for(solution % 4 + 1, 5)
    said = task.answer(problem, right)
    assert said["answer"] == "".join(map(str, problem.solution.tolist()))
    assert said["valid"] is True
    assert 0.99 < said["confidence"] <= 1
    unsure = right.clone()
    unsure[blank.nonzero()[0]] = 0
    assert task.answer(problem, unsure)["confidence"] == pytest.approx(0.25)  # the least certain cell
    assert task.answer(problem, wrong)["valid"] is False

    visualisation = task.visualise(problem, torch.stack([wrong, right]).bfloat16())
    assert json.loads(json.dumps(visualisation)) == visualisation
    loops = visualisation.pop("loops")
    assert visualisation == {
        "kind": "board", "side": 4, "box": 2, "given": problem.given.tolist(), "solution": problem.solution.tolist(),
        "rating": "7.2",
    }  # fmt: skip
    assert [loop["loop"] for loop in loops] == [1, 2]
    assert loops[1]["cells"] == solution.tolist()
    copied = (~blank & (loss == "blanks")).tolist()
    renamed = (solution % 4 + 1).tolist()
    assert loops[0]["cells"] == [
        s if kept else r for s, r, kept in zip(solution.tolist(), renamed, copied, strict=True)
    ]
    assert all((c == 1) if kept else (0.99 < c < 1) for c, kept in zip(loops[0]["confidence"], copied, strict=True))


def test_description_shows_the_prediction():
    problem = small().sample("test", 1, np.random.default_rng(3))[0]
    wrong = logits_for(torch.from_numpy(problem.solution).long() % 4 + 1, 5)
    lines = small().describe(problem, wrong).split("\n")
    num_blanks = int((problem.given == 0).sum())
    assert lines[0].split() == ["puzzle", "solution", "prediction"]
    assert lines[-1] == f"{num_blanks} of {num_blanks} blanks wrong"
    assert len(small().describe(problem).split("\n")) == 6


def test_own_puzzles_are_read_and_solved():
    puzzles, skipped = small().read(["310220000210032", "3102200002100320", "", "0" * 16], "text", "skip")
    assert skipped == 2
    assert [p.solution.tolist() for p in puzzles] == [[3, 1, 4, 2, 2, 4, 3, 1, 4, 2, 1, 3, 1, 3, 2, 4]]
    assert puzzles[0].rating is None
    with pytest.raises(ValueError, match="text: no Sudoku puzzle in it"):
        small().read([], "text", "stop")


@pytest.mark.parametrize("loss", ["blanks", "all"])
def test_candidates_are_scored_and_shown_as_cells(loss):
    """Random logits of cells, and candidates whose log odds are these logits, give the same scores and answers."""
    cells = Sudoku(SudokuConfig(box=2, loss=loss))
    candidates = Sudoku(SudokuConfig(box=2, loss=loss, tokens="candidates"))
    assert (candidates.spec.vocab_size, candidates.spec.output_size, candidates.spec.max_seq_len) == (3, 2, 64)
    problems = small().sample("test", 40, np.random.default_rng(0))
    batch, of_candidates = cells.encode(problems), candidates.encode(problems)
    assert (of_candidates.mask == batch.mask.repeat_interleave(4, 1)).all()
    for p, inputs, targets in zip(problems, *of_candidates[:2], strict=True):
        for place in range(64):
            given, digit = p.given[place // 4], place % 4 + 1
            assert inputs[place] == (0 if not given else 1 if given == digit else 2)
            assert targets[place] == (p.solution[place // 4] == digit)
    # Noise makes about half of the cells of some boards wrong.
    noise = torch.linspace(0, 40, 40)[:, None, None] * torch.rand(40, 16, 5, generator=torch.manual_seed(0))
    logits = logits_for(batch.targets, 5) + noise
    odds = logits[..., 1:].flatten(1)
    of_candidates_logits = torch.stack([-odds / 2, odds / 2], -1)
    expected, found = cells.score(batch, logits), candidates.score(of_candidates, of_candidates_logits)
    assert 0 < expected["board"].mean() < 1
    assert all(torch.equal(found[name], values) for name, values in expected.items())
    for problem, row, others in zip(problems, logits, of_candidates_logits, strict=True):
        answer, other = cells.answer(problem, row), candidates.answer(problem, others)
        assert other.pop("confidence") == pytest.approx(answer.pop("confidence"))
        assert other == answer
        assert candidates.describe(problem, others) == cells.describe(problem, row)
    shown = candidates.visualise(problems[0], of_candidates_logits[:3])["loops"]
    assert [loop["cells"] for loop in shown] == [
        loop["cells"] for loop in cells.visualise(problems[0], logits[:3])["loops"]
    ]


def test_graphs_join_the_positions_of_a_unit():
    for config, digits in ((SudokuConfig(), 1), (SudokuConfig(tokens="candidates"), 9)):
        task = Sudoku(config)
        places = np.arange(81 * digits)
        row, column, digit = places // digits // 9, places // digits % 9, places % digits
        units = {"row": (row, digit), "column": (column, digit), "box": (row // 3, column // 3, digit)}
        units |= {"cell": (row, column)} if digits > 1 else {}
        assert task.graphs.keys() == units.keys()
        for name, unit in units.items():
            same = np.logical_and.reduce([part[:, None] == part for part in unit])
            assert (task.graphs[name].numpy() == same).all()
            assert (same.sum(1) == 9).all()
