"""Training: from a run configuration to a run folder."""

import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from looped.config import OWN_LOOPS, STEPS, RunConfig, check_fits
from looped.costs.count import (
    effective_depth,
    flops,
    logits_in_training,
    non_embedding_parameters,
    parameters,
    training_flops,
)
from looped.costs.memory import LESS, check_memory
from looped.locks import locked
from looped.models.gradient import without_gradient
from looped.models.graphs import share_graphs
from looped.models.transformer import LoopedTransformer
from looped.run_data import check_data, check_tokenizer, write_data
from looped.run_folder import (
    CHECKPOINTS,
    CONFIG,
    Best,
    Environment,
    MetricsRow,
    Summary,
    open_run,
    write_config,
    write_file,
)
from looped.strict import check, to_dict
from looped.tasks import TASKS
from looped.tasks.base import Batch, Task
from looped.tasks.faults import check_loops, check_splits
from looped.training import checkpoint
from looped.training.batches import Arrays, prepared_batches
from looped.training.checkpoint import Progress
from looped.training.devices import (
    Interrupt,
    fast_products,
    find_device,
    keep_freed_memory,
    matmul_peak,
    peak_memory,
    should_compile,
    uses_native,
)
from looped.training.errors import NonFiniteError, TrainingError, UpdateError, lacks_memory
from looped.training.fabric import Devices, devices_of, make_fabric, reduced, trains_in_bf16
from looped.training.logger import Display, Meter, Metrics, environment
from looped.training.optim import WeightAverage, make_optimizers
from looped.training.processes import KILLED, connection_lost, made_together, together
from looped.training.queue import Queue, queues
from looped.training.regularisers import check_regularisers
from looped.training.schedule import LoopSchedule, learning_rate_at, loops_of_step
from looped.training.sharding import gathered
from looped.training.sinks import Sink
from looped.training.step import ModelWithLoss, train_step, validate

READ_EVERY = 1.0
"""Seconds after which the values of queued steps are read, at the latest."""


def train(run: RunConfig, folder: Path, *, resume: bool = False) -> dict[str, Any]:
    """Train a run and write everything into `folder` (see docs/design.md, "The run folder").

    SIGINT, SIGTERM and SIGHUP end the run after the current step, with a checkpoint and finished="interrupted". In the
    processes of torchrun or srun this is one run on their devices, which rank 0 writes.

    Args:
        run: a configuration without sizes that are None.
        resume: continue from the last checkpoint in `folder`. The result is bit for bit that of an uninterrupted run.
            For a finished run this only returns its summary.

    Returns:
        The content of summary.json.

    Raises:
        ValueError: no step to train; no such device; another process writes into the folder; resume=False and the
            folder already holds a run; resume=True and the folder holds no run, another one, or a damaged checkpoint;
            the data changed; the number of processes is not train.devices, or they differ.
        OSError: a file cannot be written; earlier files are intact.
        NonFiniteError: a loss or gradient is not finite; a checkpoint of the last good weights is written first.
        TrainingError: a process that prepares batches was killed, the task cannot make a batch, there is too little
            memory, or another process of the training was killed; a checkpoint is written first if possible.
        OtherError: another process of the training failed first.
    """
    folder = Path(folder)
    check(run.train.steps >= 1, "train.steps", run.train.steps, STEPS)
    with together() as processes:
        devices = 1 if processes is None else processes.world.size
        started = f"{devices}, the number of processes that `looped train`, torchrun or srun started"
        check(run.train.devices == devices, "train.devices", run.train.devices, started)
        writes = processes is None or processes.world.rank == 0
        if processes:
            processes.same(to_dict(run) | {"device": find_device(run.train.device), "resume": resume})
        with locked(folder, CHECKPOINTS) if writes else nullcontext():
            summary = open_run(run, folder, resume) if writes else None
            finished = asdict(summary) if summary else None
            if processes:
                finished = processes.gather(finished)[0]
                processes.check_shared(folder)
            if finished:
                return finished
            fabric = make_fabric(run)
            if processes:
                processes.connect(fabric.device)
            fabric.launch()
            try:
                keep_freed_memory()
                with Interrupt() as interrupt, fast_products(fabric.device):
                    return Trainer(run, folder, fabric).run_to_end(interrupt)
            except (MemoryError, RuntimeError) as error:
                known = isinstance(error, TrainingError)
                killed = processes is not None and connection_lost(error)
                if not known and not killed and not lacks_memory(error):
                    raise
                reason = str(error) if known else KILLED if killed else f"too little memory ({error})"
                reason += f"; {LESS['activations']}" if lacks_memory(error) else ""
                saved = checkpoint.saved_steps(folder)
                kept = f"continue from step {saved[-1]} with --resume" if saved else "there is no checkpoint yet"
                raise TrainingError(f"{reason}; {kept}") from (error.__cause__ if known or killed else error)


