"""Runs as processes on this machine. A launcher for a cluster would take the same `Work`."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from looped.files import open_to_append
from looped.launch.parent import PARENT
from looped.run_folder import LOG, EvalRow, Summary, read_file, read_rows
from looped.user_code import import_words

T = TypeVar("T")
Work = Sequence[tuple[Path, list[list[str]]]]
"""For each run: its folder, and the commands (lists of words) that fill it, in order."""


def typed(line: Sequence[str]) -> str:
    """A command as the user types it: `looped ...`, with `--import` for the user's code."""
    return shlex.join([line[0], *import_words(), *line[1:]])


def run_commands(work: Work, jobs: int) -> dict[Path, str]:
    """Run the commands of each folder, `jobs` folders at a time. The cores are divided among the jobs.

    Each run writes its output to log.txt in its folder. Returns the reason of each failed run; the other runs continue.
    After an interrupt, every running training writes a checkpoint and ends.
    """
    console = Console(stderr=True)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = os.environ | {"OMP_NUM_THREADS": threads, PARENT: str(os.getpid())}
    running: dict[Path, subprocess.Popen[bytes]] = {}
    interrupted = threading.Event()

    def run(folder: Path, lines: list[list[str]]) -> str | None:
        folder.mkdir(parents=True, exist_ok=True)
        for line in lines:
            if line[1] == "evaluate" and _evaluated(folder):
                continue
            with open_to_append(folder / LOG) as log:
                # The child gets its own process group: Ctrl-C reaches only this process, which passes it on once.
                # With -P a file such as json.py in the working folder does not take the place of a library.
                running[folder] = subprocess.Popen(
                    [sys.executable, "-P", "-m", "looped.cli", *import_words(), *line[1:]],
                    stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True,
                )  # fmt: skip
            if interrupted.is_set():  # it began too late to be ended with the others
                running[folder].terminate()
            code = running[folder].wait()
            process = running.pop(folder)
            assert process.stdin is not None
            process.stdin.close()
            if code:
                return _last_line(folder / LOG) if code > 0 else f"killed by {signal.Signals(-code).name}"
        return None

    failed: dict[Path, str] = {}
    with ThreadPoolExecutor(jobs) as pool, console.status(f"0/{len(work)} runs done") as status:
        try:
            futures = {pool.submit(run, *item): item[0] for item in work}
            for done, future in enumerate(_completed(futures), start=1):
                failure, folder = future.result(), futures[future]
                if failure:
                    failed[folder] = failure
                score = "failed" if failure else _score(folder)
                console.print(f"{done}/{len(work)} {folder.name}: {score}", markup=False)
                status.update(f"{done}/{len(work)} runs done")
        except KeyboardInterrupt:
            interrupted.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running.values()):
                process.terminate()
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


def raise_failures(failed: Mapping[Path, str], runs: int) -> None:
    """Raise ValueError if some of the runs failed; names each with its reason."""
    if failed:
        reasons = "; ".join(f"{folder}: {reason}" for folder, reason in failed.items())
        raise ValueError(f"{len(failed)} of {runs} runs failed: {reasons}")


def _evaluated(folder: Path) -> bool:
    """Whether the scores belong to the checkpoint that an evaluation would take: the best one, or else the last."""
    try:
        summary, rows = read_file(folder, Summary), read_rows(folder, EvalRow)
    except ValueError:  # damaged: evaluate again
        return False
    step = None if summary is None else summary.best.step if summary.best else summary.steps
    return bool(rows) and all(row.step == step for row in rows)


def _score(folder: Path) -> str:
    summary = read_file(folder, Summary)
    if summary is None:
        return "no summary"
    best = f"{summary.best.metric} {summary.best.value:.3f}" if summary.best else f"{summary.metric} nan"
    return f"validation {best} after {summary.steps} steps, {summary.seconds:.0f} s"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
