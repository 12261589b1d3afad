"""The training batches, which a thread or processes prepare before the steps that use them.

A killed process must not take the training with it. Each process therefore has a pipe of its own, whose end of file
says that it is dead. A `DataLoader` waits forever for the rest of a batch that a killed process began to send.
"""

import contextlib
import itertools
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from looped.config import TrainConfig
from looped.printing import ending
from looped.tasks.base import Task
from looped.training.devices import SIGNALS
from looped.training.errors import TrainingError

Arrays = list[Any]
"""The fields of a `Batch` as arrays (or None), because tensors would take 0.8 ms longer between processes."""
AHEAD = 4
"""Number of batches that each process may be ahead of the training."""


@contextlib.contextmanager
def prepared_batches(
    task: Task, config: TrainConfig, first: int, part: tuple[int, int] = (0, 1)
) -> Iterator[Iterator[Arrays]]:
    """The batches of the steps from `first` (counted from 0) to the last one, prepared by `config.workers` processes.

    The batches are the same for any number of processes. With 0 processes a thread prepares one batch ahead. The steps
    of a segment have the same batch.

    Args:
        part: the part of each batch that this device computes, as in `Task.batch`.

    Raises:
        TrainingError: from the iterator; a process was killed, or the task raised an error, which is the cause.
    """
    workers: list[tuple[Connection, BaseProcess]] = []
    done, last = first // config.segments, -(-config.steps // config.segments)
    try:
        for number in range(config.workers):
            reader, writer = multiprocessing.Pipe(duplex=False)
            numbers = range(done + number, last, config.workers)
            readers = [*(reader for reader, _ in workers), reader]
            process = multiprocessing.Process(
                target=_send, args=(writer, readers, task, config, part, numbers), daemon=True
            )
            process.start()
            writer.close()
            workers.append((reader, process))
        numbers = range(done, last)
        received = (_receive(*worker) for _, worker in zip(numbers, itertools.cycle(workers), strict=False))
        items = received if workers else (_arrays(task, config, part, number) for number in numbers)
        with contextlib.closing(ahead(items, AHEAD * len(workers) or 1)) as batches:
            try:
                repeated = (item for item in batches for _ in range(config.segments))
                skipped = done * config.segments  # steps before the first batch
                yield itertools.islice(repeated, first - skipped, config.steps - skipped)
            finally:
                for _, process in workers:
                    process.kill()  # so that the thread does not wait for it
    finally:
        for reader, process in workers:
            process.kill()  # if a later process could not be started, this one waits to send a batch
            process.join()
            reader.close()


def ahead(items: Iterator[Arrays], size: int) -> Generator[Arrays, None, None]:
    """The same items. A thread fetches up to `size` of them before they are used."""
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        coming = deque(thread.submit(next, items, None) for _ in range(size))
        while (item := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)


def _arrays(task: Task, config: TrainConfig, part: tuple[int, int], number: int) -> Arrays:
    """A part of the batch of this number, counted from 0."""
    try:
        batch = task.batch("train", number, config.batch_size, seed=config.seed, part=part)
        return [None if tensor is None else tensor.numpy() for tensor in batch]
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise TrainingError(f"step {number * config.segments + 1}: the batch cannot be prepared: {reason}") from error


class _TracebackError(Exception):
    """The text of a traceback in another process, as the cause of the error here."""


def _send(
    writer: Connection,
    readers: list[Connection],
    task: Task,
    config: TrainConfig,
    part: tuple[int, int],
    numbers: range,
) -> None:
    """Prepare and send the batches of these numbers; the main function of a process."""
    for reader in readers:  # a copy here would hide the end of the training from the process that writes into it
        reader.close()
    for number in SIGNALS:  # they also arrive here, but the training still needs batches after them
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    with contextlib.suppress(BrokenPipeError):  # the training has ended
        for number in numbers:
            try:
                item = _arrays(task, config, part, number)
            except TrainingError as error:
                item = str(error), traceback.format_exc()
            writer.send(item)


def _receive(reader: Connection, process: BaseProcess) -> Arrays:
    try:
        item = reader.recv()
    except (EOFError, OSError):
        process.join()
        raise TrainingError(f"a process that prepares batches {ending(process.exitcode)}") from None
    if isinstance(item, tuple):
        raise TrainingError(item[0]) from _TracebackError(item[1])
    return item
