"""Runs through submitit, whose own local executor takes the place of Slurm."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.killed_sweep import RECIPE, SETTINGS, children, left_over, results
from looped import extras
from looped.cli import main
from looped.commands.arguments import override_words, training_run
from looped.launch import submitted
from looped.run_folder import Failure, read_file
from looped.runs import evaluate_run
from looped.training import train

submitit = pytest.importorskip("submitit")
pytestmark = pytest.mark.usefixtures("one_thread")
OVERRIDE = ["--override", *SETTINGS, "train.steps=200"]


def test_a_job_that_is_interrupted_continues_and_one_that_fails_is_named(tmp_path: Path):
    """submitit announces the end of a job with SIGUSR2, and then starts the job again."""
    good, bad = (tmp_path / "sweep" / f"{RECIPE}-seed{seed}" for seed in (0, 1))
    bad.mkdir(parents=True)
    (bad / "config.json").write_text("{")
    words = ["compare", RECIPE, "--out", str(tmp_path / "sweep"), "--seeds", "0", "1", "--launcher", "submitit"]
    command = [sys.executable, "-m", "looped.cli", *words, *OVERRIDE]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as compare:
        end = time.monotonic() + 120
        while not (good / "metrics.jsonl").exists() or (good / "metrics.jsonl").stat().st_size == 0:
            assert time.monotonic() < end
            time.sleep(0.03)
        (job,) = [task for controller in children(compare.pid) for task in children(controller)]
        os.kill(job, signal.SIGUSR2)
        assert compare.stderr is not None
        told = compare.stderr.read()
    assert compare.returncode == 2
    assert told.splitlines()[-1].startswith(
        f"looped: error: 1 of 2 runs failed: {bad}: looped: error: {bad}/config.json:1"
    )
    failure = read_file(bad, Failure)
    assert failure is not None
    assert failure.tries == 1
    assert "continue with: looped train" in (good / "log.txt").read_text()
    assert "Requeued job" in "".join(path.read_text() for path in tmp_path.glob("sweep/submitit/*.out"))
    run, _, _ = training_run(RECIPE, [*override_words(OVERRIDE[1:]), "--train.seed", "0"])
    train(run, tmp_path / "undisturbed")
    evaluate_run(tmp_path / "undisturbed")
    assert results(good) == results(tmp_path / "undisturbed")
    assert not [path for path in good.rglob("*") if left_over(path)]


def test_a_job_that_ends_without_an_answer_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submitted, "Task", lambda before: lambda line: 1 / 0)
    words = ["compare", RECIPE, "--out", str(tmp_path), "--launcher", "submitit", *OVERRIDE]
    assert main(words) == 2
    failure = read_file(tmp_path / f"{RECIPE}-seed0", Failure)
    assert failure is not None
    assert failure.code == 3
    assert "ZeroDivisionError" in failure.reason


def test_what_submitit_would_submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """`sbatch` is a program here that refuses the file. Its text shows the options."""
    words = ["compare", RECIPE, "--out", str(tmp_path / "runs"), "--seeds", "0", "1", "--launcher", "submitit"]
    words += ["--jobs", "1", *OVERRIDE, "train.devices=2"]
    if not shutil.which("srun"):
        assert main([*words, "--slurm", "partition=gpu"]) == 2
        assert "--slurm partition: has no effect here, because submitit finds no Slurm" in capsys.readouterr().err
    for name, text in (("srun", ""), ("sbatch", f"cp $1 {tmp_path}/submitted; echo no partition >&2; exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert main(words) == 2
    assert "expected the time limit of a run, such as --slurm time=4:00:00" in capsys.readouterr().err
    assert main([*words, "--slurm", "time=4:00:00", "gres=gpu:2"]) == 2
    assert "--launcher submitit: no partition" in capsys.readouterr().err
    text = (tmp_path / "submitted").read_text()
    wanted = ["array=0-1%1", "time=4:00:00", "gres=gpu:2", "signal=B:USR2@120", "ntasks-per-node=2", "requeue"]
    for option in wanted:
        assert re.findall(rf"#SBATCH --({option.partition('=')[0]}.*)", text) == [option]


def test_without_submitit_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert extras.EXTRAS["submitit"] == "submitit"
    assert main(["compare", RECIPE, "--out", str(tmp_path / "runs"), "--launcher", "submitit", *OVERRIDE]) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == (
        "looped: error: --launcher submitit: needs the package submitit: pip install 'looped[submitit]'"
    )
