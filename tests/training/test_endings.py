"""How a training ends from outside: signals, killed processes, errors of the task, too little memory."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_cases import assert_same_run

from looped.training import checkpoint

WORDS = (
    "edit_distance --task.length 4 --model.d-model 16 --model.num-heads 2 --optim.warmup-steps 2 --train.steps 60 "
    "--train.batch-size 16 --train.log-every 5 --train.eval-every 30 --train.eval-examples 24 --train.save-every 20 "
    "--train.keep-last 99 --train.device cpu --train.precision fp32 --train.compile False"
)
TASK = """
import os, resource, signal, time
from looped.tasks import TASKS, register
from looped.tasks.edit_distance import EditDistance, EditDistanceConfig
from looped.strict import frozen

@frozen
class SlowConfig(EditDistanceConfig):
    pass

@register("slow")
class Slow(EditDistance):
    Config = SlowConfig

    def batch(self, split, step, size, **options):
        if split == "train":
            time.sleep(0.01)
            if os.environ.get("FAILS") == f"error {step}":
                raise ZeroDivisionError("a fault in the task")
            if os.environ.get("FAILS") == f"exit {step}":
                raise SystemExit("an end in the task")
            if os.environ.get("FAILS") == f"memory {step}":
                pages = int(open("/proc/self/statm").read().split()[0])
                resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + 2**20, -1))
        return super().batch(split, step, size, **options)
"""


def start(folder: Path, words: str, **environment: str) -> subprocess.Popen[str]:
    (folder / "slow.py").write_text(TASK)
    command = [sys.executable, "-m", "looped.cli", "--import", "slow.py", "train", *shlex.split(words)]
    out = err = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=os.environ | environment, text=True, stdout=out, stderr=err)


def end(process: subprocess.Popen[str]) -> tuple[int, list[str], list[str]]:
    """The exit code and the lines of standard output and error."""
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, out.splitlines(), err.splitlines()


def wait_for_lines(metrics: Path, count: int) -> None:
    deadline = time.monotonic() + 90
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert end(start(folder, f"{SLOW} --out run"))[0] == 0
    return folder / "run"


SLOW = WORDS.replace("edit_distance", "slow", 1)


def continues(whole: Path, folder: Path) -> None:
    assert end(start(folder, f"{SLOW} --out run --resume"))[0] == 0
    assert_same_run(whole, folder / "run", 60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_exit_code_says_which_signal_ended_the_training(whole: Path, tmp_path: Path, number: signal.Signals):
    process = start(tmp_path, f"{SLOW} --out run")
    wait_for_lines(tmp_path / "run/metrics.jsonl", 2)
    process.send_signal(number)
    code, out, _ = end(process)
    assert code == 128 + number
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["finished"], summary["signal"]) == ("interrupted", number)
    first, last = out
    assert first == f"run: interrupted after {summary['steps']} steps"
    assert last == f"continue with: looped --import slow.py train {SLOW} --out run --resume"
    if number == signal.SIGHUP:
        continues(whole, tmp_path)


def test_sighup_stays_ignored_under_nohup(tmp_path: Path):
    outside = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start(tmp_path, f"{SLOW} --out run")
    finally:
        signal.signal(signal.SIGHUP, outside)
    wait_for_lines(tmp_path / "run/metrics.jsonl", 1)
    process.send_signal(signal.SIGHUP)
    assert end(process)[0] == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["finished"] == "steps"


def test_a_killed_worker_loses_nothing(whole: Path, tmp_path: Path):
    process = start(tmp_path, f"{SLOW} --out run")
    wait_for_lines(tmp_path / "run/metrics.jsonl", 3)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(workers) == 1
    os.kill(int(workers[0]), signal.SIGKILL)
    code, _, err = end(process)
    assert code == 3
    step = checkpoint.saved_steps(tmp_path / "run")[-1]
    assert step >= 15
    assert err[-1] == (
        "looped: error: a process that prepares batches was killed by signal 9 (SIGKILL), perhaps for lack of memory; "
        f"continue from step {step} with --resume"
    )
    continues(whole, tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_task_loses_nothing(tmp_path: Path, workers: int):
    words = f"{SLOW} --out run --train.workers {workers}"
    process = start(tmp_path, words, FAILS="error 12")
    code, _, err = end(process)
    assert code == 3
    says, _, path = err[-1].rpartition(" ")
    assert says == (
        "looped: error: step 13: the batch cannot be prepared: ZeroDivisionError: a fault in the task; "
        "continue from step 12 with --resume; the traceback is in"
    )
    assert 'raise ZeroDivisionError("a fault in the task")' in Path(path).read_text()
    Path(path).unlink()
    assert checkpoint.saved_steps(tmp_path / "run") == [12]


def test_too_little_memory_loses_nothing(tmp_path: Path):
    """The limit is set while a batch is prepared. Only a later allocation then fails."""
    words = f"{SLOW} --out run --train.workers 0".replace("--train.batch-size 16", "--train.batch-size 4096")
    process = start(tmp_path, words, FAILS="memory 3", OMP_NUM_THREADS="1")
    code, _, err = end(process)
    assert code == 3
    last = err[-1]
    assert last.startswith("looped: error: ")
    for part in ("memory", "raise train.accumulation", "with --resume"):
        assert part in last
    assert checkpoint.saved_steps(tmp_path / "run")
