"""The settings of tasks that are also answered in rounds."""

from typing import Literal

from looped.strict import frozen
from looped.tasks.chain_config import ChainConfig


@frozen
class RoundsConfig(ChainConfig):
    """The settings of tasks with rounds."""

    answer: Literal["direct", "chain", "rounds"] = "chain"  # pyright: ignore[reportIncompatibleVariableOverride]
    """direct: the answer follows the question. chain: the steps of the solution come first (chain of thought). rounds:
    a bidirectional model answers after as many loops as the chain has rounds, and with train.loss=steps it should write
    round t after loop t (RELAY, Yu et al., 2025)."""
