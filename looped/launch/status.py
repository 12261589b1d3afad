"""The state of runs, read from their folders. Any machine that sees the folders may ask, and disturbs nobody."""

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from looped.files import parse_object
from looped.launch.job import is_evaluated
from looped.locks import writer_of
from looped.run_folder import (
    CONFIG,
    Failure,
    MetricsRow,
    Summary,
    Sweep,
    SweepRun,
    TrainRow,
    ValidationRow,
    check_files,
    read_config,
    read_file,
    saved_steps,
)
from looped.strict import from_dict

State = Literal["done", "running", "failed", "interrupted", "waiting"]
"""interrupted: begun, but no process writes into the folder. waiting: not begun."""
TAIL = 1 << 16
"""Bytes of metrics.jsonl that tell the present speed. The file of a long run has many megabytes."""


class RunState(NamedTuple):
    """A run at this moment."""

    name: str
    recipe: str
    state: State
    step: int
    """From here the training would continue, or goes on."""
    steps: int
    speed: float | None
    """Steps a second, with validation; None before the first row of metrics.jsonl."""
    note: str
    """Who writes into the folder of a running run; why another one failed, or is not done."""


def find_runs(folder: Path) -> list[tuple[Path, SweepRun | None]]:
    """The runs of a sweep with what sweep.json says of them, or the runs in a folder, or the one run.

    Raises:
        ValueError: there is none; sweep.json is malformed.
    """
    if sweep := read_file(folder, Sweep):
        return [(folder / run.folder, run) for run in sweep.runs]
    found = [folder] if (folder / CONFIG).exists() else sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    if not found:
        raise ValueError(f"{folder}: no runs; expected the folder of a sweep, of runs, or of one run")
    return [(path, None) for path in found]


def run_state(folder: Path, planned: SweepRun | None) -> RunState:
    """The state of a run. A run of a sweep is done when it is evaluated, another one when it is trained.

    Raises:
        ValueError: a file of the run is malformed, or a link out of the folder.
    """
    check_files(folder)
    recipe, steps = (planned.recipe, planned.steps) if planned else _settings(folder)
    summary, failure, writer = read_file(folder, Summary), read_file(folder, Failure), writer_of(folder)
    rows = last_rows(folder)
    trained = summary and summary.finished != "interrupted"
    state: State = "interrupted" if (folder / CONFIG).exists() else "waiting"
    step, note = max([0, *saved_steps(folder)]), "trained, not evaluated" if trained else ""
    if writer:
        state, step = "running", rows[-1].step if rows else step
        note = writer.short
    elif trained and (planned is None or is_evaluated(folder)):
        state, note = "done", ""
    elif failure:
        tries = f"{failure.tries} {'try' if failure.tries == 1 else 'tries'}"
        state, note = "failed", f"{tries} on {failure.host}, exit code {failure.code}: {failure.reason}"
    if summary and trained:
        step = steps = summary.steps  # fewer than planned if the target was reached
    return RunState(folder.name, recipe, state, step, steps, _speed(rows), note)


def time_left(run: RunState, others: Sequence[RunState]) -> float | None:
    """Seconds of training that a run needs, at its own speed, or else the mean of its recipe or of all runs.

    None if it is unknown, or the run failed.
    """
    if run.state == "failed":
        return None
    known = {other.recipe: [o.speed for o in others if o.speed and o.recipe == other.recipe] for other in others}
    speeds = [run.speed] if run.speed else known.get(run.recipe) or [s for part in known.values() for s in part]
    if run.step == run.steps:
        return 0.0
    return (run.steps - run.step) / statistics.mean(speeds) if speeds else None


def sweep_left(runs: Sequence[RunState]) -> float | None:
    """Seconds until all runs are trained, if as many run at a time as now; None if unknown, or if none runs."""
    left = [time_left(run, runs) for run in runs if run.state != "failed"]
    running = [run for run in runs if run.state == "running"]
    known = [seconds for seconds in left if seconds is not None]
    if not running or len(known) < len(left):
        return None
    return max(sum(known) / len(running), *known)


def _settings(folder: Path) -> tuple[str, int]:
    run = read_config(folder)
    return run.recipe, run.train.steps


def last_rows(folder: Path) -> list[TrainRow | ValidationRow]:
    """The last rows of metrics.jsonl. The last line is left out while it is being written."""
    path = folder / MetricsRow.file
    if not path.exists():
        return []
    with path.open("rb") as file:
        begin = max(0, file.seek(0, os.SEEK_END) - TAIL)
        file.seek(begin)
        lines = file.read().split(b"\n")[begin > 0 : -1]
    try:
        rows = [from_dict(MetricsRow, parse_object(line.decode(), path), "row") for line in lines]
    except ValueError as error:
        raise ValueError(f"{path}, near its end: {str(error).removeprefix(f'{path}:1: ')}") from None
    return [row for row in rows if isinstance(row, TrainRow | ValidationRow)]


def _speed(rows: Sequence[TrainRow | ValidationRow]) -> float | None:
    """Steps a second over the rows, or since the start if all are of one step."""
    if not rows:
        return None
    first, last = (rows[0].step, rows[0].seconds), (rows[-1].step, rows[-1].seconds)
    steps, seconds = last if first[0] == last[0] else (last[0] - first[0], last[1] - first[1])
    return steps / seconds if seconds > 0 else None
