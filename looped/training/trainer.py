"""Training: from a run configuration to a run folder."""

import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, Dataset

from looped.config import RunConfig, TrainConfig
from looped.costs.count import (
    effective_depth,
    flops,
    logits_in_training,
    non_embedding_parameters,
    parameters,
    training_flops,
)
from looped.locks import locked
from looped.models.transformer import LoopedTransformer
from looped.run_data import check_data, write_data
from looped.run_folder import CONFIG, Best, Environment, MetricsRow, Summary, open_run, write_config, write_file
from looped.tasks import TASKS
from looped.tasks.base import Batch, Task
from looped.training import checkpoint
from looped.training.devices import (
    Interrupt,
    leave_signals_to_parent,
    matmul_peak,
    peak_memory,
    should_compile,
)
from looped.training.errors import NonFiniteError
from looped.training.fabric import make_fabric
from looped.training.logger import Display, Meter, Metrics, environment
from looped.training.optim import WeightAverage, make_optimizers
from looped.training.schedule import LoopSchedule, learning_rate_at
from looped.training.step import ModelWithLoss, train_step, validate


def train(run: RunConfig, folder: Path, *, resume: bool = False) -> dict[str, Any]:
    """Train a run and write everything into `folder` (see docs/design.md, "The run folder").

    SIGINT and SIGTERM end the run after the current step, with a checkpoint and finished="interrupted".

    Args:
        run: a configuration without sizes that are None.
        resume: continue from the last checkpoint in `folder`. The result is bit for bit that of an uninterrupted run.
            For a finished run this only returns its summary.

    Returns:
        The content of summary.json.

    Raises:
        ValueError: no such device; another process writes into the folder; resume=False and the folder already holds a
            run; resume=True and the folder holds no run, another one, or a damaged checkpoint; the data changed.
        OSError: a file cannot be written; earlier files are intact.
        NonFiniteError: a loss or gradient is not finite; a checkpoint of the last good weights is written first.
    """
    folder = Path(folder)
    fabric = make_fabric(run)
    with locked(folder) if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            summary = open_run(run, folder, resume)
            if summary is not None:
                return asdict(summary)
        fabric.launch()
        with Interrupt() as interrupt:
            return Trainer(run, folder, fabric).run_to_end(interrupt)


class TrainingBatches(Dataset[list[np.ndarray]]):
    """The training batch of each step as arrays, because tensors would take 0.8 ms longer between processes."""

    def __init__(self, task: Task, config: TrainConfig) -> None:
        self.task, self.config = task, config

    def __getitem__(self, step: int) -> list[np.ndarray]:
        batch = self.task.batch("train", step, self.config.batch_size, seed=self.config.seed)
        return [tensor.numpy() for tensor in batch]


