"""The settings of edit distance and longest common subsequence."""

from typing import Literal

from looped.strict import check, frozen
from looped.tasks.registry import TaskConfig


@frozen
class StringConfig(TaskConfig):
    """The settings of tasks on two strings."""

    length: int = 60
    """Length n of the first string in training. The second string has n-3 .. n+2 letters."""
    eval_lengths: tuple[int, ...] = ()
    """Further lengths for evaluation."""
    min_letters: int = 3
    max_letters: int = 26
    """Each pair has its own alphabet of min_letters .. max_letters letters."""
    letter_pool: int = 26
    """Number of letters, from a on, from which those alphabets are drawn."""
    version: Literal["corrected", "published"] = "corrected"
    """published follows the public code: the end token after the answer is scored too."""

    def __post_init__(self) -> None:
        for n in (self.length, *self.eval_lengths):
            check(4 <= n <= 1000, "length", n, "4 to 1000")
        low, high, pool = self.min_letters, self.max_letters, self.letter_pool
        check(1 <= pool <= 26, "letter_pool", pool, "1 to 26")
        check(1 <= low <= pool, "min_letters", low, f"1 to letter_pool={pool}")
        check(low <= high <= pool, "max_letters", high, "min_letters to letter_pool")
