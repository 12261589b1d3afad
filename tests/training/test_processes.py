"""Trainings in two processes: how they start, are compared, and end together. All processes are real."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_endings import TASK as SLOW_TASK
from test_endings import wait_for_lines
from training_cases import assert_same_run

from looped.training import checkpoint

TASK = SLOW_TASK.replace(
    'split == "train"', 'split == "train" and os.environ.get("FAILS_IN") in (None, os.environ["RANK"])'
)
STEPS = 60
WORDS = (
    f"slow --task.length 4 --model.d-model 16 --model.num-heads 2 --optim.warmup-steps 2 --train.steps {STEPS} "
    "--train.batch-size 16 --train.log-every 5 --train.eval-every 30 --train.eval-examples 24 --train.save-every 20 "
    "--train.device cpu --train.precision fp32 --train.compile False --train.workers 0 --out run"
)
LOOPED = ["-m", "looped", "--import", "slow.py", "train"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *LOOPED]
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def start(folder: Path, command: list[str], words: str = WORDS, **environment: str) -> subprocess.Popen[str]:
    (folder / "slow.py").write_text(TASK)
    out = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *command, *shlex.split(words)],
        cwd=folder, env=os.environ | environment, text=True, stdout=out, stderr=out,
    )  # fmt: skip


def local(folder: Path, words: str = "", **environment: str) -> subprocess.Popen[str]:
    return start(folder, LOOPED, f"{WORDS} --train.devices 2 {words}", **environment)


def by_hand(folders: list[Path], words: list[str], **environment: str) -> list[subprocess.Popen[str]]:
    """Two processes that are started without torchrun."""
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())} | environment
    pairs = zip(folders, words, strict=True)
    return [start(folder, LOOPED, line, RANK=str(rank), **place) for rank, (folder, line) in enumerate(pairs)]


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def end(process: subprocess.Popen[str]) -> tuple[int, list[str], list[str]]:
    """The exit code and the lines of standard output and error."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out.splitlines(), err.splitlines()


def ranks_of(parent: int) -> list[int]:
    """The processes of the ranks, by rank."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    by_rank = {}
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        by_rank.update({v: int(child) for v in variables if v.startswith(b"RANK=")})
    assert sorted(by_rank) == [b"RANK=0", b"RANK=1"]
    return [by_rank[b"RANK=0"], by_rank[b"RANK=1"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run by torchrun, without any fault."""
    folder = tmp_path_factory.mktemp("whole")
    code, out, err = end(start(folder, TORCHRUN))
    assert code == 0, err
    assert [line.split(" after ")[0] for line in out] == ["run: steps"]
    assert [line for line in err if not line.startswith("slow: ")] == []
    environment = json.loads((folder / "run/environment.json").read_text())
    assert [environment[name] for name in ("devices", "nodes", "strategy")] == [2, 1, "ddp"]
    return folder / "run"


def test_faults_lose_nothing_and_are_said_once(whole: Path, tmp_path: Path):
    """One run that is interrupted, killed in three ways, stopped by an error of one rank, and equals `whole`."""
    metrics, began = tmp_path / "run/metrics.jsonl", 0.0

    def lines_more(count: int) -> None:
        before = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        wait_for_lines(metrics, before + count)

    process = local(tmp_path)
    lines_more(2)
    process.send_signal(signal.SIGTERM)
    code, out, _ = end(process)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (code, summary["finished"], summary["signal"]) == (143, "interrupted", signal.SIGTERM)
    assert checkpoint.saved_steps(tmp_path / "run")[-1] == summary["steps"]
    assert out[-1] == f"continue with: looped --import slow.py train {WORDS} --train.devices 2 --resume"

    for rank in (1, 0):
        process = local(tmp_path, "--resume")
        lines_more(2)
        os.kill(ranks_of(process.pid)[rank], signal.SIGKILL)
        began = time.monotonic()
        code, _, err = end(process)
        assert code == 3
        assert time.monotonic() - began < 15
        step = checkpoint.saved_steps(tmp_path / "run")[-1]
        assert [line for line in err if not line.startswith("slow: ")] == [
            "looped: error: another process of this training has ended without a message, perhaps killed for lack of "
            f"memory; continue from step {step} with --resume"
        ]

    step += 7
    code, _, err = end(local(tmp_path, "--resume", FAILS=f"error {step}", FAILS_IN="1"))
    assert code == 3
    *_, line = [line for line in err if not line.startswith("slow: ")]
    assert line.startswith(
        f"looped: error: step {step + 1}: the batch cannot be prepared: ZeroDivisionError: a fault in the task; "
    )

    process = local(tmp_path, "--resume")
    lines_more(2)
    ranks = ranks_of(process.pid)
    process.kill()
    began = time.monotonic()
    while any(Path(f"/proc/{rank}/fd").exists() and os.listdir(f"/proc/{rank}/fd") for rank in ranks):
        assert time.monotonic() - began < 15
        time.sleep(0.05)
    process.communicate()

    slurm = {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2", "SLURM_JOB_ID": str(free_port()), "SLURM_STEP_ID": "0",
    }  # fmt: skip
    last = [
        start(tmp_path, LOOPED, f"{WORDS} --resume", **slurm, SLURM_PROCID=rank, SLURM_LOCALID=rank) for rank in "01"
    ]
    ends = [end(process) for process in last]
    assert [code for code, _, _ in ends] == [0, 0]
    assert ends[1][1:] == ([], [])
    assert_same_run(whole, tmp_path / "run", STEPS)
