"""The settings of the task n_ary_addition."""

from looped.strict import check, frozen
from looped.tasks.registry import TaskConfig


@frozen
class NAryAdditionConfig(TaskConfig):
    """The sum of n numbers, written as digits."""

    name = "n_ary_addition"

    operands: tuple[int, ...] = (2, 4, 8, 16, 32)
    """The numbers n of operands in training, all equally likely."""
    eval_operands: tuple[int, ...] = (8, 16, 24, 32)
    """Those in evaluation, one group for each."""
    digits: int = 3
    """Digits of an operand, with leading zeros. The answer has none."""

    def __post_init__(self) -> None:
        for name in ("operands", "eval_operands"):
            counts = getattr(self, name)
            fits = counts and len({*counts}) == len(counts) and all(1 <= n <= 10_000 for n in counts)
            check(bool(fits), name, counts, "different numbers from 1 to 10,000")
        check(1 <= self.digits <= 15, "digits", self.digits, "1 to 15")
