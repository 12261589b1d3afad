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
from looped.launch.local import run_commands
from looped.run_folder import Summary, read_file

SMALL = [
    "task.length=4", "model.d-model=16", "model.num-heads=2", "model.num-loops=2", "train.batch-size=8",
    "train.eval-examples=8", "train.compile=False", "train.workers=0", "optim.warmup-steps=0",
]  # fmt: skip


def compare(
    out: Path, steps: int, *words: str, recipes: Sequence[str] = ("edit-distance-small", "edit-distance-small-timestep")
) -> list[str]:
    return ["compare", *recipes, "--out", str(out), *words, "--override", *SMALL, f"train.steps={steps}"]


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
    assert main(compare(tmp_path, 2)) == 2
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "report/report.html")
    assert "edit-distance-small-timestep-seed0" in (tmp_path / "report/report.md").read_text()
    reason = f"{broken}: looped: error: {broken}/config.json:1: not JSON"
    assert err.splitlines()[-1].startswith(f"looped: error: 1 of 2 runs failed: {reason}")


def test_scores_of_another_checkpoint_are_computed_again(tmp_path: Path):
    """Also if their file is newer than the summary, as after a copy."""
    command = compare(tmp_path, 2, recipes=["edit-distance-small"])
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


def test_a_killed_child_is_named_by_its_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert run_commands([(tmp_path / "run", [["looped", "train"]])], 1) == {tmp_path / "run": "killed by SIGKILL"}


def test_after_an_interrupt_no_further_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Here the first command ends well although it is interrupted, as a training in its last step does."""
    program = tmp_path / "program"
    first = 'trap "" TERM; kill -INT $LOOPED_PARENT; sleep 0.5'
    program.write_text(f'#!/bin/sh\ncase "$*" in *first*) {first};; *) exec sleep 60;; esac\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_commands([(tmp_path / "run", [["looped", "first"], ["looped", "second"]])], 1)
    assert time.monotonic() - began < 30


def test_the_log_is_no_link(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.txt").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"):
        run_commands([(tmp_path / "run", [["looped", "recipes"]])], 1)
    assert not (tmp_path / "outside").exists()


def test_files_in_the_working_folder_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rich.py").write_text("raise SystemExit('rich.py was run')")
    assert run_commands([(tmp_path / "run", [["looped", "recipes"]])], 1) == {}


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
