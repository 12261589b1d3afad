"""The settings of the task sudoku."""

from typing import Literal

from looped.strict import check, forbid_unused, frozen, ordered, positive
from looped.tasks.registry import TaskConfig


@frozen
class SudokuConfig(TaskConfig):
    """Fill a Sudoku board. Puzzles are read from files, or generated with exactly one solution."""

    name = "sudoku"

    resets = {"files": ("pool",)}  # noqa: RUF012
    paths = ("files", "test_files")

    box: int = 3
    """Side of a box: 3 for 9x9 boards, 2 for 4x4."""
    files: tuple[str, ...] = ()
    """Puzzle files, also compressed: a CSV with columns such as puzzle, solution and rating; pairs of puzzle and
    solution; one puzzle a line, where . or 0 is blank; or grids. Comments begin with #. Without files, `pool` puzzles
    are generated from `pool_seed`."""
    test_files: tuple[str, ...] = ()
    """Puzzle files of the test split, which then holds nothing else; without them the content of a puzzle decides."""
    train_puzzles: int | None = None
    """Number of puzzles in the training split, drawn with `pool_seed`; None is all."""
    tokens: Literal["cells", "candidates"] = "cells"
    """cells: a token for each cell. candidates: a token for each cell and digit, and the model says whether the digit
    belongs into the cell."""
    pool: int = 2000
    pool_seed: int = 0
    min_clues: int | None = None
    max_clues: int | None = None
    """Range of clue counts, for generated puzzles and rows of files; None is any."""
    min_rating: float | None = None
    max_rating: float | None = None
    """Range of numeric ratings; rows outside it are not used."""
    augment: bool = True
    """Whether every training board gets a random symmetry."""
    loss: Literal["blanks", "all"] = "blanks"
    """Cells that are scored in training; the public code scores all, givens included."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """Whether a row that is not a puzzle with one solution stops the run, or is skipped and named."""

    def __post_init__(self) -> None:
        check(self.box in (2, 3), "box", self.box, "2 or 3")
        positive(self, "pool", "train_puzzles")
        cells = self.box**4
        for name in ("min_clues", "max_clues"):
            value = getattr(self, name)
            check(value is None or 0 < value < cells, name, value, f"1 to {cells - 1}")
        ordered(self, "clues")
        ordered(self, "rating")
        if self.files:
            forbid_unused(self, "files are given", "pool", *(() if self.train_puzzles else ("pool_seed",)))
        else:
            forbid_unused(self, "puzzles are generated", "min_rating", "max_rating", "on_bad_row", "test_files")
