"""Shared by the parts of `benchmarks.gpu`: results, settings, and steps of the Sudoku recipe on random boards."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from looped.config import RunConfig
from looped.files import write_atomic
from looped.models import LoopedTransformer
from looped.recipes import recipe
from looped.tasks.base import Batch
from looped.tasks.sudoku import SudokuConfig
from looped.training.fabric import make_fabric
from looped.training.optim import WeightAverage, make_optimizers
from looped.training.queue import Queue
from looped.training.step import ModelWithLoss, train_step

Way = Literal["waits", "queued", "recorded"]
"""How the host starts a step: it waits for the values, or it does not, or it starts one CUDA graph."""


class Results:
    """The values of one part, which are written to a file after each of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}

    def add(self, name: str, value: Any) -> None:
        self.values[name] = value
        print(f"  {name:66} {f'{value:.4g}' if isinstance(value, float) else value}", flush=True)
        write_atomic(self.path, json.dumps(self.values, indent=2) + "\n")

    def attempt(self, name: str, measure: Callable[[], Any]) -> None:
        """Add the value of a measurement, or its error."""
        try:
            self.add(name, measure())
        except Exception as error:
            self.add(f"{name}: error", f"{type(error).__name__}: {error}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The device and sizes of the measurements, and the time left for a part."""

    device: torch.device
    small: bool
    files: tuple[str, ...] = ()
    until: float = 0.0
    """`time.monotonic()` at which the part should be done."""

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object], repeats: int) -> float:
        """Mean seconds of a call among `repeats` calls, without waiting for the device between them."""
        self.wait()
        began = time.perf_counter()
        for _ in range(repeats):
            run()
        self.wait()
        return (time.perf_counter() - began) / repeats


def sudoku(setting: Setting, **train_options: Any) -> RunConfig:
    """The recipe, without the sizes of the task; narrow and on 4x4 boards if `small`."""
    run = recipe("sudoku")
    options = {"batch_size": 256, "device": setting.device.type, **train_options}
    if setting.small:
        model = dataclasses.replace(run.model, d_model=32, num_heads=2, num_loops=3)
        optim = dataclasses.replace(run.optim, warmup_steps=2)
        run = dataclasses.replace(run, model=model, optim=optim, task=SudokuConfig(box=2, pool=300))
        options = {**options, "batch_size": options["batch_size"] // 128}
    return dataclasses.replace(run, train=dataclasses.replace(run.train, **options))


def on_random_boards(run: RunConfig) -> RunConfig:
    """The run with the sizes of 9x9 boards, without preparing any."""
    return dataclasses.replace(run, model=dataclasses.replace(run.model, vocab_size=10, output_size=10, max_seq_len=81))


def boards(run: RunConfig, number: int) -> Batch:
    """A batch of random cells, a fifth of them given; learning is not needed here."""
    generator, shape = torch.Generator().manual_seed(number), (run.train.batch_size, 81)
    inputs, targets = (torch.randint(10, shape, generator=generator) for _ in range(2))
    mask = torch.rand(shape, generator=generator) < 0.8
    return Batch(inputs, targets, mask, torch.ones_like(mask))


def stepper(run: RunConfig, way: Way) -> tuple[ModelWithLoss, Callable[[Batch], None], Callable[[], list[float]]]:
    """A new model, a function that starts a step, and one that returns the losses since the last call."""
    fabric = make_fabric(run)
    model = LoopedTransformer(run.model)
    if run.train.compile:
        torch._dynamo.reset()  # otherwise it gives up after compiling a few models
        model.compile_core()
    module = ModelWithLoss(model, run.train)
    scored = fabric.setup_module(module)
    optimizers = make_optimizers(model, run.optim)
    average = WeightAverage(model, run.optim.ema_decay) if run.optim.ema_decay else None
    queue = Queue(fabric, scored, optimizers, average, run)
    queue.recorded.possible = way == "recorded"
    loops, losses, steps = (run.model.num_loops, run.model.num_loops), list[float](), iter(range(10**9))

    def start(batch: Batch) -> None:
        if way != "waits":
            queue.add(batch, next(steps), loops)
            return
        losses.append(train_step(fabric, scored, optimizers, batch, run, next(steps), loops)["loss"])
        if average:
            average.update()

    def read() -> list[float]:
        losses.extend(values["loss"] for _, values in queue.read())
        found = losses.copy()
        losses.clear()
        return found

    return module, start, read
