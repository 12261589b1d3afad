"""The settings of the task n_rasp_l."""

from typing import Literal, get_args

from looped.strict import frozen
from looped.tasks.sequence import SequenceConfig

Problem = Literal["parity", "copy", "addition", "sum", "multiplication", "unique_set"]
PROBLEMS: tuple[Problem, ...] = get_args(Problem)


@frozen
class NRaspLConfig(SequenceConfig):
    """Problems whose number of loops grows with their length n (Fan et al., 2024)."""

    name = "n_rasp_l"

    problem: Problem = "parity"
    """parity of n bits. copy n bits. addition of two numbers of n bits. sum: the number of ones among n bits.
    multiplication of a number of 1 or 2 bits by one of n bits. unique_set: the different ones among n symbols."""
    length: int = 20
