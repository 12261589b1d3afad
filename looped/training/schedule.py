"""Values that depend on the step: the number of loops and the learning rate."""

import math

import numpy as np

from looped.config import OWN_LOOPS, OptimConfig, ScheduleConfig, TrainConfig
from looped.tasks.base import Batch

STREAM = 0x100B5  # separates the draws of loop counts from other draws with the same seed and step


class LoopSchedule:
    """The number of loops of each training step.

    Args:
        num_loops: the model's, for kind='fixed'.
        segments: see `TrainConfig.segments`.
    """

    def __init__(self, config: ScheduleConfig, num_loops: int, seed: int, segments: int = 1) -> None:
        self.config, self.seed, self.segments = config, seed, segments
        self.first = config.min_loops or num_loops
        self.last = config.max_loops or num_loops
        """The largest number of loops. The model is evaluated with it."""

    def at(self, step: int) -> tuple[int, int]:
        """(num_loops, num_grad_loops) of a step, counted from 0: a pure function of seed and step."""
        loops = self.last
        if self.config.kind == "curriculum":
            loops = min(self.last, self.first + step // (self.config.every or 1) * self.config.loops_step)
        elif self.config.kind == "random":
            loops = int(np.random.default_rng([self.seed, step, STREAM]).integers(self.first, self.last + 1))
        loops //= self.segments
        return loops, min(loops, self.config.num_grad_loops or loops)


def loops_of_step(config: TrainConfig, scheduled: tuple[int, int], batch: Batch) -> tuple[int, int]:
    """(num_loops, num_grad_loops) of a step: as scheduled, or the most that an example of the batch needs."""
    if config.gradient != "unroll":
        return scheduled[0], (config.gradient_terms or 1) if config.gradient == "phantom" else 1
    if config.loss not in OWN_LOOPS:
        return scheduled
    assert batch.loops is not None
    most = int(batch.loops.max())
    return most, most


def learning_rate_at(config: OptimConfig, step: int, total_steps: int) -> float:
    """The learning rate of a step, counted from 0: linear warm-up from zero, constant steps, then decay to
    final_fraction.

    The rate changes every `update_every` steps. With warm-up, the first `update_every` steps therefore have rate zero.
    In the public code this is a whole epoch.
    """
    step = step // config.update_every * config.update_every
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    start = config.warmup_steps + config.constant_steps
    done = max(0, step - start) / max(1, total_steps - start)
    left = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * (config.final_fraction + (1 - config.final_fraction) * left)
