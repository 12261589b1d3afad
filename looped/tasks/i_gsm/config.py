"""The settings of the task i_gsm."""

from typing import Literal

from looped.strict import check, frozen, ordered, positive
from looped.tasks.registry import TaskConfig


@frozen
class IGSMConfig(TaskConfig):
    """Arithmetic modulo 7 on definitions in random order that depend on each other."""

    name = "i_gsm"

    levels: int = 4
    """Depth of the hierarchy of entities."""
    min_entities: int = 2
    max_entities: int = 4
    """Range of the number of entities on a level."""
    min_parameters: int = 8
    max_parameters: int = 16
    """Range of the number of parameters, which are edges between entities of consecutive levels."""
    min_operations: int = 4
    max_operations: int = 8
    """Range of the number of other parameters that the query needs, in training and in the groups of evaluation."""
    eval_operations: tuple[int, ...] = ()
    """Further groups for evaluation. With the default sizes, those above 10 are rare and take long to draw."""
    version: Literal["corrected", "published"] = "corrected"
    """A multiple of a sum. corrected: `2 * ( a + b )`. published: `2 * a + b`, which means the same."""

    def __post_init__(self) -> None:
        check(2 <= self.levels <= 26, "levels", self.levels, "2 to 26")
        positive(self, "min_entities", "min_parameters", "min_operations")
        for name in ("entities", "parameters", "operations"):
            ordered(self, name)
        most = 26 // self.levels
        check(self.max_entities <= most, "max_entities", self.max_entities, f"at most {most}: there are 26 letters")
        check(self.max_parameters <= 1000, "max_parameters", self.max_parameters, "at most 1,000")
        for n in (self.max_operations, *self.eval_operations):
            field = "max_operations" if n == self.max_operations else "eval_operations"
            check(1 <= n < self.max_parameters, field, n, f"1 to below max_parameters={self.max_parameters}")
        within = [n for n in self.eval_operations if self.min_operations <= n <= self.max_operations]
        check(not within, "eval_operations", self.eval_operations, "numbers outside the range of training")
