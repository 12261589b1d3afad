"""A few real training steps in a process of its own, to measure their time and memory.

The memory of a process depends on what ran in it before. A process that takes too much memory may also be killed.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from looped.config import RunConfig
from looped.models.graphs import share_graphs
from looped.models.transformer import LoopedTransformer
from looped.tasks import TASKS
from looped.tasks.base import Batch, Task
from looped.training.devices import find_device, peak_memory, uses_native
from looped.training.fabric import make_fabric
from looped.training.optim import WeightAverage, make_optimizers
from looped.training.step import ModelWithLoss, train_step, validate

LONGEST = 3.0
"""Seconds that one step may take; of a longer step, a part is measured."""
MEASURED = 1.0
"""Seconds in which a step is repeated."""

End = tuple[Batch, tuple[int, int]]
"""A batch of the training, and the loops of its step."""


@dataclass(frozen=True)
class Measured:
    """Memory and time of the steps."""

    growth: int
    """Peak bytes of the process, or of the GPU, beyond those at the start."""
    seconds: list[float]
    """Seconds of a step, for each end."""
    validation: float
    """Seconds for a validation example."""


def rows_of(batch: Batch, rows: int) -> Batch:
    """A batch of this size, with the given examples again and again."""
    return batch.map(lambda tensor: tensor[torch.arange(rows) % len(tensor)])


class Steps:
    """The model of a run, and real steps with it."""

    def __init__(self, run: RunConfig) -> None:
        self.run, self.fabric = run, make_fabric(run)
        self.start = 0 if self.fabric.device.type == "cuda" else peak_memory(self.fabric.device)
        self.model = LoopedTransformer(run.model, seed=run.train.seed)
        share_graphs(self.model, TASKS[run.task.name](run.task).graphs if run.model.graph_heads else {})
        if uses_native(run, self.fabric.device):
            self.model.use_native()  # torch.compile would take longer than a plan
        self.scored = self.fabric.setup_module(ModelWithLoss(self.model, run.train))
        self.optimizers = make_optimizers(self.model, run.optim)
        self.average = WeightAverage(self.model, run.optim.ema_decay) if run.optim.ema_decay else None

    def seconds(self, batch: Batch, loops: tuple[int, int]) -> float:
        """Seconds of one step."""
        began = time.perf_counter()
        train_step(self.fabric, self.scored, self.optimizers, batch, self.run, 0, loops)
        if self.average:
            self.average.update()
        return time.perf_counter() - began

    def measure(self, ends: Sequence[End], task: Task, validation: Batch, part: int) -> Measured:
        """Repeat the step of each end, then validate one part of a batch."""
        medians = []
        for batch, loops in ends:
            self.seconds(batch, loops)  # the first step also prepares what later ones use
            taken = [self.seconds(batch, loops) for _ in range(2)]
            while sum(taken) < MEASURED and len(taken) < 50:
                taken.append(self.seconds(batch, loops))
            medians.append(statistics.median(taken))
        began = time.perf_counter()
        loops = max(end[1][0] for end in ends)
        validate(self.fabric, self.model, task, rows_of(validation, part), loops, part)
        seconds = (time.perf_counter() - began) / part
        return Measured(peak_memory(self.fabric.device) - self.start, medians, seconds)


def probe(run: RunConfig, end: End, most: int) -> float:
    """Seconds for an example, found with more and more examples, up to `most`."""
    steps, rows, (batch, loops) = Steps(run), 1, end
    seconds = min(steps.seconds(rows_of(batch, 1), loops) for _ in range(2))
    while rows < most and min(4, most / rows) * seconds < LONGEST:
        rows = min(4 * rows, most)
        seconds = min(steps.seconds(rows_of(batch, rows), loops) for _ in range(2))
    return seconds / rows


def measure(run: RunConfig, ends: Sequence[End], task: Task, validation: Batch, part: int) -> Measured:
    """As `Steps.measure`."""
    return Steps(run).measure(ends, task, validation, part)


def apart(function: Any, threads: int, run: RunConfig, *arguments: Any) -> Any:
    """The result of a function in a process of its own, with so many threads; None if the process was killed.

    The caller must not have computed with several threads, or the forked process hangs.
    """
    fork = sys.platform == "linux" and find_device(run.train.device) == "cpu"
    context: Any = multiprocessing.get_context("fork" if fork else "spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(writer, function, threads, run, *arguments), daemon=True)
    process.start()
    writer.close()
    try:
        result = reader.recv()
    except EOFError:
        return None
    finally:
        process.join()
    if isinstance(result, Exception):
        raise result
    return result


def _send(writer: Connection, function: Any, threads: int, *arguments: Any) -> None:
    torch.set_num_threads(threads)
    try:
        writer.send(function(*arguments))
    except Exception as error:
        writer.send(error)
