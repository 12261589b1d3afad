"""The settings of the task increasing_subsequence."""

from typing import ClassVar

from looped.strict import check, frozen
from looped.tasks.rounds_config import RoundsConfig


@frozen
class IncreasingSubsequenceConfig(RoundsConfig):
    """The longest increasing subsequence. `length` is the number of numbers in a sequence."""

    name = "increasing_subsequence"

    length: int = 50
    numbers: int = 150
    """The numbers of a sequence are below this, and larger than the longest length."""

    smallest: ClassVar[int] = 3

    def __post_init__(self) -> None:
        RoundsConfig.__post_init__(self)
        shortest = min(self.length, self.min_length or self.length, *self.eval_lengths)
        fits = self.answer != "rounds" or shortest > 10
        check(fits, "length", shortest, "at least 11 with answer='rounds', because a round has ten lengths")
        least = 2 * max(self.length, *self.eval_lengths, 0) + 1
        check(self.numbers >= least, "numbers", self.numbers, f"at least {least}, twice the longest length plus 1")
