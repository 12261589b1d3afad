"""`looped tasks`."""

import inspect
import tempfile
from pathlib import Path

from looped.commands.arguments import command
from looped.task_config import (
    CountdownConfig,
    EditDistanceConfig,
    InContextConfig,
    LCSConfig,
    SudokuConfig,
    TablesConfig,
    TextConfig,
)
from looped.tasks import TASKS


def tasks() -> None:
    """List the tasks, with an example of each."""
    with tempfile.TemporaryDirectory() as cache:
        # The text that is always at hand: this package.
        sources = tuple(map(str, sorted(Path(__file__).parents[1].glob("*.py"))))
        text = TextConfig(train_files=sources, document="paragraph", context=24, cache=cache)
        strings = [EditDistanceConfig(length=12), LCSConfig(length=12)]
        small = [
            *strings,
            SudokuConfig(pool=64),
            CountdownConfig(),
            InContextConfig(dim=4, points=6),
            TablesConfig(),
            text,
        ]
        for config in small:
            kind = TASKS[config.name]
            task = kind(config)
            problem = task.sample("train", 1, task.rng("train", 0, 0), None)[0]
            doc = (inspect.getdoc(kind) or "").partition("\n")[0]
            print(f"{config.name}: {doc}\n\n{task.describe(problem)}\n")


main = command(tasks)
