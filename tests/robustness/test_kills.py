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
from looped.report.read import read_run
from looped.run_folder import CHECKPOINTS, CONFIG
from looped.training.checkpoint import load_run, saved_steps

TIMING = {"seconds", "examples_per_s", "tokens_per_s", "matmul_share", "data_wait", "peak_memory"}
STEPS = 5


def commands(run: Path) -> dict[str, list[str]]:
    return {
        "train": ["train", *SMALL, "--train.steps", str(STEPS), "--out", str(run), "--resume"],
        "evaluate": ["evaluate", str(run), "--examples", "8", "--loops", "1", "2"],
        "report": ["report", str(run), "--out", str(run / "report")],
    }


KILLS = {"train": 130, "evaluate": 40, "report": 30}
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
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, content = str(path.relative_to(folder)), path.read_bytes()
        if path.suffix in (".json", ".jsonl") and path.parent == folder and name != "answers_by_loop.json":
            rows = [json.loads(line) for line in content.splitlines()] if path.suffix == ".jsonl" else [json.loads(content)]
            found[name] = [{key: value for key, value in row.items() if key not in TIMING} for row in rows]
        else:
            found[name] = content
        if name in ("environment.json",) or path.name == "trainer.pt":
            found[name] = None
    return found


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
        code = server.call("kill_points:run", [words], 0, str(root / "count"), output=root / "output")
        assert code == 0, (root / "output").read_text()
        found.seconds[name] = time.perf_counter() - began
        found.changes[name] = int((root / "count").read_text())
        found.after[name] = contents(run)
    return found


def check_readable(run: Path) -> None:
    """Every file that a reader would open is whole."""
    if (run / CONFIG).exists():
        read_run(run)
        for step in saved_steps(run):
            load_run(run, step)
        if saved_steps(run):
            load_run(run, "best")
    assert not (run / CHECKPOINTS).exists() or (run / CONFIG).exists()


@pytest.mark.parametrize("name", KILLS)
def test_killed_commands_lose_nothing(name: str, server: ForkServer, finished: Finished, tmp_path: Path):
    rng = np.random.default_rng(list(KILLS).index(name))
    run, output, count = tmp_path / "run", tmp_path / "output", KILLS[name]
    words = commands(run)
    refused = killed = 0
    for number in range(count):
        shutil.rmtree(run, ignore_errors=True)
        if finished.before[name].exists():
            shutil.copytree(finished.before[name], run)
        case = f"{name}, case {number}"
        if number % 2:  # a chosen change to the disk
            stop_at = 1 + number * finished.changes[name] // count
            pid = server.start("kill_points:run", [words[name]], stop_at, None, output=output)
            status = server.wait(pid)
            assert os.WIFSTOPPED(status), f"{case}: not stopped before change {stop_at}: {output.read_text()}"
            refused += second_writer_is_refused(words[SECOND[name][number // 2 % len(SECOND[name])]], server, tmp_path)
        else:
            pid = server.start("kill_points:run", [words[name]], 0, None, output=output)
            time.sleep(rng.uniform(0, finished.seconds[name]))
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(server.wait(pid))

        check_readable(run)
        code = server.call("kill_points:run", [words[name]], 0, None, output=output)
        assert code == 0, f"{case}: {output.read_text()}"
        assert contents(run) == finished.after[name], case
    assert refused == count // 2
    assert killed >= 0.8 * count, "too many commands had ended before they were killed"


def second_writer_is_refused(words: list[str], server: ForkServer, folder: Path) -> bool:
    output = folder / "second"
    output.unlink(missing_ok=True)
    code = server.call("kill_points:run", [words], 0, None, output=output)
    message = output.read_text()
    assert code == 2, message
    assert message.count("\n") == 1, message
    assert "process" in message, message
    return True
