"""The cost of a training on this machine: memory from a simulated step, time from a few real steps.

Nothing is trained or written.
"""

import math
import statistics
import time
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import itemgetter

import numpy as np
import torch

from looped.config import OWN_LOOPS, RunConfig
from looped.costs.count import logits_in_training, parameters, training_flops
from looped.costs.memory import examples_memory
from looped.costs.simulate import Simulation
from looped.machine import free_memory, resident_memory, usable_cores
from looped.models.iteration import Recompute
from looped.models.transformer import LoopedTransformer
from looped.nn.graphs import SharedGraph
from looped.tasks import TASKS
from looped.tasks.base import Batch
from looped.training.devices import find_device, uses_native
from looped.training.fabric import make_fabric
from looped.training.optim import WeightAverage, make_optimizers
from looped.training.schedule import LoopSchedule, loops_of_step
from looped.training.short_steps import LONGEST, End, Measured, apart, measure, probe, rows_of
from looped.training.step import ModelWithLoss, train_step

MARGIN = 1.15
"""A training counts as fitting if the memory at hand is this many times its predicted peak."""
TRIES = 3
"""Numbers of parts that are measured for each level of recomputation."""
SAMPLES = 100
"""Steps of the schedule that are looked at: loops and lengths may differ."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings that change the memory of a training, and what they cost."""

    recompute: Recompute
    accumulation: int
    num_grad_loops: int | None
    tensors: int
    """Bytes of all tensors at the peak of a step: weights, gradients, optimiser, batch, activations."""
    memory: int
    """Peak bytes of the training: of the process, or of the GPU."""
    measured: bool
    """Whether steps with parts of this size have run here. Otherwise `memory` is a lower estimate."""
    fits: bool
    step_seconds: float | None
    """Mean over the schedule; None if the steps cannot run on this machine."""
    seconds: float | None
    """Seconds of the whole training."""

    def words(self) -> str:
        """The options of `looped train` that choose these settings."""
        options = f"--train.recompute {self.recompute} --train.accumulation {self.accumulation}"
        window = self.num_grad_loops
        return options if window is None else f"{options} --schedule.num-grad-loops {window}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The costs of a training, and the settings that suit the memory at hand."""

    recipe: str
    device: str
    parameters: int
    step_flops: float
    """Matrix products of a step, the mean over the schedule."""
    training_flops: float
    at_hand: int
    """Bytes of memory that the training may take."""
    program: int
    """Bytes of Python and its libraries in that memory; 0 on a GPU."""
    examples: int
    """Bytes of the validation examples and of batches prepared ahead, in that memory."""
    choices: list[Choice]
    """The configured settings first, then the fewest parts of a batch that fit, for more and more recomputation."""
    recommended: Choice | None
    """The fastest of those that fit without another result of the training; None if none fits."""
    window: Choice | None
    """The settings as configured, but with the largest gradient window that fits. Such a training is another one."""
    largest_batch: int
    """About the largest batch that the recommended settings could take."""


def with_settings(run: RunConfig, recompute: Recompute, accumulation: int, num_grad_loops: int | None) -> RunConfig:
    return replace(
        run,
        train=replace(run.train, recompute=recompute, accumulation=accumulation),
        schedule=replace(run.schedule, num_grad_loops=num_grad_loops),
    )


