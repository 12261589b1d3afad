"""Copies of metrics.jsonl: what trackio, TensorBoard and wandb then hold, and that no failure of theirs matters."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from training_cases import tiny

from looped.cli import main
from looped.run_folder import MetricsRow, TrainRow, ValidationRow, read_rows
from looped.training import sinks, train

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of trackio and TensorBoard
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def rows_of(folder: Path) -> list[tuple[int, str, float]]:
    """Step, name and value of every number in metrics.jsonl, as a sink should get them."""
    found = []
    for row in read_rows(folder, MetricsRow):
        kind = "validation" if isinstance(row, ValidationRow) else "train"
        assert isinstance(row, TrainRow | ValidationRow)
        values = asdict(row)
        step, _ = values.pop("step"), values.pop("kind")
        values |= values.pop("scores", {})
        found += [(step, f"{kind}/{name}", value) for name, value in values.items() if value is not None]
    assert {name for _, name, _ in found} >= {"train/loss", "train/examples_per_s", "validation/accuracy"}
    return sorted(found)


def interrupted(folder: Path, log_to: str, **settings: Any) -> None:
    """Train to the end, remove the last checkpoint and the end, and train on from the one before."""
    run = tiny(steps=20, log_every=5, eval_every=10, save_every=10, keep_last=9, log_to=log_to, **settings)
    train(run, folder)
    first = rows_of(folder)
    (folder / "summary.json").unlink()
    shutil.rmtree(max((folder / "checkpoints").iterdir()))
    train(run, folder, resume=True)
    repeated = [(step, name) for step, name, _ in rows_of(folder)]
    assert repeated == [(step, name) for step, name, _ in first], "the steps after the checkpoint were written again"


def events(folder: Path) -> list[tuple[int, str, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return sorted((e.step, name, e.value) for name in read.Tags()["scalars"] for e in read.Scalars(name))


def assert_equal_steps(found: list[tuple[int, str, float]], folder: Path) -> None:
    """The same numbers; times of repeated steps differ, and a sink keeps the first."""
    wanted = rows_of(folder)
    assert [(step, name) for step, name, _ in found] == [(step, name) for step, name, _ in wanted]
    same = [i for i, (_, name, _) in enumerate(wanted) if name in ("train/loss", "validation/accuracy")]
    assert [found[i][2] for i in same] == pytest.approx([wanted[i][2] for i in same], rel=1e-6)


def test_tensorboard_holds_every_step_once(tmp_path: Path):
    pytest.importorskip("tensorboard")
    interrupted(tmp_path / "run", "tensorboard")
    assert_equal_steps(events(tmp_path / "run/tensorboard"), tmp_path / "run")


# In a process of its own, because trackio reads TRACKIO_DIR when it is imported.
TRACKIO = """
import json, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:]
from test_sinks import interrupted
from trackio.sqlite_storage import SQLiteStorage
interrupted(Path("run"), "trackio")
runs, logs = SQLiteStorage.get_runs("custom"), SQLiteStorage.get_logs("custom", "run")
Path("found.json").write_text(json.dumps({"runs": runs, "logs": logs}))
"""


def in_process(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the code in the folder, which is its home too."""
    paths = [str(Path(__file__).parents[n]) for n in range(3)]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HOME": str(folder), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def test_trackio_holds_every_step_once(tmp_path: Path):
    pytest.importorskip("trackio")
    in_process(TRACKIO, tmp_path, TRACKIO_DIR=str(tmp_path / "tracked"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["runs"] == ["run"]
    triples = [(log["step"], name, log[name]) for log in found["logs"] for name in log if "/" in name]
    assert_equal_steps(sorted(triples), tmp_path / "run")


WANDB = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:]
from test_sinks import interrupted
interrupted(Path("run"), "wandb")
"""


def test_wandb_has_one_run(tmp_path: Path):
    pytest.importorskip("wandb")
    done = in_process(WANDB, tmp_path, WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    assert "custom: --train.log-to" not in done.stderr  # no message of a failure
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))


def test_a_sink_that_fails_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("tensorboard")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "tensorboard").write_text("a file in the way")
    summary = train(tiny(log_to="tensorboard"), folder)
    assert summary["finished"] == "steps"
    lines = [line for line in capsys.readouterr().err.splitlines() if "log-to" in line]
    assert len(lines) == 1
    assert "--train.log-to tensorboard: failed (FileExistsError" in lines[0]
    assert rows_of(folder)


def test_a_sink_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module = ModuleType("trackio")  # a network that does not answer cannot be had here
    module.init = lambda **_: time.sleep(3600)  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "trackio", module)
    monkeypatch.setattr(sinks, "PATIENCE", 0.1)
    began = time.perf_counter()
    assert train(tiny(log_to="trackio"), tmp_path / "run")["finished"] == "steps"
    assert time.perf_counter() - began < 60
    assert "no answer in 0.1 s" in capsys.readouterr().err


def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    words = f"train p-hop-looped --train.log-to wandb --train.device cpu --out {tmp_path}/run"
    assert main(shlex.split(words)) == 2
    assert "--train.log-to wandb: needs the package wandb: pip install 'looped[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_compare_passes_it_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = f"compare p-hop-looped --out {tmp_path}/runs --override train.log-to=tensorboard --dry-run"
    assert main(shlex.split(words)) == 0
    assert "--train.log-to tensorboard" in capsys.readouterr().out
