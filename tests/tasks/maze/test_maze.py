"""Mazes against networkx, and files in the published format."""

import doctest
import itertools
import lzma

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from looped.tasks.maze import MazeConfig, MazeTask
from looped.tasks.maze import task as task_module
from looped.tasks.maze.grids import GOAL, OPEN, PATH, START, WALL, is_shortest, path_lengths, symmetric, with_path


def graph_of(grid: np.ndarray) -> networkx.Graph:
    graph = networkx.grid_2d_graph(*grid.shape)
    graph.remove_nodes_from(list(map(tuple, np.argwhere(grid == WALL).tolist())))
    return graph


def ends_of(grid: np.ndarray) -> list[tuple[int, int]]:
    return [tuple(np.argwhere(grid == symbol)[0].tolist()) for symbol in (START, GOAL)]


def shortest_paths(grid: np.ndarray) -> list[set[tuple[int, int]]]:
    """The inner cells of all shortest paths; empty if there is no way."""
    start, goal = ends_of(grid)
    try:
        return [set(path[1:-1]) for path in networkx.all_shortest_paths(graph_of(grid), start, goal)]
    except networkx.NetworkXNoPath:
        return []


@st.composite
def mazes(draw, most: int = 7) -> np.ndarray:
    side = draw(st.integers(2, most))
    cells = draw(st.lists(st.sampled_from((WALL, OPEN, OPEN)), min_size=side**2, max_size=side**2))
    for symbol, place in zip((START, GOAL), draw(st.permutations(range(side**2))), strict=False):
        cells[place] = symbol
    return np.array(cells).reshape(side, side)


@given(mazes())
@settings(max_examples=150, deadline=None)
def test_marked_paths_are_shortest_paths_of_networkx(grid):
    paths = shortest_paths(grid)
    if not paths:
        assert path_lengths(grid[None])[0] == -1
        return
    assert path_lengths(grid[None])[0] == len(paths[0]) + 1
    marked = with_path(grid[None])
    assert set(map(tuple, np.argwhere(marked[0] == PATH).tolist())) in paths
    assert is_shortest(marked, grid[None])[0]


@given(mazes(4), st.data())
@settings(max_examples=50, deadline=None)
def test_an_answer_is_valid_exactly_if_networkx_lists_its_path(grid, data):
    """All answers that mark some open cells, and some that change another cell."""
    free = list(map(tuple, np.argwhere(grid == OPEN).tolist()))[:7]
    paths = shortest_paths(grid)
    for count in range(len(free) + 1):
        for chosen in itertools.combinations(free, count):
            answer = grid.copy()
            for cell in chosen:
                answer[cell] = PATH
            assert is_shortest(answer[None], grid[None])[0] == (set(chosen) in paths)
    if paths:
        answer = with_path(grid[None])[0]
        place = tuple(data.draw(st.integers(0, len(grid) - 1)) for _ in range(2))
        answer[place] = data.draw(st.sampled_from([s for s in range(6) if s != answer[place]]))
        assert not is_shortest(answer[None], grid[None])[0]


def test_symmetries_are_the_eight_of_the_square():
    grid = np.arange(9).reshape(1, 3, 3)
    images = {symmetric(grid, which).tobytes() for which in range(8)}
    assert len(images) == 8
    assert all((np.sort(symmetric(grid, which).flatten()) == np.arange(9)).all() for which in range(8))


def test_drawn_mazes_keep_the_settings_and_the_splits():
    task = MazeTask(MazeConfig(side=5, walls=0.4, min_path=6))
    keys: dict[str, set[bytes]] = {}
    for split in ("train", "validation", "test"):
        drawn = task.sample(split, 60, task.rng(split, 0, 0))
        for maze in drawn:
            inside = set(map(tuple, np.argwhere(maze.answer == PATH).tolist()))
            assert inside in shortest_paths(maze.cells)
            assert len(inside) >= 5
        keys[split] = {min(symmetric(m.cells[None], w).tobytes() for w in range(8)) for m in drawn}
    assert not keys["train"] & keys["validation"]
    assert not (keys["train"] | keys["validation"]) & keys["test"]
    with pytest.raises(ValueError, match="found no maze of the train split with a path of 8 steps"):
        MazeTask(MazeConfig(side=5, walls=0.95, min_path=8)).batch("train", 0, 4, seed=0)