def simulated_peak(run: RunConfig, batch: Batch, loops: tuple[int, int], rows: int | None = None) -> int:
    """Peak bytes of all tensors of a training, from one simulated step on one device.

    Args:
        rows: examples in a part of the batch; None divides the batch as `run.train` says.
    """
    parts, size = run.train.accumulation, len(batch.inputs)
    rows = rows or size // (parts * run.train.devices)
    simulated = min(parts, 2)  # further parts repeat the second one
    some = rows_of(batch, simulated * rows)
    run = replace(run, train=replace(run.train, devices=1, accumulation=simulated, batch_size=simulated * rows))
    fabric = make_fabric(run)
    matrices = TASKS[run.task.name](run.task).graphs if run.model.graph_heads else {}
    graphs = {name: SharedGraph(matrices[name]) for name in run.model.graph_heads}  # its form depends on the values
    with Simulation(selected=int(some.mask[:rows].sum())) as simulation:
        with torch.device(fabric.device):
            model = LoopedTransformer(run.model)
        for name, graph in graphs.items():
            for part, values in list(graph.named_buffers()):
                setattr(graph, part, torch.empty(values.shape, dtype=values.dtype, device=fabric.device))
            model.graphs[name] = graph
        if uses_native(run, fabric.device):
            model.use_native()
        scored = ModelWithLoss(model, run.train)
        optimizers = make_optimizers(model, run.optim)
        average = WeightAverage(model, run.optim.ema_decay) if run.optim.ema_decay else None
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for optimizer in optimizers:
            optimizer.step()  # makes its state
        train_step(fabric, scored, optimizers, some.map(simulation.fake), run, 0, loops)
        del average
    return simulation.peak + (parts - simulated) * rows * rows_of(batch, 1).nbytes


