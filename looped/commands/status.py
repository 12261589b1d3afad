"""`looped status`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tyro.conf import Positional

from looped.commands.arguments import command
from looped.commands.output import Table, print_table, say
from looped.launch.status import RunState, State, find_runs, run_state, sweep_left, time_left
from looped.locks import writer_of
from looped.printing import duration
from looped.run_folder import CONFIG, SweepRun


def status(folders: Positional[tuple[Path, ...]]) -> None:
    """Show which runs of a sweep are done, running, failed or waiting, with their speed and the time left.

    A run is running if a process holds the lock of its folder, on this machine or on another one that shares it.

    Args:
        folders: folders of sweeps (`looped compare`, `looped reproduce`), folders of runs, or runs.
    """
    if not folders:
        raise ValueError("expected at least one folder of runs")
    for folder in folders:
        _show(folder)


def _show(folder: Path) -> None:
    found = find_runs(folder)
    runs = [_state(*run) for run in found]
    table = Table("run", "state", "step", "steps/s", "time left", "by")
    for run in runs:
        speed = f"{run.speed:.3g}" if run.speed else ""
        left = time_left(run, runs)
        step = f"{run.step} of {run.steps}" if run.steps else ""
        by = run.note if run.state == "running" else ""
        table.add_row(run.name, run.state, step, speed, duration(left) if left else "", by)
    print_table(table)
    for run in runs:
        if run.note and run.state != "running":
            say(f"{run.name}: {run.note}")
    numbers = Counter(run.state for run in runs)
    parts = [", ".join(f"{numbers[state]} {state}" for state in get_args(State) if numbers[state])]
    if left := sweep_left(runs):
        parts.append(f"about {duration(left)} left with {numbers['running']} at a time")
    if (writer := writer_of(folder)) and folder not in dict(found):
        parts.append(f"started by {writer.short}")
    if others := _others(folder, found):
        parts.append(f"{others} other runs in the folder, of earlier commands")
    say(f"{folder}: {'; '.join(parts)}")


def _state(folder: Path, planned: SweepRun | None) -> RunState:
    """The state of a run; a damaged file is shown as its failure and hides no other run."""
    try:
        return run_state(folder, planned)
    except (ValueError, OSError) as error:
        recipe, steps = (planned.recipe, planned.steps) if planned else ("", 0)
        return RunState(folder.name, recipe, "failed", 0, steps, None, str(error))


def _others(folder: Path, found: Sequence[tuple[Path, SweepRun | None]]) -> int:
    known = {path for path, planned in found if planned}
    return len([path for path in folder.glob(f"*/{CONFIG}") if path.parent not in known]) if known else 0


main = command(status)
