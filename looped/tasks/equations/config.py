"""The settings of the task equations."""

from typing import ClassVar

from looped.strict import check, frozen
from looped.tasks.chain_config import ChainConfig


@frozen
class EquationsConfig(ChainConfig):
    """Linear equations modulo a prime. `length` is the number of variables."""

    name = "equations"

    length: int = 3
    modulus: int = 11
    """A prime; the numbers are 0 to modulus - 1."""

    largest: ClassVar[int] = 26

    def __post_init__(self) -> None:
        ChainConfig.__post_init__(self)
        p = self.modulus
        check(2 <= p <= 1000 and all(p % k for k in range(2, p)), "modulus", p, "a prime below 1000")
