"""Runs as child processes: they end with their parent, and one failure leaves the others their report."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from looped.cli import main
from looped.launch.job import Job
from looped.launch.local import run_local
from looped.recipes import recipe
from looped.run_folder import Failure, Summary, read_file

PYTHON = sys.executable
SMALL = [
    "task.length=4", "model.d-model=16", "model.num-heads=2", "model.num-loops=2", "train.batch-size=8",
    "train.eval-examples=8", "train.compile=False", "train.workers=0", "optim.warmup-steps=0",
]  # fmt: skip


def compare(
    out: Path, steps: int, *words: str, recipes: Sequence[str] = ("edit-distance-small", "edit-distance-small-timestep")
) -> list[str]:
    return ["compare", *recipes, "--out", str(out), *words, "--override", *SMALL, f"train.steps={steps}"]


def job(folder: Path) -> Job:
    """A run for programs that take the place of Python."""
    lines = [["looped", "train", "--out", str(folder)], ["looped", "evaluate", str(folder)]]
    return Job(folder, lines, recipe("edit-distance-small"))


def wait_until(true, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_children_end_and_save_when_their_parent_is_killed(tmp_path: Path):
    command = [sys.executable, "-m", "looped.cli", *compare(tmp_path, 10**6, "--jobs", "2")]
    folders = [tmp_path / f"edit-distance-small{ending}-seed0" for ending in ("", "-timestep")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as parent:
        try:
            wait_until(lambda: all((folder / "metrics.jsonl").exists() for folder in folders))
            children = [json.loads((folder / ".lock").read_text())["process"] for folder in folders]
            assert parent.pid not in children
            assert main(compare(tmp_path, 10**6)) == 2  # the folder has a writer
        finally:
            parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 30)
    for folder in folders:
        summary = read_file(folder, Summary)
        assert summary is not None
        assert summary.finished == "interrupted"
        assert (folder / f"checkpoints/step_{summary.steps:06d}/model.safetensors").exists()


def test_one_failure_leaves_the_others_their_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    broken = tmp_path / "edit-distance-small-seed0"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    assert main(compare(tmp_path, 2, "--jobs", "2")) == 2
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "report/report.html")
    assert "edit-distance-small-timestep-seed0" in (tmp_path / "report/report.md").read_text()
    reason = f"{broken}: looped: error: {broken}/config.json:1: not JSON"
    assert err.splitlines()[-1].startswith(f"looped: error: 1 of 2 runs failed: {reason}")


def test_scores_of_another_checkpoint_are_computed_again(tmp_path: Path):
    """Also if their file is newer than the summary, as after a copy."""
    command = compare(tmp_path, 2, "--jobs", "2", recipes=["edit-distance-small"])  # one thread
    assert main(command) == 0
    folder = tmp_path / "edit-distance-small-seed0"
    scores = folder / "eval.jsonl"
    right = scores.read_text()
    for wrong in (right.replace('"step": 2', '"step": 1'), "{"):
        scores.write_text(wrong)
        assert main(command) == 0
        assert scores.read_text() == right
    stamp = scores.stat().st_mtime_ns
    os.utime(folder / "summary.json")
    assert main(command) == 0
    assert scores.stat().st_mtime_ns == stamp


def program(path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A shell program in the place of Python."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


@pytest.mark.parametrize(
    ("ends", "code", "tries", "reason"),
    [
        ("kill -9 $$", 137, 2, "killed by SIGKILL"),
        ("echo no disk; exit 3", 3, 2, "no disk"),
        ("echo diverged; exit 1", 1, 1, "diverged"),
        ("echo a mistake; exit 2", 2, 1, "a mistake"),
        ("exit 143", 143, 2, "killed by SIGTERM"),
    ],
)
def test_a_fault_of_the_machine_gets_a_second_try(
    ends: str, code: int, tries: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program(tmp_path / "program", monkeypatch, f"echo try; {ends}")
    run = job(tmp_path / "run")
    failed = run_local([run], 1)[run.folder]
    assert (failed.code, failed.tries, failed.reason) == (code, tries, reason)
    assert failed == read_file(run.folder, Failure)
    assert (run.folder / "log.txt").read_text().count("try") == tries
    assert not (run.folder / ".lock").exists()


def test_a_second_try_may_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program(tmp_path / "program", monkeypatch, f"test -e {tmp_path}/once || {{ touch {tmp_path}/once; kill -9 $$; }}")
    run = job(tmp_path / "run")
    run.folder.mkdir()
    (run.folder / Failure.file).write_text("of an earlier time")
    assert run_local([run], 1) == {}
    assert sorted(path.name for path in run.folder.iterdir()) == ["log.txt"]


@pytest.mark.parametrize(
    ("visible", "seen"),
    [("3,5,7", {"3", "5"}), ("4", {"4"}), ("", {""})],
    ids=["more GPUs than runs at a time", "one GPU for all", "no GPU"],
)
def test_runs_at_a_time_share_the_gpus(visible: str, seen: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Both of two runs wait for the other one, so they run at a time."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meets = f"touch {tmp_path}/$$; until [ $(ls {tmp_path}/[0-9]* | wc -l) -ge 2 ]; do sleep 0.01; done"
    program(tmp_path / "program", monkeypatch, f'case "$*" in *train*) echo $CUDA_VISIBLE_DEVICES; {meets};; esac')
    runs = [job(tmp_path / name) for name in ("one", "two")]
    assert run_local(runs, 2) == {}
    assert {(run.folder / "log.txt").read_text().strip() for run in runs} == seen


def test_after_an_interrupt_no_further_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Here the first command ends well although it is interrupted, as a training in its last step does."""
    first = 'trap "" TERM; kill -INT $LOOPED_PARENT; sleep 0.5'
    program(tmp_path / "program", monkeypatch, f'case "$*" in *train*) {first};; *) exec sleep 60;; esac')
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_local([job(tmp_path / "run")], 1)
    assert time.monotonic() - began < 30


