"""The settings of tasks whose answers follow from a chain of steps."""

from typing import ClassVar, Literal

from looped.strict import check, frozen
from looped.tasks.growing import Growing


@frozen
class ChainConfig(Growing):
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
        Growing.__post_init__(self)
        for length in (self.length, *self.eval_lengths):
            check(self.smallest <= length <= self.largest, "length", length, f"{self.smallest} to {self.largest}")
        for name, least, most in (
            ("min_length", self.smallest, self.length),
            ("start_length", self.min_length or self.length, self.length),
        ):
            value, wanted = getattr(self, name), f"{least} to {most}"
            check(value is None or least <= value <= most, name, value, wanted)
