"""Tasks: each folder is one, with its settings, sampler, solver, encoding and files. Users register their own."""

import importlib
from typing import TYPE_CHECKING, Any

from looped.strict import frozen
from looped.tasks.registry import TASKS, TaskConfig, register

if TYPE_CHECKING:
    from looped.tasks.base import Batch, Task, TaskSpec, split_of
    from looped.tasks.sequence import SequenceTask

__all__ = ["TASKS", "Batch", "SequenceTask", "Task", "TaskConfig", "TaskSpec", "frozen", "register", "split_of"]


def __getattr__(name: str) -> Any:
    """The names that need torch, imported when they are first used: settings need none."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "sequence" if name == "SequenceTask" else "base"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