def test_the_log_is_no_link(tmp_path: Path):
    run = job(tmp_path / "run")
    run.folder.mkdir()
    (run.folder / "log.txt").symlink_to(tmp_path / "outside")
    assert "symbolic links" in run_local([run], 1)[run.folder].reason
    assert not (tmp_path / "outside").exists()


def test_files_in_the_working_folder_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rich.py").write_text("raise SystemExit('rich.py was run')")
    run = job(tmp_path / "run")
    help_of = [["looped", "recipes", "--out", str(run.folder), "--help"], ["looped", "recipes"]]
    assert run_local([run._replace(commands=help_of)], 1) == {}


def test_a_writer_that_is_about_to_end_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program(tmp_path / "program", monkeypatch, "exit 0")
    run, hold = job(tmp_path / "run"), "import pathlib, sys, time; from looped.locks import locked\n"
    hold += "with locked(pathlib.Path(sys.argv[1])): print(flush=True); time.sleep(float(sys.argv[2]))"
    seconds = {"1": {}, "60": {run.folder}}
    monkeypatch.setattr("looped.launch.job.WAIT", 3.0)
    for length, failed in seconds.items():
        with subprocess.Popen([PYTHON, "-c", hold, run.folder, length], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            found = run_local([run], 1)
            writer.kill()
        assert found.keys() == set(failed)
        assert not failed or f"process {writer.pid} on " in found[run.folder].reason
        assert read_file(run.folder, Failure) is None  # the run goes on elsewhere


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("compare edit-distance-small edit-distance-small", "--recipes: edit-distance-small is given twice"),
        ("compare edit-distance-small --seeds 0 1 0", "--seeds: 0 is given twice"),
        ("compare edit-distance-small --learning-rates 0.1 1e-1", "--learning-rates: 0.1 is given twice"),
        ("compare edit-distance-small --learning-rates 0", "learning_rate=0.0: expected a positive number"),
        ("reproduce 2 --seeds 1 1", "--seeds: 1 is given twice"),
    ],
)
def test_repeated_and_impossible_runs_are_refused(words: str, says: str, capsys: pytest.CaptureFixture[str]):
    assert main(words.split()) == 2
    assert says in capsys.readouterr().err


def test_learning_rates_are_exact(capsys: pytest.CaptureFixture[str]):
    assert main(["compare", "edit-distance-small", "--learning-rates", "0.00123456789", "1e-7", "--dry-run"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "--optim.learning-rate 0.00123456789 " in first
    assert "/edit-distance-small-lr0.00123456789-seed0 " in first
    assert "--optim.learning-rate 1e-07 " in second
