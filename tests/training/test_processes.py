"""Trainings in two processes: how they start, are compared, and end together. All processes are real."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_endings import TASK, wait_for_lines
from training_cases import assert_same_run

from looped.training import checkpoint

STEPS = 60
WORDS = (
    f"slow --task.length 4 --model.d-model 16 --model.num-heads 2 --optim.warmup-steps 2 --train.steps {STEPS} "
    "--train.batch-size 16 --train.log-every 5 --train.eval-every 30 --train.eval-examples 24 --train.save-every 20 "
    "--train.device cpu --train.precision fp32 --train.compile False --train.workers 0 --out run"
)
LOOPED = ["-m", "looped", "--import", "slow.py", "train"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *LOOPED]
KILLED = "another process of this training has ended without a message, perhaps killed for lack of memory"


def start(folder: Path, command: list[str], words: str = "", **environment: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    in_one_rank = 'split == "train" and os.environ.get("FAILS_IN") in (None, os.environ["RANK"])'
    (folder / "slow.py").write_text(TASK.replace('split == "train"', in_one_rank))
    command = [sys.executable, *command, *shlex.split(f"{WORDS} {words}")]
    out, variables = subprocess.PIPE, os.environ | environment
    return subprocess.Popen(command, cwd=folder, env=variables, text=True, stdout=out, stderr=out)


def local(folder: Path, words: str = "", **environment: str) -> subprocess.Popen[str]:
    return start(folder, LOOPED, f"--train.devices 2 {words}", **environment)


def by_hand(
    folders: tuple[Path, Path], words: tuple[str, str] = ("", ""), sizes: str = "22"
) -> list[subprocess.Popen[str]]:
    """Two processes that are started without torchrun."""
    master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    places = [{"RANK": rank, "WORLD_SIZE": size} for rank, size in zip("01", sizes, strict=True)]
    parts = zip(folders, words, places, strict=True)
    return [start(folder, LOOPED, line, **master, **place) for folder, line, place in parts]


def by_slurm(folder: Path, words: str) -> list[subprocess.Popen[str]]:
    """Two processes that are started as srun does it."""
    step = {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "localhost",
        "SLURM_JOB_ID": str(free_port()), "SLURM_STEP_ID": "0",
    }  # fmt: skip
    return [start(folder, LOOPED, words, **step, SLURM_PROCID=rank, SLURM_LOCALID=rank) for rank in "01"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def end(process: subprocess.Popen[str]) -> tuple[int, list[str], list[str]]:
    """The exit code, and the lines of standard output and error without those of the progress."""
    out, err = process.communicate(timeout=150)
    return process.returncode, out.splitlines(), [line for line in err.splitlines() if not line.startswith("slow: ")]


def ranks_of(parent: int) -> list[int]:
    """The processes of the ranks that a process started."""
    children = list(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))
    variables = {child: Path(f"/proc/{child}/environ").read_bytes().split(b"\0") for child in children}
    by_rank = {name: child for child in children for name in variables[child]}
    return [by_rank[b"RANK=0"], by_rank[b"RANK=1"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run by torchrun, without any fault."""
    folder = tmp_path_factory.mktemp("whole")
    code, out, err = end(start(folder, TORCHRUN))
    assert (code, [line.partition(" after ")[0] for line in out], err) == (0, ["run: steps"], [])
    environment = json.loads((folder / "run/environment.json").read_text())
    assert [environment[name] for name in ("devices", "nodes", "strategy")] == [2, 1, "ddp"]
    return folder / "run"


def test_faults_lose_nothing_and_are_said_once(whole: Path, tmp_path: Path):
    """One run that is interrupted, fails in one rank, is killed in three ways, and then equals `whole`."""
    folder, metrics = tmp_path / "run", tmp_path / "run/metrics.jsonl"

    def wait_for_rows(count: int) -> None:
        wait_for_lines(metrics, (metrics.read_bytes().count(b"\n") if metrics.exists() else 0) + count)

    process = local(tmp_path, WORLD_SIZE="1", TORCHELASTIC_USE_AGENT_STORE="True")  # as from `torchrun` with 1 process
    wait_for_rows(2)
    process.send_signal(signal.SIGTERM)
    code, out, _ = end(process)
    summary = json.loads((folder / "summary.json").read_text())
    assert (code, summary["finished"], summary["signal"]) == (143, "interrupted", signal.SIGTERM)
    step = checkpoint.saved_steps(folder)[-1]
    assert 10 <= step == summary["steps"]
    assert out[-1] == f"continue with: looped --import slow.py train {WORDS} --train.devices 2 --resume"

    code, _, (line,) = end(local(tmp_path, "--resume", FAILS=f"error {step + 3}", FAILS_IN="1"))
    says, _, traceback = line.rpartition(" ")
    assert code == 3
    assert says.startswith(f"looped: error: step {step + 4}: the batch cannot be prepared: ZeroDivisionError: a fault")
    Path(traceback).unlink()

    ended = local(tmp_path, "--resume --train.strategy fsdp", FAILS=f"exit {step + 3}", FAILS_IN="1")
    assert end(ended) == (2, [], ["looped: error: an end in the task"])

    process = local(tmp_path, "--resume")
    wait_for_rows(2)
    os.kill(ranks_of(process.pid)[0], signal.SIGKILL)
    killed_at = time.monotonic()
    code, _, err = end(process)
    step = checkpoint.saved_steps(folder)[-1]
    assert (code, err) == (3, [f"looped: error: {KILLED}; continue from step {step} with --resume"])
    assert time.monotonic() - killed_at < 30

    processes = by_slurm(tmp_path, "--resume")  # which have no parent that would notice it
    wait_for_rows(2)
    processes[1].kill()
    killed_at = time.monotonic()
    (code, _, err), (killed, _, _) = map(end, processes)
    step = checkpoint.saved_steps(folder)[-1]
    assert (code, killed, err) == (3, -9, [f"looped: error: {KILLED}; continue from step {step} with --resume"])
    assert time.monotonic() - killed_at < 30

    process = local(tmp_path, "--resume")
    wait_for_rows(1)
    process.kill()
    process.communicate(timeout=150)  # until no process has its output any more

    ends = list(map(end, by_slurm(tmp_path, "--resume")))
    assert [code for code, _, _ in ends] == [0, 0]
    assert ends[1][1:] == ([], [])
    assert_same_run(whole, folder, STEPS)


def test_what_differs_is_said_by_one_process(tmp_path: Path):
    one, other = tmp_path / "one", tmp_path / "other"
    same, apart = (one, one), by_hand((one, other))  # which takes 10 s
    cases = {
        "train.seed: 1 in rank 1 on .*, but 0 in rank 0 on .*; expected the same": {"words": ("", "--train.seed 1")},
        "WORLD_SIZE: 3 in rank 1 on .*, but 2 in rank 0": {"sizes": "23"},
        "train.devices=4: expected 2, the number of processes that": {"words": ("--train.devices 4",) * 2},
        f"{other}/run: rank 1 on .* does not see what rank 0 on .* writes there; expected a folder": {},
    }
    for message, options in cases.items():
        ends = list(map(end, by_hand(same, **options) if options else apart))
        assert [code for code, _, _ in ends] == [2, 2]
        (line,) = [line for _, out, err in ends for line in out + err]
        assert re.fullmatch(f"looped: error: {message}.*", line), line
    assert not (one / "run").exists()
    assert not (other / "run").exists()