class Trainer:
    """One run in memory. It starts from the last checkpoint in its folder, if there is one."""

    def __init__(self, run: RunConfig, folder: Path, fabric: Devices) -> None:
        self.run, self.folder, self.fabric = run, folder, fabric
        self.part = fabric.global_rank, fabric.world_size
        self.task = made_together(lambda: TASKS[run.task.name](run.task))
        check_fits(run.model, self.task)
        half = trains_in_bf16(run.train, fabric.device.type)
        check_memory(run, self.task.batch("train", 0, 1, seed=0), fabric.device, half=half)
        self.validation = self.task.batch("validation", 0, run.train.eval_examples, seed=0)
        first = self.task.batch("train", 0, min(run.train.batch_size, 256), seed=run.train.seed)
        check_splits(self.task, first, self.validation)
        check_loops(run, self.task, first)
        check_regularisers(run)
        self.schedule = LoopSchedule(run.schedule, run.model.num_loops, run.train.seed, run.train.segments)
        self.model = LoopedTransformer(run.model, seed=run.train.seed)
        share_graphs(self.model, self.task.graphs)
        saved, started = checkpoint.saved_steps(folder), ""
        if run.start and not saved:
            check_tokenizer(self.task, Path(run.start.run))
            different = ", ".join(checkpoint.load_start(run.start, self.model))
            started = f"starts from {run.start.run}, step {run.start.step}"
            started += f"; differs in {different}" if different else ""
        if should_compile(run.train.compile, fabric.device):
            self.model.use_native() if uses_native(run, fabric.device) else self.model.compile_core()
        self.with_loss = ModelWithLoss(self.model, run.train)
        self.scored = fabric.setup_module(self.with_loss)
        self.optimizers = make_optimizers(self.model, run.optim)
        self.average = WeightAverage(self.model, run.optim.ema_decay) if run.optim.ema_decay else None
        self.progress = Progress()
        self.state: torch.Tensor | None = None
        """The state after the last step, in the middle of a segment."""
        if saved:
            self.progress = checkpoint.load(folder, saved[-1], self.model, self.optimizers, self.average)
            if saved[-1] % run.train.segments:
                self.state = checkpoint.load_state(folder, saved[-1], run).to(fabric.device)
        self.matmul_peak = fabric.world_size * matmul_peak(fabric.device, half)
        self.meter = Meter(self.progress.sums)
        self.queue = None
        if queues(fabric) and run.train.segments == 1:  # a queued step that failed must not pass on its state
            self.queue = Queue(fabric, self.scored, self.optimizers, self.average, run)
        self.read_at = time.perf_counter()
        self.signal = 0
        """The signal that ends the training."""
        self.began = self.saved_at = time.perf_counter()
        self.display = Display(run, self.progress.step, enabled=fabric.is_global_zero)
        self.sink = None
        if run.train.log_to != "none" and fabric.is_global_zero:
            self.sink = Sink(run, folder, self.display.say, resumed=bool(saved))
        if started:
            self.display.say(started)
        if fabric.is_global_zero:  # the folder becomes a run folder only after all checks of the run
            if (folder / CONFIG).exists():
                check_data(self.task, folder)
            else:
                write_data(run, self.task, folder)
            write_config(run, folder)
            made_on = environment("bf16-mixed" if half else "32-true", fabric.device)
            write_file(folder, Environment, made_on | {"matmul_peak": self.matmul_peak, **devices_of(run)})
            self.metrics = Metrics(folder / MetricsRow.file, self.progress.metrics_bytes, self.sink)

    def run_to_end(self, interrupt: Interrupt) -> dict[str, Any]:
        """Train until the last step, the target or an interrupt. Returns the summary."""
        config, finished = self.run.train, self._finished()
        with (
            self.display,
            self.sink or nullcontext(),
            prepared_batches(self.task, config, self.progress.step, self.part) as batches,
        ):
            loops, window = self.run.most_loops, self.run.schedule.num_grad_loops
            if parts := without_gradient(self.run.model, loops, window or loops):
                self.display.say(f"with {loops} loops and num_grad_loops={window}, no gradient: {', '.join(parts)}")
            while finished is None:
                improved = self._step(batches)
                late = time.perf_counter() - self.saved_at >= 60 * config.save_minutes
                self.signal, late = self._largest(interrupt.signal, late)  # all devices do the same at the same step
                finished = self._finished() or ("interrupted" if self.signal else None)
                if finished or improved or late or self.progress.step % config.save_every == 0:
                    self._save()
            self.display.say(f"finished: {finished}, after {self.progress.step} steps, {self._seconds():.0f} s")
        return self._summarise(finished)

    def _step(self, batches: Iterator[Arrays]) -> bool:
        """One step, then logging, validation and checkpoint if due. Returns whether no earlier score is better."""
        config, progress = self.run.train, self.progress
        loops = self.schedule.at(progress.step)
        rate = learning_rate_at(self.run.optim, progress.step, config.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        try:
            began = time.perf_counter()
            batch = Batch(*next(batches)).map(torch.from_numpy)
            self.meter.waited += time.perf_counter() - began
            loops = loops_of_step(config, loops, batch)
            if config.loss in OWN_LOOPS:
                (largest,) = self._largest(loops[0])
                loops = largest, largest
            if self.queue is not None:
                self.queue.add(batch, progress.step, loops)
            else:
                self.with_loss.initial_state = self.state
                values = train_step(self.fabric, self.scored, self.optimizers, batch, self.run, progress.step, loops)
                self._count(batch, loops, values)
        except UpdateError:
            raise
        except Exception as error:  # the weights are those before this step
            # Sharded weights are gathered by all devices, which meet this error together only if a value is not finite.
            if config.strategy != "fsdp" or isinstance(error, NonFiniteError):
                with suppress(OSError, MemoryError, RuntimeError):
                    self._save()
            raise
        progress.step += 1
        self.state = self.with_loss.last_state if progress.step % config.segments else None
        last = progress.step == config.steps
        logs, validates = (progress.step % every == 0 or last for every in (config.log_every, config.eval_every))
        if self.queue is not None:
            if not (logs or validates or time.perf_counter() - self.read_at > READ_EVERY):
                return False
            self._read()
        elif self.average:
            self.average.update()
        means, speed = self.meter.means(), self.meter.speed(self.matmul_peak)
        self.display.update(progress.step, means, speed["examples_per_s"])
        if logs:
            counts = {"num_loops": loops[0], "num_grad_loops": loops[1]}
            memory = peak_memory(self.fabric.device)
            self._write("train", **means, learning_rate=rate, **counts, **speed, peak_memory=memory)
            self.meter = Meter()
        return self._validate() if validates else False

    def _count(self, batch: Batch, loops: tuple[int, int], values: dict[str, float]) -> None:
        """Add a finished step to the meter."""
        size, seq = self.run.train.batch_size, batch.inputs.shape[1]
        flops = size * training_flops(self.run.model, seq, *loops, logits_in_training(self.run, loops[0]))
        self.meter.add((size, seq), flops, **values)

    def _read(self) -> None:
        """Wait for the queued steps. Raises NonFiniteError after a checkpoint of the last good weights."""
        assert self.queue is not None
        self.read_at, done = time.perf_counter(), self.progress.step - len(self.queue.unread)
        try:
            for started, values in self.queue.read():
                self._count(started.batch, started.loops, values)
                done += 1
        except NonFiniteError:
            self.progress.step = done
            with suppress(OSError, MemoryError):
                self._save()
            raise

    def _validate(self) -> bool:
        """Validate, with averaged weights if there are any. Returns whether no earlier score is better."""
        part_size = self.run.train.batch_size // (self.run.train.accumulation * self.fabric.world_size)
        began = time.perf_counter()
        with self.average.applied() if self.average else nullcontext(), gathered(self.model):
            own = self.run.train.loss in OWN_LOOPS
            loops, _ = loops_of_step(self.run.train, (self.schedule.last, 1), self.validation)
            scores = validate(self.fabric, self.model, self.task, self.validation, loops, part_size, own=own)
        scores = self.fabric.broadcast(scores)  # rounding may differ between devices, but all need the same scores
        self.meter.began += time.perf_counter() - began
        self._write("validation", num_loops=self.schedule.last, scores=scores)
        step, metric = self.progress.step, self.task.metric
        if metric not in scores:
            raise ValueError(f"task {self.run.task.name}: metric={metric!r}: expected one of {', '.join(scores)}")
        self.display.say(f"step {step}  validation {'  '.join(f'{k} {v:.4f}' for k, v in scores.items())}")
        # Among equal scores the latest counts: while scores are still zero, longer training is the better guess.
        if self.progress.best is not None and self._better(self.progress.best.value, scores[metric]):
            return False
        self.progress.best = Best(step=step, metric=metric, value=scores[metric])
        return True

    def _finished(self) -> str | None:
        target, best = self.run.train.target, self.progress.best
        if target is not None and best is not None and not self._better(target, best.value):
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
        if self.queue is not None:
            self._read()
        self.saved_at = time.perf_counter()
        writes = self.fabric.is_global_zero
        metrics_bytes = self.metrics.sync() if writes else 0
        progress = replace(self.progress, seconds=self._seconds(), metrics_bytes=metrics_bytes, sums=self.meter.sums)
        checkpoint.save(self.folder, progress, self.model, self.optimizers, self.average, self.state, writes=writes)
        if writes:
            self._point_to_best()

    def _point_to_best(self) -> None:
        best = self.progress.best
        if best is not None:
            write_file(self.folder, Best, asdict(best))
        checkpoint.prune(self.folder, self.run.train.keep_last, best.step if best else None)

    def _summarise(self, finished: str) -> dict[str, Any]:
        progress, seq = replace(self.progress, seconds=self._seconds()), self.validation.inputs.shape[1]
        summary = summarise(self.run, self.task, progress, self.schedule.last, seq, finished)
        summary["signal"] = self.signal if finished == "interrupted" else None
        if self.fabric.is_global_zero:
            self._point_to_best()  # a process killed between the last checkpoint and best.json leaves an old best.json
            write_file(self.folder, Summary, summary)
        return summary

    def _seconds(self) -> float:
        """Seconds of training so far, over all continuations of the run."""
        return round(self.progress.seconds + time.perf_counter() - self.began, 3)

    def _largest(self, *numbers: int) -> list[int]:
        """For each of these numbers, the largest one that any device has."""
        if self.fabric.world_size == 1:
            return [*numbers]
        return reduced(self.fabric, torch.tensor(numbers, device=self.fabric.device), "max").tolist()


def summarise(
    run: RunConfig, task: Task, progress: Progress, num_loops: int, seq: int, finished: str
) -> dict[str, Any]:
    """The fields of `run_folder.Summary`, except the signal; `seq` is the number of positions of an example."""
    return {
        "recipe": run.recipe,
        "metric": task.metric,
        "lower_is_better": task.lower_is_better,
        "steps": progress.step,
        "examples": -(-progress.step // run.train.segments) * run.train.batch_size,
        "seconds": progress.seconds,
        "finished": finished,
        "parameters": parameters(run.model),
        "non_embedding_parameters": non_embedding_parameters(run.model),
        "effective_depth": effective_depth(run.model, num_loops),
        "flops_per_example": flops(run.model, seq, num_loops),
        "best": asdict(progress.best) if progress.best else None,
    }