def test_scores_of_the_target_another_path_and_a_wrong_one():
    task = MazeTask(MazeConfig(side=3))
    problems, _ = task.read(["S........"[:8] + "G"], "here", "stop")
    batch = task.encode(problems)

    def scores(text: str) -> tuple[float, float]:
        tokens = torch.tensor([["_#.SGo".index(cell) for cell in text]])
        found = task.score(batch, torch.nn.functional.one_hot(tokens, 6).float())
        answer = task.answer(problems[0], torch.nn.functional.one_hot(tokens[0], 6).float())
        assert answer["answer"] == text
        assert answer["valid"] == bool(found["valid"])
        return float(found["exact"]), float(found["valid"])

    assert task.to_text(problems[0])["expected"] == "Soo..o..G"
    assert scores("Soo..o..G") == (1, 1)
    assert scores("S..o..ooG") == (0, 1)
    assert scores("Soo.oo..G") == (0, 0)
    assert scores("So...o..G") == (0, 0)
    assert scores("Soo..o..S") == (0, 0)


ROWS = ["S G######", "SG       ", "S #  #  G"]
ANSWERS = ["SoG######", "SG       ", "S #oo# oG"]


def test_files_in_the_published_format(tmp_path):
    """Test files are the test split, and a symmetric copy of a test maze is in no other split."""
    train, test = tmp_path / "train.csv.xz", tmp_path / "test.csv"
    header = "source,question,answer,rating"
    lines = [f'"a, b",{q},{a},{i}' for i, (q, a) in enumerate(zip(ROWS, ANSWERS, strict=True))]
    train.write_bytes(lzma.compress("\n".join([header, *lines]).encode()))
    test.write_text(f"{header}\nx,G S######,GoS######,1\n")
    task = MazeTask(MazeConfig(side=3, files=(str(train),), test_files=(str(test),), augment=False))
    assert task.available("test") == 1
    assert len(task.pool["train"]) + len(task.pool["validation"]) == 2
    batch = task.batch("test", 0, 1, seed=0)
    assert batch.inputs.tolist() == [[4, 2, 3, *[1] * 6]]
    assert batch.targets.tolist() == [[4, 5, 3, *[1] * 6]]
    assert len(task.sources()) == 2
    everything = {task.to_text(m)["expected"] for split in ("train", "validation") for m in task.pool[split]}
    assert everything == {"SG.......", "S.#oo#.oG"}
    alone = MazeTask(MazeConfig(side=3, files=(str(train),)))
    assert sum(alone.available(split) or 0 for split in ("train", "validation", "test")) == 3


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["S......G"], "line 1: the maze has 8 cells of . G S; expected 9 cells"),
        (["S.x.....G"], "line 1: the maze has 9 cells of . G S x"),
        (["S.......S"], "the maze has 2 S and 0 G; expected one of each"),
        (["S#.##...G"], "expected a maze with a way from S to G"),
        (["So......G"], "without o"),
        (["question,answer", "S.......G,S.......G", "S.......G,So......"], "line 3: the answer has 8 cells"),
        (["question,answer", "S#......G,So......G"], "line 2: the answer changes other cells than open ones"),
        ([""], "no maze in it"),
    ],
)
def test_bad_rows_are_named(lines, expected):
    task = MazeTask(MazeConfig(side=3))
    with pytest.raises(ValueError, match=expected):
        task.read(lines, "here", "stop")
    assert task.read([*lines, *(["S.......G,"] if "question" in lines[0] else ["S.......G"])], "here", "skip")[0]


@pytest.mark.parametrize("options", [{"side": 2}, {"walls": 1.0}, {"min_path": 15}, {"test_files": ("x",)}])
def test_impossible_settings(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        MazeConfig(**options)
    with pytest.raises(ValueError, match="min_path"):
        MazeConfig(files=("x",), min_path=3)


def test_example_of_the_docstring():
    result = doctest.testmod(task_module)
    assert (result.attempted, result.failed) == (3, 0)
