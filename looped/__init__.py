"""Looped transformers: train them, compare them, look inside them."""

from looped.config import ModelConfig, OptimConfig, RunConfig, ScheduleConfig, TrainConfig
from looped.evaluation.evaluate import evaluate
from looped.models import LoopedOutput, LoopedTransformer, StateChange
from looped.recipes import RECIPES, complete, recipe
from looped.report import report
from looped.runs import evaluate_run
from looped.tasks import TASKS, Batch, Task
from looped.training import LoopSchedule, NonFiniteError, load_run, train

__all__ = [
    "RECIPES",
    "TASKS",
    "Batch",
    "LoopSchedule",
    "LoopedOutput",
    "LoopedTransformer",
    "ModelConfig",
    "NonFiniteError",
    "OptimConfig",
    "RunConfig",
    "ScheduleConfig",
    "StateChange",
    "Task",
    "TrainConfig",
    "complete",
    "evaluate",
    "evaluate_run",
    "load_run",
    "recipe",
    "report",
    "train",
]