class Planner:
    """The parts of a plan. Costs are those of a share of the batch on one device."""

    def __init__(self, run: RunConfig, memory: int | None, threads: int = 1) -> None:
        self.threads = threads
        """Threads of the real steps."""
        self.run, self.task = run, TASKS[run.task.name](run.task)
        self._tensors: dict[tuple[RunConfig, int | None], int] = {}
        self.device = torch.device(find_device(run.train.device))
        make_fabric(run)
        self.program = resident_memory() if self.device.type != "cuda" else 0
        self.free = torch.cuda.mem_get_info()[0] if self.device.type == "cuda" else free_memory()
        self.at_hand = memory or self.free
        self.seed = run.train.seed
        schedule = LoopSchedule(run.schedule, run.model.num_loops, self.seed, run.train.segments)
        self.share = run.train.batch_size // run.train.devices
        sampled = sorted({round(s) for s in np.linspace(0, run.train.steps - 1, min(SAMPLES, run.train.steps))})
        # A pair of FLOPs and step for each sample. The cheapest and the dearest step are measured.
        self.flops = [(self._flops(schedule.at(step), step), step) for step in sampled]
        self.mean_flops = statistics.fmean(flops for flops, _ in self.flops)
        self.most, self.least = max(self.flops, key=itemgetter(0)), min(self.flops, key=itemgetter(0))
        self.ends: list[End] = []
        for _, step in dict.fromkeys((self.most, self.least)):
            batch = self.task.batch("train", step, self.share, seed=self.seed)
            self.ends.append((batch, loops_of_step(run.train, schedule.at(step), batch)))
        self.validation = self.task.batch("validation", 0, min(self.share, 64), seed=0)
        began = time.perf_counter()
        self.task.batch("train", self.most[1], run.train.batch_size, seed=self.seed)
        self.preparing = time.perf_counter() - began
        example = rows_of(self.ends[0][0], 1)
        self.examples = 0 if self.device.type == "cuda" else examples_memory(run, example)

    @cached_property
    def seconds_for_one(self) -> float | None:
        """Seconds for an example; None if no step can run here."""
        alone = replace(self.run, train=replace(self.run.train, devices=1, accumulation=1, batch_size=self.share))
        most = min(self.share // self.run.train.accumulation, self._most_rows(self.tensors(alone) / self.share))
        return apart(probe, self.threads, alone, self.ends[0], most) if most > 0 else None

    def _flops(self, loops: tuple[int, int], step: int) -> int:
        size = self.share if self.run.train.loss in OWN_LOOPS else 1
        batch = self.task.batch("train", step, size, seed=self.seed)
        seq, loops = batch.inputs.shape[1], loops_of_step(self.run.train, loops, batch)
        one = training_flops(self.run.model, seq, *loops, logits_in_training(self.run, loops[0]))
        return one * self.run.train.batch_size

    def tensors(self, run: RunConfig, rows: int | None = None) -> int:
        """Peak bytes of all tensors, of every process; `rows` as for `simulated_peak`."""
        key = (run, rows)
        if key not in self._tensors:
            batch, (loops, _) = self.ends[0]
            window = min(loops, run.schedule.num_grad_loops or loops)
            one = simulated_peak(run, rows_of(batch, run.train.batch_size), (loops, window), rows)
            if run.train.devices > 1:
                one += 4 * parameters(run.model)  # buckets of gradients
            self._tensors[key] = one if self.device.type == "cuda" else run.train.devices * one
        return self._tensors[key]

    def needs(self, tensors: int) -> int:
        """Peak bytes of a training with these tensors, without what its allocator loses."""
        return self.program + self.examples + tensors

    def fits(self, memory: int) -> bool:
        return MARGIN * memory <= self.at_hand

    def choice(self, run: RunConfig) -> Choice:
        tensors = self.tensors(run)
        measured = self._measure(run, tensors)
        memory, complete, step, seconds = self.needs(tensors), False, None, None
        if measured:
            found, rows = measured
            step = self._mean_seconds(found.seconds)
            seconds = self._training_seconds(step, found.validation)
            complete = rows == self.share // run.train.accumulation
        if measured and complete:
            processes = 1 if self.device.type == "cuda" else run.train.devices
            memory = self.needs(processes * measured[0].growth)  # less than simulated if blocks run in C++
        return Choice(
            recompute=run.train.recompute,
            accumulation=run.train.accumulation,
            num_grad_loops=run.schedule.num_grad_loops,
            tensors=tensors,
            memory=memory,
            measured=complete,
            fits=self.fits(memory),
            step_seconds=step,
            seconds=seconds,
        )

    def _mean_seconds(self, seconds: list[float]) -> float:
        """The mean over the schedule. The time of a step is taken as linear in its FLOPs."""
        if len(seconds) == 1:
            return seconds[0]
        (most, _), (least, _) = self.most, self.least
        return seconds[1] + (self.mean_flops - least) / (most - least) * (seconds[0] - seconds[1])

    def _training_seconds(self, step: float, validation: float) -> float:
        train, cores = self.run.train, usable_cores()
        preparing = self.preparing / min(max(train.workers, 1), max(cores - 1, 1))
        each = max(step, preparing) if cores > 1 else step + preparing
        validations = math.ceil(train.steps / train.eval_every)
        return train.steps * each + validations * train.eval_examples * validation

    def _measure(self, run: RunConfig, tensors: int) -> tuple[Measured, int] | None:
        """Real steps, and the examples in a part of theirs; None if they cannot run here.

        The steps have as many and as large parts as free memory and `LONGEST` allow. Their time is extrapolated.
        """
        part = self.share // run.train.accumulation
        affordable = self._most_rows(tensors / part)
        if affordable < 1 or self.seconds_for_one is None:
            return None
        affordable = min(affordable, LONGEST / self.seconds_for_one)
        rows = max(1, min(part, int(affordable)))
        parts = run.train.accumulation if rows == part and self.share <= affordable else 1
        used = parts * rows
        run = replace(run, train=replace(run.train, devices=1, accumulation=parts, batch_size=used))
        ends = [(rows_of(batch, used), loops) for batch, loops in self.ends]
        found = apart(measure, self.threads, run, ends, self.task, self.validation, rows)
        if found is None:
            return None
        return replace(found, seconds=[seconds * self.share / used for seconds in found.seconds]), rows

    def _most_rows(self, bytes_of_one: float) -> int:
        """The examples whose tensors take half of the free memory; the allocator may lose the other half."""
        return int((self.free - self.needs(0)) / (2 * bytes_of_one))


def plan(run: RunConfig, memory: int | None = None) -> Plan:
    """The costs of a training, and settings for `memory` bytes; None is the free memory of this machine or its GPU.

    Raises:
        ValueError: the run cannot be trained, whatever the memory: no such device, a model that does not fit its task.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process hangs if threads of this one have computed
    try:
        return _plan(Planner(run, memory, threads))
    finally:
        torch.set_num_threads(threads)


def _plan(planner: Planner) -> Plan:
    run = planner.run
    configured = planner.choice(run)
    choices = [configured]
    levels: list[Recompute] = ["none"] if run.model.halting == "act" else ["none", "loop", "nested"]
    if not planner.fits(planner.needs(0)):
        levels = []
    share, window = planner.share, run.schedule.num_grad_loops
    divisors = [parts for parts in range(1, share + 1) if share % parts == 0]
    divisors = divisors if run.train.segments == 1 else divisors[:1]
    for level in levels:
        # The fewest parts whose tensors fit. The memory that the allocator loses is measured afterwards.
        fit = partial(_tensors_fit, planner, level)
        first = 0 if fit(1) else bisect_left(divisors, True, 1, key=fit)
        for parts in divisors[first : first + TRIES]:
            found = next((c for c in choices if (c.recompute, c.accumulation) == (level, parts)), None)
            if found is None:
                found = planner.choice(with_settings(run, level, parts, window))
            if found.fits:
                choices += [found] if found not in choices else []
                break
        if any(c.fits and (c.recompute, c.accumulation) == (level, 1) for c in choices):
            break  # to recompute more would only take longer
    fitting = [c for c in choices if c.fits]
    recommended = min(fitting, key=lambda c: (c.step_seconds or math.inf, c.accumulation), default=None)
    return Plan(
        recipe=run.recipe,
        device=planner.device.type,
        parameters=parameters(run.model),
        step_flops=planner.mean_flops,
        training_flops=planner.mean_flops * run.train.steps,
        at_hand=planner.at_hand,
        program=planner.program,
        examples=planner.examples,
        choices=choices,
        recommended=recommended,
        window=None if configured.fits else _window(planner),
        largest_batch=_largest_batch(planner, recommended) if recommended else 0,
    )


def _tensors_fit(planner: Planner, level: Recompute, parts: int) -> bool:
    settings = with_settings(planner.run, level, parts, planner.run.schedule.num_grad_loops)
    return planner.fits(planner.needs(planner.tensors(settings)))


def _window(planner: Planner) -> Choice | None:
    """The settings of the run with the largest gradient window that fits, if a shorter window is allowed."""
    run, loops = planner.run, planner.ends[0][1][1]
    if run.train.loss in ("all", "halting", *OWN_LOOPS):
        return None
    if not planner.fits(planner.needs(0)):
        return None
    low, high = (run.train.loss_window or 1) - 1, loops
    while high - low > 1:
        middle = (low + high) // 2
        settings = with_settings(run, run.train.recompute, run.train.accumulation, middle)
        low, high = (middle, high) if planner.fits(planner.needs(planner.tensors(settings))) else (low, middle)
    least = run.train.loss_window or 1
    if low < least:
        return None
    found = planner.choice(with_settings(run, run.train.recompute, run.train.accumulation, low))
    return found if found.fits else None


def _largest_batch(planner: Planner, choice: Choice) -> int:
    """About the largest batch in as many parts. Tensors grow linearly with it, and so does what the allocator loses."""
    run = with_settings(planner.run, choice.recompute, choice.accumulation, choice.num_grad_loops)
    parts = choice.accumulation * run.train.devices
    rows = planner.share // choice.accumulation
    few, many = (planner.tensors(run, n) for n in (2 * rows, 4 * rows))
    slope = (many - few) / (2 * rows)
    lost = max(1.0, (choice.memory - planner.needs(0)) / choice.tensors)
    room = (planner.at_hand / MARGIN - planner.needs(0)) / lost
    largest = max(rows, int((room - few) / slope + 2 * rows))
    digits = max(0, len(str(largest)) - 2)
    return largest // 10**digits * 10**digits * parts
