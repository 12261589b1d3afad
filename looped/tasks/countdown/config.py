"""The settings of the task countdown."""

from looped.strict import check, fraction, frozen, positive
from looped.tasks.registry import TaskConfig


@frozen
class CountdownConfig(TaskConfig):
    """Reach a target from given numbers, each used once, by + - * /."""

    name = "countdown"

    numbers: int = 4
    max_number: int = 99
    min_target: int = 10
    max_target: int = 100
    held_out: float = 0.1
    """Share of the targets that never occur in training."""
    target_seed: int = 4

    def __post_init__(self) -> None:
        check(2 <= self.numbers <= 6, "numbers", self.numbers, "2 to 6")
        positive(self, "min_target")
        check(2 <= self.max_number <= 999, "max_number", self.max_number, "2 to 999")
        allowed = f"more than min_target={self.min_target}, up to 999"
        check(self.min_target < self.max_target <= 999, "max_target", self.max_target, allowed)
        fraction(self, "held_out")
        held_out = int(self.held_out * (self.max_target - self.min_target + 1))
        check(held_out >= 1, "held_out", self.held_out, "a share that holds out at least one target")
        check(self.held_out < 1, "held_out", self.held_out, "a share that leaves targets for training")
