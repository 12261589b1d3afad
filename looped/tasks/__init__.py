"""Tasks. Each folder holds one: settings, sampler, solver, encoding and files. Users register their own."""

from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:  # one public name a line; each is imported only when it is used, because settings need no torch
    from looped.strict import frozen as frozen
    from looped.tasks.base import Batch as Batch
    from looped.tasks.base import Task as Task
    from looped.tasks.base import TaskSpec as TaskSpec
    from looped.tasks.base import split_of as split_of
    from looped.tasks.registry import TASKS as TASKS
    from looped.tasks.registry import TaskConfig as TaskConfig
    from looped.tasks.registry import register as register
    from looped.tasks.sequence import SequenceConfig as SequenceConfig
    from looped.tasks.sequence import SequenceTask as SequenceTask
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
