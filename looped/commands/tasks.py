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
            task = kind(kind.example_config(Path(folder)))
            problem = task.sample("train", 1, task.rng("train", 0, 0), None)[0]
            doc = (inspect.getdoc(kind) or "").partition("\n")[0]
            print(f"{name}: {doc}\n\n{task.describe(problem)}\n")


main = command(tasks)
