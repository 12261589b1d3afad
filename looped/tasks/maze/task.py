"""Mazes: mark a shortest path from start to goal."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from looped.files import sha256
from looped.lazy import torch
from looped.reading import read_text
from looped.strict import check
from looped.tasks.base import Batch, Split, Task, TaskSpec, split_of
from looped.tasks.maze.config import MazeConfig
from looped.tasks.maze.grids import (
    GOAL,
    OPEN,
    PATH,
    START,
    SYMBOLS,
    WALL,
    is_shortest,
    path_lengths,
    symmetric,
    with_path,
)
from looped.tasks.registry import register

FRUITLESS = 200  # rounds without a maze of the requested split before drawing gives up


class Maze(NamedTuple):
    """The cells of a maze (side, side), and the same with a shortest path marked."""

    cells: np.ndarray
    answer: np.ndarray


@register("maze")
class MazeTask(Task):
    """Mazes of `side` x `side` cells, one token each. The target is the maze with a shortest path marked.

    A step goes up, down, left or right. All cells are scored, also those that do not change (as published).

    >>> task = MazeTask(MazeConfig(side=4))
    >>> mazes, skipped = task.read(["S.....#...#.##G."], "example", "stop")
    >>> print(task.describe(mazes[0]))
    maze    path
    S...    Sooo
    ..#.    ..#o
    ..#.    ..#o
    ##G.    ##Go
    """

    Config = MazeConfig
    presentation = frozenset({"augment"})
    metric = "exact"

    def __init__(self, config: MazeConfig) -> None:
        super().__init__(config)
        self.side = config.side
        self.spec = TaskSpec(vocab_size=len(SYMBOLS), output_size=len(SYMBOLS), max_seq_len=self.side**2)

    def sources(self) -> dict[str, str]:
        return {file: sha256(Path(file)) for file in (*self.config.files, *self.config.test_files)}

    @cached_property
    def pool(self) -> dict[Split, list[Maze]]:
        """The mazes of the files, by split. No symmetry turns a maze of one split into a maze of another."""
        found: dict[Split, list[Maze]] = {"train": [], "validation": [], "test": []}
        found["test"] += self._of_files(self.config.test_files)
        held_out = {_key(maze.cells) for maze in found["test"]}
        for maze in self._of_files(self.config.files):
            if (key := _key(maze.cells)) not in held_out:
                split = split_of(key)
                found["train" if held_out and split == "test" else split].append(maze)
        return found

    def _of_files(self, files: Sequence[str]) -> list[Maze]:
        return [maze for file in files for maze in self.read(read_text(Path(file)).splitlines(), file, "stop")[0]]

    def available(self, split: Split, group: str | None = None) -> int | None:
        return len(self.pool[split]) if self.config.files else None

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[Maze]:
        """Draw mazes; see `Task.sample`.

        Raises:
            ValueError: the group is unknown, the files have no maze for the split, or hardly any drawn maze has a
                path of `min_path` steps.
        """
        check(group in (None, *self.groups), "group", group, f"one of {', '.join(self.groups)}")
        if self.config.files:
            count = len(self.pool[split])
            check(count > 0, "files", self.config.files, f"a maze for the {split} split")
            rows = rng.choice(count, size, replace=split == "train" or size > count)
            mazes = [self.pool[split][row] for row in rows.tolist()]
        else:
            mazes = self._drawn(split, size, rng)
        if self.config.augment and split == "train":
            turns = rng.integers(8, size=size).tolist()
            mazes = [Maze(*symmetric(np.stack(maze), turn)) for maze, turn in zip(mazes, turns, strict=True)]
        return mazes

    def _drawn(self, split: Split, size: int, rng: np.random.Generator) -> list[Maze]:
        side, walls, least = self.side, self.config.walls, self.config.min_path or self.side
        found: list[Maze] = []
        fruitless = 0
        while len(found) < size and fruitless < FRUITLESS:
            grids = np.where(rng.random((2 * size + 16, side**2)) < walls, WALL, OPEN)
            ends = rng.random(grids.shape).argsort(1)[:, :2]
            np.put_along_axis(grids, ends, np.array([[START, GOAL]]), 1)
            grids = grids.reshape(-1, side, side)
            grids = grids[path_lengths(grids) >= least]
            grids = grids[[split_of(_key(grid)) == split for grid in grids]] if len(grids) else grids
            fruitless = 0 if len(grids) else fruitless + 1
            found += map(Maze, grids, with_path(grids))
        if len(found) < size:
            reason = f"side={side}, walls={walls}: found no maze of the {split} split with a path of {least} steps"
            raise ValueError(f"{reason}; expected fewer (min_path)")
        return found[:size]

    def encode(self, problems: Sequence[Maze]) -> Batch:
        cells = torch.from_numpy(np.stack([np.stack(maze) for maze in problems])).long().flatten(2)
        everywhere = torch.ones_like(cells[:, 0], dtype=torch.bool)
        return Batch(cells[:, 0], cells[:, 1], everywhere, everywhere)

    def score(
        self, batch: Batch, logits: Float[torch.Tensor, "batch seq output"]
    ) -> dict[str, Float[torch.Tensor, " batch"]]:
        """exact: all cells are those of the target (published). valid: any shortest path is marked, and only that."""
        shape = (-1, self.side, self.side)
        answers, cells = (tensor.cpu().numpy().reshape(shape) for tensor in (logits.argmax(-1), batch.inputs))
        exact = (logits.argmax(-1) == batch.targets).all(1)
        return {"exact": exact.float(), "valid": torch.from_numpy(is_shortest(answers, cells)).to(exact.device).float()}

    # Reading and showing

    def answer(self, problem: Maze, logits: Float[torch.Tensor, "seq output"]) -> dict[str, Any]:
        """The maze with the marked path as a row of cells. The confidence is that of the least certain cell."""
        confidence, cells = logits.double().cpu().softmax(-1).max(-1)
        grid = cells.numpy().reshape(problem.cells.shape)
        obeys = bool(is_shortest(grid[None], problem.cells[None])[0])
        return {"answer": _text(grid), "valid": obeys, "confidence": float(confidence.min())}

    def word(self, output: int) -> str:
        return SYMBOLS[output]

    def to_text(self, problem: Maze) -> dict[str, str]:
        return {"input": _text(problem.cells), "expected": _text(problem.answer)}

    def describe(self, problem: Maze, logits: Float[torch.Tensor, "seq output"] | None = None) -> str:
        texts = {"maze": _text(problem.cells), "path": _text(problem.answer)}
        if logits is not None:
            texts["prediction"] = self.answer(problem, logits)["answer"]
        side = self.side
        columns = [[name, *(text[i : i + side] for i in range(0, side**2, side))] for name, text in texts.items()]
        return "\n".join("    ".join(cell.ljust(side) for cell in line).rstrip() for line in zip(*columns, strict=True))

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[list[Maze], int]:
        """A CSV with a column question, and perhaps answer; or one maze a line (cells as in `MazeConfig.files`)."""
        mazes, bad = [], 0
        for number, question, answer in _rows(lines):
            try:
                mazes.append(self._parsed(question, answer))
            except ValueError as error:
                if on_bad_row == "stop":
                    raise ValueError(f"{source}, line {number}: {error}") from None
                bad += 1
        if not mazes:
            raise ValueError(f"{source}: no maze in it ({bad} bad rows)")
        return mazes, bad

    def _parsed(self, question: str, answer: str) -> Maze:
        grids = []
        for name, text in (("maze", question), ("answer", answer or question)):
            text = text.replace(" ", SYMBOLS[OPEN])
            if len(text) != self.side**2 or not {*text} <= {*SYMBOLS[WALL:]}:
                expected = f"{self.side**2} cells (side={self.side}) of # . S G, and o in an answer"
                raise ValueError(
                    f"the {name} has {len(text)} cells of {' '.join(sorted({*text}))}; expected {expected}"
                )
            if (text.count("S"), text.count("G")) != (1, 1):
                raise ValueError(f"the {name} has {text.count('S')} S and {text.count('G')} G; expected one of each")
            grids.append(np.array([SYMBOLS.index(cell) for cell in text]).reshape(1, self.side, self.side))
        cells, marked = grids
        if (cells == PATH).any() or path_lengths(cells)[0] < 0:
            raise ValueError("expected a maze with a way from S to G, without o")
        if not answer:
            marked = with_path(cells)
        elif not ((marked == cells) | ((marked == PATH) & (cells == OPEN))).all():
            raise ValueError("the answer changes other cells than open ones to o")
        return Maze(cells[0], marked[0])


def _rows(lines: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """The number of the line, the maze and its answer ('' if there is none)."""
    header = lines[0].strip().split(",") if lines else []
    if "question" not in header:
        yield from ((number, line.strip("\r\n"), "") for number, line in enumerate(lines, 1) if line.strip())
        return
    for number, row in enumerate(csv.reader(lines[1:]), 2):
        fields = dict(zip(header, row, strict=False))
        if row:
            yield number, fields.get("question", ""), fields.get("answer", "")


def _text(grid: np.ndarray) -> str:
    return "".join(SYMBOLS[cell] for cell in grid.flatten().tolist())


def _key(grid: np.ndarray) -> bytes:
    """Equal for mazes that are equal up to a symmetry of the square. The content decides the split."""
    images = [symmetric(grid[None].astype(np.uint8), turn).tobytes() for turn in range(8)]
    return hashlib.sha256(min(images)).digest()
