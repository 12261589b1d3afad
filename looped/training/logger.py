"""Records of a training run: metrics.jsonl, environment.json, and a progress bar."""

import json
import os
import platform
import shlex
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from looped.config import RunConfig
from looped.files import open_to_append, sync
from looped.machine import processor
from looped.training.sinks import Sink


class Meter:
    """Means and speed since the last line of metrics.jsonl. Checkpoints contain the sums, but not the times."""

    def __init__(self, sums: dict[str, float] | None = None) -> None:
        self.sums = dict(sums or {})
        self.waited = 0.0
        """Seconds of waiting for batches."""
        self.examples = self.tokens = self.flops = 0
        """Examples, tokens and FLOPs of the steps since the clock began."""
        self.began = time.perf_counter()

    def add(self, batch: tuple[int, int], flops: int, **values: float) -> None:
        """Add one step on a batch of (examples, positions per example) with `flops` floating-point operations."""
        self.examples += batch[0]
        self.tokens += batch[0] * batch[1]
        self.flops += flops
        for name, value in {"steps": 1, **values}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        return {name: value / self.sums["steps"] for name, value in self.sums.items() if name != "steps"}

    def speed(self, matmul_peak: float) -> dict[str, float]:
        """Rates since the last line. `matmul_peak` is the peak of the hardware, in FLOPs per second."""
        elapsed = time.perf_counter() - self.began
        return {
            "examples_per_s": self.examples / elapsed,
            "tokens_per_s": self.tokens / elapsed,
            "matmul_share": self.flops / elapsed / matmul_peak,
            "data_wait": self.waited / elapsed,
        }


class Metrics:
    """The file metrics.jsonl, which grows by whole lines, and their copies in a sink.

    Raises:
        ValueError: the file is shorter than the checkpoint says; raised when it is opened.
        OSError: a line cannot be written; the file then ends with its last whole line.
    """

    def __init__(self, path: Path, size: int, sink: Sink | None = None) -> None:
        """Open the file and cut it back to `size` bytes, because the steps after the checkpoint are computed again."""
        self.path, self.size, self.sink = path, size, sink
        with open_to_append(path) as file:
            if file.tell() < size:
                raise ValueError(f"{path}: {file.tell()} bytes, but the checkpoint was written after {size}")
            self.sent = path.read_bytes()[size:].count(b"\n")
            """Rows that the sink has already, because they are written again."""
            file.truncate(size)

    def write(self, kind: str, **values: Any) -> None:
        line = json.dumps({"kind": kind, **values}).encode() + b"\n"
        try:
            with open_to_append(self.path) as file:
                file.write(line)
        except OSError:
            with open_to_append(self.path) as file:
                file.truncate(self.size)
            raise
        self.size += len(line)
        if self.sink and not self.sent:
            self.sink.log(kind, values)
        self.sent = max(self.sent - 1, 0)

    def sync(self) -> int:
        """Wait until the file is on the disk. Returns its size in bytes."""
        sync(self.path)
        return self.size


class Display:
    """A progress bar on a terminal, or an occasional plain line elsewhere; both on standard error."""

    def __init__(self, run: RunConfig, step: int, *, enabled: bool) -> None:
        self.run = run
        self.console = Console(stderr=True, quiet=not enabled)
        status = TextColumn("{task.fields[status]}", markup=False)
        terminal = self.console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), status,
            console=self.console, refresh_per_second=4, disable=not terminal,
        )  # fmt: skip
        self.task = self.bar.add_task(run.recipe, total=run.train.steps, completed=step, status="")

    def __enter__(self) -> "Display":
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def update(self, step: int, means: dict[str, float], examples_per_s: float) -> None:
        config = self.run.train
        left = timedelta(seconds=round((config.steps - step) * config.batch_size / examples_per_s))
        accuracy = f"  accuracy {means['accuracy']:.3f}" if "accuracy" in means else ""
        accuracy += f"  unconverged {means['unconverged']:.0%}" if means.get("unconverged") else ""
        status = f"loss {means['loss']:.4f}{accuracy}  {examples_per_s:,.0f} examples/s  {left} left"
        self.bar.update(self.task, completed=step, status=status)
        if not self.console.is_terminal and (step % (10 * config.log_every) == 0 or step == config.steps):
            self.say(f"step {step}/{config.steps}  {status}")

    def say(self, text: str) -> None:
        self.console.print(f"{self.run.recipe}: {text}", markup=False, highlight=False, soft_wrap=True)


def environment(precision: str, device: torch.device) -> dict[str, Any]:
    """The machine and the program, as the fields of `run_folder.Environment`."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name.replace("cli.py", "looped"), *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "looped": version("looped"),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
