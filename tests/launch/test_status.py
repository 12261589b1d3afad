"""`looped status`: the state of each run is that of its folder and of its lock, and asking changes nothing."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.killed_sweep import RECIPE, SETTINGS
from looped.cli import main
from looped.commands.arguments import override_words
from looped.launch.status import TAIL, RunState, last_rows, run_state, sweep_left, time_left
from looped.locks import locked
from looped.run_folder import Failure, Sweep, SweepRun, write_file

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 80
NAMES = ("done", "trained", "interrupted", "running", "failed", "damaged", "begins", "waiting")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "done"
    settings = override_words([*SETTINGS, f"train.steps={STEPS}"])
    assert main(["train", RECIPE, "--out", str(folder), *settings]) == 0
    assert main(["evaluate", str(folder), "--examples", "8", "--loops", "1"]) == 0
    return folder


@pytest.fixture
def sweep(done: Path, tmp_path: Path) -> Path:
    """The folder of a sweep with a run in each state; `begins` and `waiting` have no run folder yet."""
    for name in (*NAMES[:6], "of an earlier command"):
        shutil.copytree(done, tmp_path / name)
    (tmp_path / "trained/eval.jsonl").unlink()
    for name in ("interrupted", "running", "failed"):
        (tmp_path / name / "summary.json").unlink()
    for name in ("interrupted", "running"):
        shutil.rmtree(tmp_path / name / f"checkpoints/step_{STEPS:06d}")
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["step"] < STEPS]
        (tmp_path / name / "metrics.jsonl").write_text("".join(kept) + lines[-1][:30])  # half a line
    (tmp_path / "interrupted/.lock").write_text("of a killed process")
    failure = {"reason": "killed by SIGKILL", "code": 137, "tries": 2, "host": "node7", "date": "2026-01-01"}
    write_file(tmp_path / "failed", Failure, failure)
    (tmp_path / "damaged/summary.json").write_text("{")
    runs = [{"folder": name, "recipe": RECIPE, "steps": STEPS, "commands": f"looped train {name}"} for name in NAMES]
    write_file(tmp_path, Sweep, {"command": "looped compare", "runs": runs})
    return tmp_path


def test_every_state_is_shown(sweep: Path, capsys: pytest.CaptureFixture[str]):
    with locked(sweep / "running"), locked(sweep / "begins"):
        before = {path: path.stat().st_mtime_ns for path in sweep.rglob("*")}
        assert main(["status", str(sweep)]) == 0
        assert {path: path.stat().st_mtime_ns for path in sweep.rglob("*")} == before
        shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == list(NAMES)  # none is wrapped, as this is no terminal
    by_name = {row[0]: row[1:] for row in rows}
    writer = rf"process {os.getpid()} on {os.uname().nodename} since 20\S+"
    for name, state, step, note in (
        ("done", "done", STEPS, ""),
        ("trained", "interrupted", STEPS, ""),
        ("interrupted", "interrupted", 60, ""),
        ("running", "running", 60, writer),
        ("failed", "failed", STEPS, ""),
        ("damaged", "failed", 0, ""),
        ("begins", "running", 0, writer),
        ("waiting", "waiting", 0, ""),
    ):
        assert by_name[name][:2] == [state, f"{step} of {STEPS}"], name
        assert re.fullmatch(note, by_name[name][4]), name
    assert "\ntrained: trained, not evaluated\n" in shown
    assert "\nfailed: 2 tries on node7, exit code 137: killed by SIGKILL\n" in shown
    assert re.search(r"\ndamaged: .*damaged/summary.json:1: not JSON", shown)
    assert by_name["waiting"][2] == ""
    assert float(by_name["running"][2]) > 1
    assert [name for name in NAMES if by_name[name][3]] == ["interrupted", "running", "begins", "waiting"]
    numbers = "1 done, 2 running, 2 failed, 2 interrupted, 1 waiting"
    assert re.search(rf": {numbers}; about .* left with 2 at a time; 1 other runs in the folder", shown)


def test_runs_without_a_sweep(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A folder of runs, and one run, which is done when it is trained."""
    shutil.copytree(done, tmp_path / "one")
    (tmp_path / "one/eval.jsonl").unlink()
    for folder in (tmp_path, tmp_path / "one"):
        assert main(["status", str(folder)]) == 0
        out = capsys.readouterr().out
        assert f"│ one │ done  │ {STEPS} of {STEPS} │" in out
        assert f"{folder}: 1 done\n" in out
    with locked(tmp_path):
        assert main(["status", str(tmp_path), str(tmp_path / "one")]) == 0
    assert capsys.readouterr().out.count("started by process") == 1


