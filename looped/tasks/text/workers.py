"""Processes that share work, and its results in order.

A killed process must not be waited for. Each one therefore has a pipe of its own, whose end of file says that it is
dead.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, TypeVar

from looped.machine import usable_cores
from looped.printing import ending

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 16
"""Processes at most. The process that reads the text cannot feed more, and each needs memory."""
HERE = 2
"""Number of items for which no process is started."""
Worker = tuple[Connection, BaseProcess]


def cores() -> int:
    """The number of processor cores that this process may use, at most MOST."""
    return min(MOST, usable_cores())


def in_order(work: Callable[[Item], Result], items: Iterable[Item], processes: int) -> Generator[Result, None, None]:
    """`work(item)` for each item, in the order of the items. At most 2 items for each process are in memory.

    The processes are copies of this one, so `work` may be any function. They end when the generator is closed, or when
    this process ends in any way.

    Raises:
        ValueError: a process was killed. An error of `work` is raised as it is.
    """
    rest = iter(items)
    yield from map(work, itertools.islice(rest, HERE if processes > 1 else None))
    if (first := next(rest, None)) is None:
        return
    workers: list[Worker] = []
    threads = ThreadPoolExecutor(processes, thread_name_prefix="workers")
    try:
        for _ in range(processes):
            workers.append(_started(work, [connection for connection, _ in workers]))
        idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in workers:
            idle.put(worker)
        pending: deque[Future[Result]] = deque()
        for item in itertools.chain([first], rest):
            pending.append(threads.submit(_ask, idle, item))
            if len(pending) == 2 * processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for _, process in workers:
            process.kill()  # the threads then do not wait for it
        threads.shutdown(cancel_futures=True)
        for connection, process in workers:
            process.join()
            connection.close()


def _started(work: Callable[[Any], Any], others: Sequence[Connection]) -> Worker:
    fork = multiprocessing.get_context("fork")  # other ways would import the user's main module again
    here, there = fork.Pipe()
    process = fork.Process(target=_serve, args=(work, there, [*others, here]), daemon=True)
    process.start()
    there.close()
    return here, process


def _serve(work: Callable[[Any], Any], connection: Connection, others: Sequence[Connection]) -> None:
    """Answer each item; the main function of a process."""
    for other in others:  # a copy here would hide from the other processes that the first one has ended
        other.close()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the first process decides when this one ends
        signal.signal(number, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with contextlib.suppress(EOFError, OSError):  # the first process has ended
        while True:
            item = connection.recv()
            try:
                result = work(item)
            except Exception as error:
                result = error
            connection.send(result)


def _ask(idle: "SimpleQueue[Worker]", item: Any) -> Any:
    """The answer of the process that is free first."""
    connection, process = worker = idle.get()
    try:
        connection.send(item)
        result = connection.recv()
    except (EOFError, OSError):
        process.join()
        raise ValueError(f"a process that encodes text {ending(process.exitcode)}") from None
    finally:
        idle.put(worker)
    if isinstance(result, Exception):
        raise result
    return result
