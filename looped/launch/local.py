"""Runs on this machine, some at a time."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from rich.console import Console

from looped.launch.job import Job, JobProcess
from looped.machine import usable_cores, visible_gpus
from looped.run_folder import Failure, Summary, read_file

T = TypeVar("T")


def run_local(jobs: Sequence[Job], at_a_time: int) -> dict[Path, Failure]:
    """Run the commands of each job. The cores and GPUs are divided among the jobs that run at a time.

    Returns the failed runs; the others continue. After an interrupt, every running training writes a checkpoint and
    ends.
    """
    console = Console(stderr=True)
    cores, gpus = usable_cores() // at_a_time, visible_gpus()
    places: SimpleQueue[int] = SimpleQueue()
    for place in range(at_a_time):
        places.put(place)
    running: set[JobProcess] = set()
    interrupted = threading.Event()

    def say(text: str) -> None:
        console.print(text, markup=False)

    def run(job: Job) -> Failure | None:
        place, devices = places.get(), job.run.train.devices
        own = list(dict.fromkeys(gpus[(place * devices + i) % len(gpus)] for i in range(devices if gpus else 0)))
        process = JobProcess(job.line, max(1, cores // devices), gpus=own, say=say)
        running.add(process)
        try:
            return None if interrupted.is_set() else process.run()
        finally:
            running.discard(process)
            places.put(place)

    failed: dict[Path, Failure] = {}
    with ThreadPoolExecutor(at_a_time) as pool, console.status(f"0/{len(jobs)} runs done") as status:
        try:
            futures = {pool.submit(run, job): job.folder for job in jobs}
            for done, future in enumerate(_completed(futures), start=1):
                failure, folder = future.result(), futures[future]
                if failure:
                    failed[folder] = failure
                say(f"{done}/{len(jobs)} {folder.name}: {f'failed: {failure.reason}' if failure else _score(folder)}")
                status.update(f"{done}/{len(jobs)} runs done")
        except KeyboardInterrupt:
            interrupted.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.stop()
            raise
    return failed


def _completed(futures: Iterable[Future[T]]) -> Iterator[Future[T]]:
    """The futures as they complete. Python raises KeyboardInterrupt in the main thread only while that thread runs.

    The system may give a signal to another thread. The main thread therefore wakes up twice a second.
    """
    pending = set(futures)
    while pending:
        ready, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
        yield from ready


def _score(folder: Path) -> str:
    summary = read_file(folder, Summary)
    if summary is None:
        return "no summary"
    best = f"{summary.best.metric} {summary.best.value:.3f}" if summary.best else f"{summary.metric} nan"
    return f"validation {best} after {summary.steps} steps, {summary.seconds:.0f} s"
