"""A killed command loses nothing: 200 commands die by SIGKILL and are repeated; the results are bit for bit the same.

Half of the commands stop before a chosen change to the disk, such as a rename of a checkpoint or the removal of an old
one. While such a process is stopped it still lives, so a second writer must be refused. Then it is killed. The others
are killed at random times.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from fork_server import ForkServer
from kill_points import SMALL

# metrics_bytes is a length of lines that contain times.
TIMING = {
    "seconds", "examples_per_s", "tokens_per_s", "matmul_share", "data_wait", "peak_memory", "metrics_bytes", "date",
}  # fmt: skip
STEPS = 5


def commands(run: Path) -> dict[str, list[str]]:
    return {
        "train": ["train", *SMALL, "--train.steps", str(STEPS), "--out", str(run), "--resume"],
        "evaluate": ["evaluate", str(run), "--examples", "8", "--loops", "1", "2"],
        "report": ["report", str(run), "--out", str(run / "report")],
    }


KILLS = {"train": 134, "evaluate": 54, "report": 12}
SECOND = {"train": ("train", "evaluate"), "evaluate": ("evaluate", "train"), "report": ("report",)}
"""The commands that may be the second writer beside each."""


class Finished(NamedTuple):
    """An uninterrupted run: its folder before and after each command, and what the command does."""

    before: dict[str, Path]
    after: dict[str, dict[str, Any]]
    changes: dict[str, int]
    seconds: dict[str, float]


def contents(folder: Path) -> dict[str, Any]:
    """Everything in a folder that does not depend on the clock, by name."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name, content = str(path.relative_to(folder)), path.read_bytes() if path.is_file() else b"folder"
        if path.suffix in (".json", ".jsonl"):
            values = content.splitlines() if path.suffix == ".jsonl" else [content]
            found[name] = [_without_times(json.loads(value)) for value in values]
        else:
            found[name] = content
    return found


def _without_times(value: dict[str, Any]) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if key not in TIMING}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as server:
        yield server


@pytest.fixture(scope="module")
def finished(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("finished")
    run, found = root / "run", Finished({}, {}, {}, {})
    for name, words in commands(run).items():
        found.before[name] = root / f"before_{name}"
        if run.exists():
            shutil.copytree(run, found.before[name])
        began = time.perf_counter()
        code = server.call("kill_points:run", words, 0, str(root / "count"), output=root / "output")
        assert code == 0, (root / "output").read_text()
        found.seconds[name] = time.perf_counter() - began
        found.changes[name] = int((root / "count").read_text())
        found.after[name] = contents(run)
    return found


@pytest.mark.parametrize("name", KILLS)
def test_killed_commands_lose_nothing(name: str, server: ForkServer, finished: Finished, tmp_path: Path):
    rng = np.random.default_rng(list(KILLS).index(name))
    run, output, count = tmp_path / "run", tmp_path / "output", KILLS[name]
    words = commands(run)
    wrong: list[str] = []
    killed = stopped = 0
    seconds = finished.seconds[name]
    for number in range(count):
        shutil.rmtree(run, ignore_errors=True)
        output.unlink(missing_ok=True)
        if finished.before[name].exists():
            shutil.copytree(finished.before[name], run)
        stop_at = 1 + number * finished.changes[name] // count if number % 2 else 0
        pid = server.start("kill_points:run", words[name], stop_at, output=output)
        if stop_at:
            assert os.WIFSTOPPED(server.wait(pid)), f"not stopped before change {stop_at}: {output.read_text()}"
            second = words[SECOND[name][number // 2 % len(SECOND[name])]]
            code = server.call("kill_points:run", second, output=tmp_path / f"second_{number}")
            message = (tmp_path / f"second_{number}").read_text()
            # An evaluation may also say that a training has written no configuration yet.
            # Before change 1, the lock is held, but the file .lock does not say yet by whom.
            holder = f"process {pid}" if stop_at > 1 else "another process"
            if (code, message.count("\n")) != (2, 1) or (second[0] == name and holder not in message):
                wrong.append(f"case {number}: {second[0]} beside {name} ended with code {code}: {message}")
            stopped += 1
        else:
            time.sleep(rng.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
        was_killed = os.WIFSIGNALED(server.wait(pid))
        killed += was_killed
        seconds *= 1.02 if was_killed else 0.8  # the speed of the machine changes
        try:
            code = server.call("kill_points:read_and_run", str(run), words[name], output=output)
            assert code == 0, output.read_text()
            assert contents(run) == finished.after[name]
        except (AssertionError, ValueError) as error:
            wrong.append(f"case {number}, stopped before change {stop_at}: {error}")
    assert not wrong, f"{len(wrong)} of {count} kills of {name}:\n" + "\n".join(wrong[:5])
    assert stopped == count // 2
    assert killed >= 0.7 * count, "too many commands had ended before they were killed"
