"""Problems that grow with the training step."""

from looped.strict import check, forbid_unused, frozen
from looped.tasks.registry import TaskConfig


@frozen
class Growing(TaskConfig):
    """Settings of a task whose problems get longer during training."""

    start_length: int | None = None
    """The longest problem in the first step; None is the same length in all steps."""
    length_every: int | None = None
    """Number of steps after which the longest problem becomes one longer."""

    def __post_init__(self) -> None:
        if self.start_length is None:
            forbid_unused(self, "start_length=None", "length_every")
            return
        check(self.start_length >= 1, "start_length", self.start_length, "at least 1")
        given = self.length_every is not None and self.length_every >= 1
        check(given, "length_every", self.length_every, "a number of steps with start_length")

    def longest_at(self, step: int, longest: int) -> int:
        """The longest problem at a training step (counted from 0) of a task whose problems grow to `longest`."""
        if self.start_length is None or self.length_every is None:
            return longest
        return min(longest, self.start_length + step // self.length_every)
