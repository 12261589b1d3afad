"""`looped tasks`."""

import inspect
import tempfile
from pathlib import Path

from looped.commands.arguments import command
from looped.tasks import TASKS


def tasks() -> None:
    """List the tasks, with an example of each."""
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in TASKS.items():
            print(f"{name}: {(inspect.getdoc(kind) or '').partition(chr(10))[0]}\n")
            for config in kind.example_configs(Path(folder)):
                task = kind(config)
                problem = task.sample("train", 1, task.rng("train", 0, 0), None)[0]
                print(f"{task.describe(problem)}\n")


main = command(tasks)
