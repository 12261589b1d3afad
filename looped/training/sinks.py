"""Copies of the rows of metrics.jsonl for trackio, wandb or TensorBoard."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from looped.config import RunConfig
from looped.extras import need
from looped.printing import one_line
from looped.run_folder import CONFIG
from looped.strict import to_dict

Send = Callable[[dict[str, float], int], Any]
"""Sends the values of a step."""
PATIENCE = 30.0
"""Seconds to wait for the last rows at the end of a training."""


class Sink:
    """Sends rows in a thread of its own, from the first one on: the training neither waits for it nor fails with it.

    A run has the name of its folder, in a project with the name of its recipe.
    """

    def __init__(self, run: RunConfig, folder: Path, say: Callable[[str], None], *, resumed: bool) -> None:
        """
        Args:
            say: prints a message about a failure.
            resumed: whether the rows continue those of an interrupted training.

        Raises:
            ValueError: the package of `train.log_to` is not installed; names the extra.
        """
        self.run, self.folder, self.resumed = run, folder, resumed
        self.option = f"--train.log-to {run.train.log_to}"
        self.say = say
        need(run.train.log_to, self.option)
        self.rows: SimpleQueue[tuple[dict[str, float], int] | None] = SimpleQueue()
        self.thread = Thread(target=self._work, daemon=True)
        self.failed = False

    def log(self, kind: str, row: dict[str, Any]) -> None:
        """Send a row of metrics.jsonl."""
        if self.failed:
            return
        if self.thread.ident is None:  # not earlier, because the processes that prepare batches are forked before
            self.thread.start()
        self.rows.put((_numbers(kind, row), row["step"]))

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *error: object) -> None:
        if self.thread.ident is not None:
            self.rows.put(None)
            self.thread.join(PATIENCE)
            if self.thread.is_alive():
                self.say(f"{self.option}: no answer in {PATIENCE:g} s; it may lack rows, which metrics.jsonl has")

    def _work(self) -> None:
        opened = _tensorboard if self.run.train.log_to == "tensorboard" else _tracker
        try:
            with opened(self.run, self.folder, self.resumed) as send:
                while (row := self.rows.get()) is not None:
                    send(*row)
        except Exception as error:
            self.failed = True
            reason = one_line(f"{type(error).__name__}: {error}")
            self.say(f"{self.option}: failed ({reason}); the training goes on, and metrics.jsonl has all rows")


def _numbers(kind: str, row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row by name, such as train/loss and validation/accuracy."""
    flat = {name: value for name, value in row.items() if name != "scores"} | row.get("scores", {})
    flat.pop("step")
    return {f"{kind}/{name}": value for name, value in flat.items() if isinstance(value, int | float)}


@contextlib.contextmanager
def _tracker(run: RunConfig, folder: Path, resumed: bool) -> Iterator[Send]:
    """A run of trackio or wandb."""
    options = {"project": run.recipe, "name": folder.name, "config": to_dict(run)}
    if run.train.log_to == "wandb":
        # A new training in a folder of this name is another run. Its config.json is as old as the training.
        began = (folder / CONFIG).stat().st_mtime_ns
        options |= {"id": re.sub(r"[^\w.-]", "-", f"{folder.name}-{began:x}"), "resume": "allow"}
    else:
        options |= {"resume": "allow" if resumed else "never", "embed": False}
    tracked = need(run.train.log_to, "--train.log-to").init(**options)
    try:
        yield lambda values, step: tracked.log(values, step=step)
    finally:
        tracked.finish()


@contextlib.contextmanager
def _tensorboard(run: RunConfig, folder: Path, resumed: bool) -> Iterator[Send]:
    """Event files in the run folder."""
    from torch.utils.tensorboard.writer import SummaryWriter

    def send(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    with SummaryWriter(str(folder / "tensorboard")) as writer:
        yield send
