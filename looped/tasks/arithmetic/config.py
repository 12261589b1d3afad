"""The settings of the task arithmetic."""

from typing import Literal

from looped.strict import check, frozen
from looped.tasks.rounds_config import RoundsConfig


@frozen
class ArithmeticConfig(RoundsConfig):
    """Expressions of numbers modulo a prime. `length` is the number of operators."""

    name = "arithmetic"

    modulus: int = 11
    """A prime; the numbers are 0 to modulus - 1."""
    order: Literal["random", "first"] = "random"
    """Order of the operations of a chain. random: the way back to the number from which the expression grew
    (published). first: the first operation that may be computed before all others, so a question has one chain."""

    def __post_init__(self) -> None:
        RoundsConfig.__post_init__(self)
        p = self.modulus
        prime = 2 <= p <= 1000 and all(p % k for k in range(2, p))
        check(prime, "modulus", p, "a prime below 1000")
