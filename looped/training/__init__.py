"""Training of a run configuration into a run folder."""

from looped.training.checkpoint import load_run
from looped.training.schedule import LoopSchedule
from looped.training.step import NonFiniteError
from looped.training.trainer import train

__all__ = ["LoopSchedule", "NonFiniteError", "load_run", "train"]
