"""Looped transformers: train them, compare them, look inside them."""

from looped.config import ModelConfig, OptimConfig, RunConfig, ScheduleConfig, TrainConfig
from looped.evaluation.scores import evaluate
from looped.models import (
    Act,
    Cache,
    Entropy,
    Fixed,
    Gate,
    KLDivergence,
    LoopedOutput,
    LoopedTransformer,
    StateChange,
    Unchanged,
    parse_rule,
)
from looped.models.generation import Sampling, generate, stream
from looped.recipes import RECIPES, complete, recipe
from looped.report import report
from looped.runs import calibrate_run, evaluate_run
from looped.tasks import TASKS, Batch, Task
from looped.training import LoopSchedule, NonFiniteError, load_run, train

__all__ = [
    "RECIPES",
    "TASKS",
    "Act",
    "Batch",
    "Cache",
    "Entropy",
    "Fixed",
    "Gate",
    "KLDivergence",
    "LoopSchedule",
    "LoopedOutput",
    "LoopedTransformer",
    "ModelConfig",
    "NonFiniteError",
    "OptimConfig",
    "RunConfig",
    "Sampling",
    "ScheduleConfig",
    "StateChange",
    "Task",
    "TrainConfig",
    "Unchanged",
    "calibrate_run",
    "complete",
    "evaluate",
    "evaluate_run",
    "generate",
    "load_run",
    "parse_rule",
    "recipe",
    "report",
    "stream",
    "train",
]
