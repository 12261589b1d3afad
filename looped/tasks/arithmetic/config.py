"""The settings of the task arithmetic."""

from looped.strict import check, frozen
from looped.tasks.rounds_config import RoundsConfig


@frozen
class ArithmeticConfig(RoundsConfig):
    """Expressions of numbers modulo a prime. `length` is the number of operators."""

    name = "arithmetic"

    modulus: int = 11
    """A prime; the numbers are 0 to modulus - 1."""

    def __post_init__(self) -> None:
        RoundsConfig.__post_init__(self)
        p = self.modulus
        prime = 2 <= p <= 1000 and all(p % k for k in range(2, p))
        check(prime, "modulus", p, "a prime below 1000")
