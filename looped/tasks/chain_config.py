"""The settings of tasks whose answers follow from a chain of steps."""

from typing import ClassVar, Literal

from looped.strict import check, frozen
from looped.tasks.registry import TaskConfig


@frozen
class ChainConfig(TaskConfig):
    """The settings of every task with chains. A task may add settings or change defaults."""

    answer: Literal["direct", "chain"] = "chain"
    """direct: the answer follows the question. chain: the steps of the solution come first (chain of thought)."""
    length: int = 4
    """The largest problem in training."""
    min_length: int | None = None
    """The smallest problem in training. A length is drawn in proportion to itself. None is only `length`."""
    eval_lengths: tuple[int, ...] = ()
    """Further lengths for evaluation."""

    smallest: ClassVar[int] = 1
    largest: ClassVar[int] = 1000
    """The smallest and the largest possible problem."""

    def __post_init__(self) -> None:
        for length in (self.length, *self.eval_lengths):
            check(self.smallest <= length <= self.largest, "length", length, f"{self.smallest} to {self.largest}")
        least = self.min_length
        wanted = f"{self.smallest} to length={self.length}"
        check(least is None or self.smallest <= least <= self.length, "min_length", least, wanted)