def test_a_run_that_reached_its_target_is_done(done: Path, tmp_path: Path):
    shutil.copytree(done, tmp_path / "run")
    planned = SweepRun(folder="run", recipe=RECIPE, steps=10 * STEPS, commands="")
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    (tmp_path / "run/summary.json").write_text(json.dumps(summary | {"finished": "target"}))
    state = run_state(tmp_path / "run", planned)
    assert (state.state, state.step, state.steps) == ("done", STEPS, STEPS)


def test_the_end_of_a_long_file_tells_the_speed(done: Path, tmp_path: Path):
    row = json.loads((done / "metrics.jsonl").read_text().splitlines()[0])
    lines = [json.dumps(row | {"step": n, "seconds": n / (10 if n < 5000 else 2)}) + "\n" for n in range(1, 10001)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    rows = last_rows(tmp_path)
    assert rows[-1].step == 10000
    assert TAIL - 1000 < sum(len(lines[row.step - 1]) for row in rows) <= TAIL
    shutil.copy(done / "config.json", tmp_path)
    assert run_state(tmp_path, None).speed == pytest.approx(2)


def test_a_damaged_row_is_named_once(done: Path, tmp_path: Path):
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind"\n')
    with pytest.raises(
        ValueError, match=r"^\S+metrics.jsonl, near its end: not JSON, is the file cut short\? \(Exp\S+ "
    ):
        run_state(tmp_path, None)


def test_no_file_elsewhere_is_read_and_no_pipe_is_waited_for(done: Path, tmp_path: Path):
    shutil.copytree(done, tmp_path / "run")
    planned = SweepRun(folder="run", recipe=RECIPE, steps=9, commands="looped train")
    (tmp_path / "run/failure.json").symlink_to(tmp_path / "run/../secret")
    with pytest.raises(ValueError, match=r"failure\.json: a link out of the run folder"):
        run_state(tmp_path / "run", planned)
    (tmp_path / "run/failure.json").unlink()
    os.mkfifo(tmp_path / "run/failure.json")
    with pytest.raises(ValueError, match=r"failure\.json: a pipe, socket or device"):
        run_state(tmp_path / "run", planned)


def test_the_time_left():
    """By hand: one run has 50 steps at 5 a second left, another 100 at 2. Another one takes the mean of its recipe."""
    a = RunState("a", "fast", "running", 50, 100, 5.0, "")
    b = RunState("b", "slow", "running", 0, 100, 2.0, "")
    c = RunState("c", "slow", "waiting", 0, 100, None, "")
    d = RunState("d", "new", "interrupted", 30, 100, None, "")
    e = RunState("e", "fast", "done", 100, 100, 7.0, "")
    f = RunState("f", "fast", "failed", 10, 100, 7.0, "")
    runs = [a, b, c, d, e, f]
    mean = (5 + 2 + 7 + 7) / 4
    assert [time_left(run, runs) for run in runs] == [10, 50, 50, 70 / mean, 0, None]
    assert sweep_left(runs) == pytest.approx((10 + 50 + 50 + 70 / mean) / 2)
    assert sweep_left([a, b]) == 50  # not 30: the longest run cannot be divided
    assert sweep_left([c, d, e]) is None
    assert sweep_left([c._replace(state="running"), c]) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no runs; expected the folder of a sweep, of runs, or of one run"),
        ("{", "sweep.json:1: not JSON"),
        ('{"command": "", "runs": [{"folder": "../x", "recipe": "", "steps": 1, "commands": ""}]}', "runs[0].folder="),
        ('{"command": "", "runs": 3}', "sweep.json:1: runs=3: expected a list"),
    ],
)
def test_wrong_folders(content: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    if content:
        (tmp_path / "sweep.json").write_text(content)
    assert main(["status", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert main(["status"]) == 2