def one_ahead(items: Iterator[list[np.ndarray]]) -> Iterator[list[np.ndarray]]:
    """The same items. A thread fetches each item while the previous one is used."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


@dataclass
class Progress:
    """The progress of a run: the part of a checkpoint besides weights, averages and the optimiser's state."""

    step: int = 0
    """Number of finished steps, which is also the position in the data."""
    seconds: float = 0.0
    best: dict[str, Any] | None = None
    """The content of best.json."""
    metrics_bytes: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the `Meter`."""


class Trainer:
    """One run in memory. It starts from the last checkpoint in its folder, if there is one."""

    def __init__(self, run: RunConfig, folder: Path, fabric: Fabric) -> None:
        self.run, self.folder, self.fabric = run, folder, fabric
        self.task = TASKS[run.task.name](run.task)
        self.validation = self.task.batch("validation", 0, run.train.eval_examples, seed=0)
        self.schedule = LoopSchedule(run.schedule, run.model.num_loops, run.train.seed)
        self.model = LoopedTransformer(run.model, seed=run.train.seed)
        saved = checkpoint.saved_steps(folder)
        state = (
            checkpoint.load(folder, saved[-1], self.model, averaged=run.optim.ema_decay is not None) if saved else None
        )
        if should_compile(run.train.compile, fabric.device):
            self.model.compile_core()
        self.scored = fabric.setup_module(ModelWithLoss(self.model, run.train))
        self.optimizers = make_optimizers(self.model, run.optim)
        self.average = WeightAverage(self.model, run.optim.ema_decay) if run.optim.ema_decay else None
        self.progress = Progress()
        if state is not None:
            for optimizer, saved_state in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved_state)
            if self.average:
                self.average.load_state_dict(state["average"])
            self.progress = Progress(**state["progress"])
        precision = str(fabric.strategy.precision.precision)
        self.matmul_peak = fabric.world_size * matmul_peak(fabric.device, precision == "bf16-mixed")
        self.meter = Meter(self.progress.sums)
        self.began = self.saved_at = time.perf_counter()
        self.display = Display(run, self.progress.step, enabled=fabric.is_global_zero)
        if fabric.is_global_zero:  # the folder becomes a run folder only after all checks of the run
            if (folder / CONFIG).exists():
                check_data(self.task, folder)
            else:
                write_data(self.task, folder)
                write_config(run, folder)
            made_on = environment(precision, fabric.device) | {"matmul_peak": self.matmul_peak}
            write_file(folder, Environment, made_on)
            self.metrics = Metrics(folder / MetricsRow.file, self.progress.metrics_bytes)

    def run_to_end(self, interrupt: Interrupt) -> dict[str, Any]:
        """Train until the last step, the target or an interrupt. Returns the summary."""
        config = self.run.train
        with warnings.catch_warnings():  # Python 3.12 warns about forks, but torch limits its workers to one thread
            warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
            batches = one_ahead(iter(self._loader()))
        finished = self._finished()
        with self.display:
            while finished is None:
                improved = self._step(batches)
                finished = self._finished() or ("interrupted" if self._any(interrupt.arrived) else None)
                minutes = (time.perf_counter() - self.saved_at) / 60
                due = self.progress.step % config.save_every == 0 or minutes >= config.save_minutes
                if finished or improved or due:
                    self._save()
            self.display.say(f"finished: {finished}, after {self.progress.step} steps, {self._seconds():.0f} s")
        return self._summarise(finished)

    def _loader(self) -> DataLoader[list[np.ndarray]]:
        config = self.run.train
        return DataLoader(
            TrainingBatches(self.task, config),
            batch_size=None,
            sampler=range(self.progress.step, config.steps),
            num_workers=config.workers,
            prefetch_factor=4 if config.workers else None,
            collate_fn=list,
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator(),  # not used, but without it the loader draws from the global generator
        )

    def _step(self, batches: Iterator[list[np.ndarray]]) -> bool:
        """One step, then logging, validation and checkpoint if due. Returns whether no earlier score is better."""
        config, progress = self.run.train, self.progress
        began = time.perf_counter()
        batch = Batch(*map(torch.from_numpy, next(batches)))
        self.meter.waited += time.perf_counter() - began
        loops = self.schedule.at(progress.step)
        rate = learning_rate_at(self.run.optim, progress.step, config.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        try:
            values = train_step(self.fabric, self.scored, self.optimizers, batch, self.run, progress.step, loops)
        except NonFiniteError:
            self._save()
            raise
        progress.step += 1
        if self.average:
            self.average.update()
        size, seq = batch.inputs.shape[:2]
        loop_logits = logits_in_training(self.run, loops[0])
        self.meter.add((size, seq), size * training_flops(self.run.model, seq, *loops, loop_logits), **values)
        means, speed = self.meter.means(), self.meter.speed(self.matmul_peak)
        self.display.update(progress.step, means, speed["examples_per_s"])
        last = progress.step == config.steps
        if progress.step % config.log_every == 0 or last:
            counts = {"num_loops": loops[0], "num_grad_loops": loops[1]}
            memory = peak_memory(self.fabric.device)
            self._write("train", **means, learning_rate=rate, **counts, **speed, peak_memory=memory)
            self.meter = Meter()
        return self._validate() if progress.step % config.eval_every == 0 or last else False

    def _validate(self) -> bool:
        """Validate, with averaged weights if there are any. Returns whether no earlier score is better."""
        part_size = self.run.train.batch_size // (self.run.train.accumulation * self.fabric.world_size)
        began = time.perf_counter()
        with self.average.applied() if self.average else nullcontext():
            scores = validate(self.fabric, self.model, self.task, self.validation, self.schedule.last, part_size)
        scores = self.fabric.broadcast(scores)  # rounding may differ between devices, but all need the same scores
        self.meter.began += time.perf_counter() - began
        self._write("validation", num_loops=self.schedule.last, scores=scores)
        step, metric = self.progress.step, self.task.metric
        if metric not in scores:
            raise ValueError(f"task {self.run.task.name}: metric={metric!r}: expected one of {', '.join(scores)}")
        self.display.say(f"step {step}  validation {'  '.join(f'{k} {v:.4f}' for k, v in scores.items())}")
        # Among equal scores the latest counts: while scores are still zero, longer training is the better guess.
        if self.progress.best is not None and self._better(self.progress.best["value"], scores[metric]):
            return False
        self.progress.best = {"step": step, "metric": metric, "value": scores[metric]}
        return True

    def _finished(self) -> str | None:
        target, best = self.run.train.target, self.progress.best
        if target is not None and best is not None and not self._better(target, best["value"]):
            return "target"
        return "steps" if self.progress.step == self.run.train.steps else None

    def _better(self, a: float, b: float) -> bool:
        """Whether the score a is strictly better than b."""
        return a < b if self.task.lower_is_better else a > b

    def _write(self, kind: str, **values: Any) -> None:
        if self.fabric.is_global_zero:
            self.metrics.write(kind, step=self.progress.step, seconds=self._seconds(), **values)

    def _save(self) -> None:
        """Write a checkpoint, then the files that point to it, then remove checkpoints that are not needed."""
        self.saved_at = time.perf_counter()
        if not self.fabric.is_global_zero:
            return
        state = {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress)
            | {"seconds": self._seconds(), "metrics_bytes": self.metrics.sync(), "sums": self.meter.sums},
        }
        average = self.average.state_dict() if self.average else None
        checkpoint.save(self.folder, self.progress.step, self.model, average, state)
        self._point_to_best()

    def _point_to_best(self) -> None:
        best = self.progress.best
        if best is not None:
            write_file(self.folder, Best, best)
        checkpoint.prune(self.folder, self.run.train.keep_last, best["step"] if best else None)

    def _summarise(self, finished: str) -> dict[str, Any]:
        run, model = self.run, self.run.model
        summary = {
            "recipe": run.recipe,
            "metric": self.task.metric,
            "lower_is_better": self.task.lower_is_better,
            "steps": self.progress.step,
            "examples": self.progress.step * run.train.batch_size,
            "seconds": self._seconds(),
            "finished": finished,
            "parameters": parameters(model),
            "non_embedding_parameters": non_embedding_parameters(model),
            "effective_depth": effective_depth(model, self.schedule.last),
            "flops_per_example": flops(model, self.validation.inputs.shape[1], self.schedule.last),
            "best": self.progress.best,
        }
        if self.fabric.is_global_zero:
            self._point_to_best()  # a process killed between the last checkpoint and best.json leaves an old best.json
            write_file(self.folder, Summary, summary)
        return summary

    def _seconds(self) -> float:
        """Seconds of training so far, over all continuations of the run."""
        return round(self.progress.seconds + time.perf_counter() - self.began, 3)

    def _any(self, flag: bool) -> bool:
        """Whether the flag is set on any device, so all devices stop at the same step."""
        if self.fabric.world_size == 1:
            return flag
        return bool(self.fabric.all_reduce(torch.tensor(float(flag), device=self.fabric.device), reduce_op="max"))
