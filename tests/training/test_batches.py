"""Batches from other processes: their order, their errors, and their death."""

import os
import resource
import signal
import time
from itertools import count
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from training_cases import tiny

from looped.tasks import TASKS
from looped.tasks.base import Batch, Task, TaskSpec
from looped.training.batches import ahead, prepared_batches
from looped.training.errors import TrainingError


class Numbers(Task):
    """Its batches hold the step, so often that they do not fit into a pipe."""

    spec = TaskSpec(vocab_size=1, output_size=1, max_seq_len=10_000)

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at = fails_at

    def sample(self, split, size, rng, group=None):
        raise NotImplementedError

    def encode(self, problems):
        raise NotImplementedError

    def batch(self, split, step, size, *, seed, group=None, part=(0, 1)):
        if step == self.fails_at:
            raise ZeroDivisionError("the task's\nown error")
        values = torch.full((size, 10_000), step)
        return Batch(values, values, values.bool(), values.bool())


def prepared(task, workers, steps=20):
    return prepared_batches(task, tiny(steps=steps, workers=workers).train, 3)


@pytest.mark.parametrize("workers", [0, 1, 2, 5, 40])
def test_the_order_is_that_of_the_steps(workers):
    with prepared(Numbers(), workers) as batches:
        assert [int(batch[0][0, 0]) for batch in batches] == list(range(3, 20))
    assert not active_children()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_process_is_noticed_at_once(workers):
    """It is killed while it waits to send the rest of a batch."""
    before = set(active_children())
    with prepared(Numbers(), workers, steps=1000) as batches:
        next(batches)
        time.sleep(0.3)
        victim = min(set(active_children()) - before, key=lambda process: process.pid or 0)
        os.kill(victim.pid or 0, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(TrainingError, match=r"^a process that prepares batches was killed by signal 9 \(SIGKILL\)"):
            for _ in batches:
                pass
        assert time.monotonic() - began < 5
    assert not active_children()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_tasks_own_error_arrives_with_its_traceback(workers):
    with prepared(Numbers(fails_at=7), workers) as batches:
        assert [int(next(batches)[0][0, 0]) for _ in range(4)] == [3, 4, 5, 6]
        with pytest.raises(TrainingError, match=r"^step 8: the batch cannot be prepared: ZeroDivisionError: ") as error:
            next(batches)
    cause = error.value.__cause__
    assert isinstance(cause, ZeroDivisionError) or "raise ZeroDivisionError" in str(cause)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_early_end_leaves_no_process(workers):
    with prepared(Numbers(), workers, steps=10**9) as batches:
        assert int(next(batches)[0][0, 0]) == 3
    assert not active_children()


def test_a_process_that_cannot_be_started_leaves_none():
    """Here a pipe cannot be made, after some processes have already begun to send."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(free := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"), prepared(Numbers(), 40):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not active_children()


def test_processes_end_with_the_training(tmp_path):
    """Also if it is killed, and although they ignore the signals that end it."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            with prepared(Numbers(), 3, steps=10**9) as batches:
                next(batches)
                os.write(write, b"".join((process.pid or 0).to_bytes(4) for process in active_children()))
                time.sleep(60)
        finally:
            os._exit(1)
    pids = os.read(read, 12)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for at in range(0, 12, 4):
        status, deadline = Path(f"/proc/{int.from_bytes(pids[at : at + 4])}/stat"), time.monotonic() + 10
        while status.exists() and ") Z " not in status.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_fetched_ahead_in_order():
    fetched = []

    def items():
        for step in count():
            fetched.append(step)
            yield [np.array(step)]

    batches = ahead(items(), 2)
    assert next(batches)[0] == 0
    deadline = time.monotonic() + 10
    while fetched != [0, 1, 2]:  # while the first is used
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert [int(next(batches)[0]), int(next(batches)[0])] == [1, 2]
    assert [int(batch[0]) for batch in ahead(iter([[np.array(0)], [np.array(1)]]), 5)] == [0, 1]


def test_the_batches_are_those_of_the_task():
    run = tiny(steps=5, workers=2)
    task = TASKS["edit_distance"](run.task)
    with prepared_batches(task, run.train, 0) as batches:
        for step, arrays in enumerate(batches):
            for array, tensor in zip(arrays, task.batch("train", step, 16, seed=0), strict=True):
                assert array is tensor is None or np.array_equal(array, tensor)  # pyright: ignore[reportArgumentType]
