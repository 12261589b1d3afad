"""The settings of the task edit_distance_chain."""

from typing import ClassVar, Literal

from looped.strict import check, frozen
from looped.tasks.rounds_config import RoundsConfig


@frozen
class EditDistanceChainConfig(RoundsConfig):
    """Edit distance with its table. `length` is the number of letters of the first string that is drawn."""

    name = "edit_distance_chain"

    length: int = 12
    min_letters: int = 3
    max_letters: int = 10
    """Each pair has its own alphabet of min_letters .. max_letters letters."""
    letter_pool: int = 26
    """Number of letters, from a on, from which those alphabets are drawn."""
    version: Literal["corrected", "published"] = "corrected"
    """published: as in the public code, gaps at the start of a string cost 1 instead of 2."""

    smallest: ClassVar[int] = 4

    def __post_init__(self) -> None:
        RoundsConfig.__post_init__(self)
        low, high, pool = self.min_letters, self.max_letters, self.letter_pool
        check(1 <= low <= high <= pool <= 26, "letters", (low, high, pool), "1 <= min <= max <= pool <= 26")
