"""The registered tasks: the folders beside this file, those of installed packages, and the user's own."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from looped.strict import Named, frozen, nearest

if TYPE_CHECKING:
    from looped.tasks.base import Task

T = TypeVar("T", bound="type[Task]")

GROUP = "looped.tasks"


@frozen
class TaskConfig(Named):
    """The base class of every task's settings. `register` gives each class the `name` of its task."""

    resets: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Fields of a recipe that return to their defaults if the user sets a certain field on the command line."""
    paths: ClassVar[tuple[str, ...]] = ()
    """Fields that name files or folders. A run folder from elsewhere may not name files outside the working folder."""

    @classmethod
    def kind(cls, name: str) -> type[TaskConfig]:
        return TASKS[name].Config

    @property
    def has_data(self) -> bool:
        """Whether the settings are enough for examples. Without them a task can only answer (`Task.answering`)."""
        return True


class UnknownTaskError(KeyError, ValueError):
    """No task has this name."""

    def __str__(self) -> str:
        return self.args[0]


class TaskRegistry(Mapping[str, "type[Task]"]):
    """All tasks by name. The module `task` of a task's folder is imported when the task is first used."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Task]] = {}

    def __getitem__(self, name: str) -> type[Task]:
        """The class of the task with this name.

        Raises:
            UnknownTaskError: no task has this name. This is a KeyError and a ValueError.
        """
        if name not in self._classes:
            if name in _folders():
                importlib.import_module(f"{__package__}.{name}.task")
            elif name in _installed():
                _installed()[name].load()
        if name not in self._classes:
            raise UnknownTaskError(
                f"task {name!r}: unknown{nearest(name, self)}; expected one of {', '.join(self)}, or a task of your "
                "own, which `looped --import FILE_OR_MODULE ...` makes known"
            )
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*_folders(), *_installed(), *self._classes)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def add(self, name: str, task: type[Task]) -> None:
        """Register a task under a name.

        Raises:
            ValueError: the name is taken, or the class has no settings of its own.
        """
        config = getattr(task, "Config", None)
        if not (isinstance(config, type) and issubclass(config, TaskConfig) and dataclasses.is_dataclass(config)):
            raise ValueError(f"task {name!r}: {task.__name__}.Config={config!r}: expected a @frozen TaskConfig class")
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            raise ValueError(f"task {name!r}: expected a name of letters, digits and underscores")
        if "Config" not in vars(task):  # settings that a base class shares between tasks
            config = task.Config = frozen(type(f"{task.__name__}Config", (config,), {"__module__": task.__module__}))
        if vars(config).get("name", name) != name:
            raise ValueError(f"task {name!r}: {config.__qualname__} already belongs to the task {config.name!r}")
        ours = name in _folders() and not f"{task.__module__}.".startswith(f"{__package__}.{name}.")
        again = self._classes.get(name)
        if again is not None and (again.__module__, again.__qualname__) == ("__main__", task.__qualname__):
            again = None  # a cell of a notebook that runs once more
        if ours or again is not None:
            owner = f"{__package__}.{name}" if ours else self._classes[name].__module__
            raise ValueError(f"task {name!r}: the name is taken by {owner}; choose another one")
        task.name = config.name = name
        if task.metric == "squared_error":  # the default score of real targets
            task.lower_is_better = True
        if not hasattr(task, "title"):
            task.title = name.replace("_", " ").capitalize()
        self._classes[name] = task


TASKS = TaskRegistry()


def register(name: str) -> Callable[[T], T]:
    """Decorator that registers a task: `@register("parity")` above a subclass of `Task`.

    The class needs an attribute `Config`, the class of its settings. An installed package lists its tasks in the entry
    point group `looped.tasks`, such as `parity = "my_package.parity:Parity"`.

    Raises:
        ValueError: the name is taken, or the class has no settings of its own.
    """

    def known(task: T) -> T:
        TASKS.add(name, task)
        return task

    return known


@cache
def _folders() -> tuple[str, ...]:
    return tuple(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.ispkg)


@cache
def _installed() -> dict[str, Any]:
    """The entry points of installed packages, by the name of the task."""
    from importlib.metadata import entry_points  # takes 10 ms

    return {entry.name: entry for entry in entry_points(group=GROUP)}
