"""evaluate, calibrate and inspect: what they know is printed also if they cannot finish; names are only shown."""

import dataclasses
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from training.training_cases import tiny

from looped import runs
from looped.cli import main
from looped.evaluation.scores import evaluate
from looped.tasks import TASKS
from looped.training import train

NAME = "run [/red] :smile: \x1b[31m"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / NAME
    task = dataclasses.replace(tiny().task, eval_lengths=(4, 5))
    sizes = dataclasses.asdict(TASKS[task.name](task).spec)
    train(dataclasses.replace(tiny(steps=2, eval_every=2, log_every=2, model=sizes), task=task), folder)
    return folder


@pytest.fixture
def run(trained: Path) -> Iterator[Path]:
    before = set(trained.iterdir())
    yield trained
    for path in set(trained.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def outcome(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, without control characters in either."""
    code = main(list(map(str, words)))
    out, error = capsys.readouterr()
    assert "\x1b" not in out + error
    return code, out, error


def test_scores_are_printed_if_they_cannot_be_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "eval.jsonl").mkdir()
    code, out, error = outcome(capsys, "evaluate", run, "--loops", 1, "--examples", 5)
    assert code == 2
    assert error.count("looped: error:") == 1
    assert "eval.jsonl" in error
    assert "1 loops" in out
    assert "[/red] :smile: \\x1b[31m" in " ".join(out.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_finished_groups_are_printed_after_an_interrupt(
    number: signal.Signals, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = ("4", "5")
    assert len(groups) > 1

    def interrupted(*arguments: Any, **options: Any) -> list[dict[str, Any]]:
        if options["groups"] == [groups[1]]:
            signal.raise_signal(number)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(runs, "evaluate", interrupted)
    code, out, _ = outcome(capsys, "evaluate", run, "--loops", 1, "--examples", 5)
    assert code == 128 + number
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("│") and line.split()[1] in groups]
    assert rows == [groups[0]]
    assert not (run / "eval.jsonl").exists()


def test_a_calibration_is_printed_if_it_cannot_be_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "calibration.json").mkdir()
    code, out, error = outcome(capsys, "calibrate", run, "--loops", 1, 2, "--examples", 5)
    assert code == 2
    assert "calibration.json" in error
    assert "not finished" in " ".join(out.split())
    assert "unchanged:1" in out


def test_an_inspection_is_printed_if_it_cannot_be_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "inspect.json").mkdir()
    code, out, error = outcome(capsys, "inspect", run, "--out", tmp_path, "--examples", 4, "--loops", 2)
    assert code == 2
    assert "inspect.json" in error
    assert "95% interval" in out


def test_a_wrong_picture_is_found_before_the_work(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TASKS[tiny().task.name], "visualise", lambda *_: {"kind": "slot", "loops": []})
    code, out, error = outcome(capsys, "evaluate", run, "--loops", 1, "--examples", 5)
    assert code == 2
    assert out == ""
    assert "answers_by_loop.json: examples[0].kind='slot': expected one of slots, " in error
    assert "did you mean 'slots'?" in error


def test_show_prints_names_as_escapes_and_refuses_what_is_incomplete(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(capsys, "show", run)[0] == 0
    config = json.loads((run / "config.json").read_text())
    del config["run"]["model"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, _, error = outcome(capsys, "show", tmp_path)
    assert code == 2
    assert "run.model" in error


def test_a_model_that_diverges_is_measured(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (weights,) = run.glob("checkpoints/*/model.safetensors")
    save_file({name: tensor * 1e30 for name, tensor in load_file(weights).items()}, weights)
    for words in (("evaluate", "--loops", 1, 4), ("calibrate", "--loops", 1, 4), ("inspect",)):
        code, _, error = outcome(capsys, words[0], run, *words[1:], "--examples", 4)
        assert code == 0, error
    numbers = json.loads((run / "inspect" / "inspect.json").read_text(), parse_constant=pytest.fail)
    assert len(numbers["score"]["value"]) == numbers["loops"]
    assert (run / "inspect" / "report.html").exists()
    assert outcome(capsys, "report", run, "--out", tmp_path / "report")[0] == 0
