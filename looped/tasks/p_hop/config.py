"""The settings of the task p_hop."""

from typing import Literal

from looped.strict import check, frozen
from looped.tasks.registry import TaskConfig


@frozen
class PHopConfig(TaskConfig):
    """p-hop induction: go to the last earlier occurrence of the current letter, step right, `hops` times."""

    name = "p_hop"

    hops: int = 16
    """Number p of hops."""
    length: int = 256
    """Number n of letters in a word."""
    letters: int = 4
    """Size of the alphabet."""
    version: Literal["corrected", "repeats"] = "corrected"
    """The letters of a word. corrected: uniform among those that differ from the one before. repeats: uniform, so the
    last two of a quarter of the words of 4 letters are equal, and their answer is the last letter."""
    loss: Literal["last", "dense"] = "last"
    """Positions that are scored in training. last: only the last one (published). dense: every position from which all
    hops are possible, which is learned in far fewer steps. The reported accuracy is that of the last position."""

    def __post_init__(self) -> None:
        check(3 <= self.letters <= 26, "letters", self.letters, "3 to 26")
        check(4 <= self.length <= 100_000, "length", self.length, "4 to 100,000")
        check(1 <= self.hops <= self.length - 2, "hops", self.hops, f"1 to {self.length - 2}, the length minus 2")
