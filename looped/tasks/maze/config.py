"""The settings of the task maze."""

from looped.strict import check, forbid_unused, frozen
from looped.tasks.registry import TaskConfig


@frozen
class MazeConfig(TaskConfig):
    """Mark a shortest path through a maze of `side` x `side` cells, from files or drawn at random."""

    name = "maze"

    resets = {"files": ("walls", "min_path")}  # noqa: RUF012
    paths = ("files", "test_files")

    side: int = 8
    files: tuple[str, ...] = ()
    """CSV files, also compressed, with the columns question and answer: the cells row by row, `#` wall, space (or .)
    open, S start, G goal, o path. Without files, mazes are drawn."""
    test_files: tuple[str, ...] = ()
    """The mazes of the test split; `files` then hold those of training and validation. Without them the content of a
    maze decides its split."""
    walls: float = 0.3
    """Share of walls in drawn mazes."""
    min_path: int | None = None
    """Fewest steps of the shortest path in drawn mazes; None is `side`."""
    augment: bool = True
    """Whether every training maze gets one of the 8 symmetries of the square (published: no)."""

    def __post_init__(self) -> None:
        check(3 <= self.side <= 100, "side", self.side, "3 to 100")
        check(0 <= self.walls < 1, "walls", self.walls, "at least 0, below 1")
        most = 2 * self.side - 2
        check(self.min_path is None or 1 <= self.min_path <= most, "min_path", self.min_path, f"1 to {most}")
        if self.files:
            forbid_unused(self, "files are given", "walls", "min_path")
        else:
            forbid_unused(self, "mazes are drawn", "test_files")
