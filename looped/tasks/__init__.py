"""The tasks by the name that their configuration carries."""

from looped.tasks.base import Batch, Task
from looped.tasks.countdown import Countdown
from looped.tasks.edit_distance import EditDistance
from looped.tasks.in_context import InContext
from looped.tasks.lcs import LongestCommonSubsequence
from looped.tasks.sudoku import Sudoku
from looped.tasks.tables import Tables
from looped.tasks.text import Text

TASKS: dict[str, type[Task]] = {
    "edit_distance": EditDistance,
    "lcs": LongestCommonSubsequence,
    "sudoku": Sudoku,
    "countdown": Countdown,
    "in_context": InContext,
    "tables": Tables,
    "text": Text,
}

__all__ = ["TASKS", "Batch", "Task"]
