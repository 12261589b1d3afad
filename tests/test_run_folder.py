"""The run folder: what the library writes is read back as what it is, and anything else is one clear line."""

import dataclasses
import json
from pathlib import Path

import pytest

from looped.run_folder import (
    AnswersByLoop,
    Best,
    Calibration,
    Environment,
    EvalRow,
    ExitRow,
    InContextRow,
    MetricsRow,
    Summary,
    TrainRow,
    ValidationRow,
    read_config,
    read_file,
    read_rows,
    write_file,
    write_rows,
)
from looped.runs import calibrate_run, evaluate_run
from looped.training import train

ROW = {
    "group": "a", "num_loops": 4, "metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "n": 10,
    "split": "test", "trained_loops": 4, "step": 9, "flops_per_example": 1000,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.training_cases import tiny

    folder = tmp_path_factory.mktemp("run")
    train(tiny(steps=4, eval_every=2, log_every=2), folder)
    evaluate_run(folder, loops=[3, 1], exit_rule="unchanged:1", examples=5)
    calibrate_run(folder, loops=[1, 2], examples=5)
    return folder


def test_all_that_a_run_leaves_is_read_as_it_was_written(folder: Path):
    assert read_config(folder).train.steps == 4
    metrics = read_rows(folder, MetricsRow)
    assert [(type(row), row.step) for row in metrics if isinstance(row, TrainRow | ValidationRow)] == [
        (TrainRow, 2), (ValidationRow, 2), (TrainRow, 4), (ValidationRow, 4),
    ]  # fmt: skip
    lines = [json.loads(line) for line in (folder / MetricsRow.file).read_text().splitlines()]
    assert lines == [{k: v for k, v in dataclasses.asdict(row).items() if v is not None} for row in metrics]  # pyright: ignore[reportArgumentType]
    for kind in (Environment, Summary, Best, AnswersByLoop, Calibration):
        found = read_file(folder, kind)
        assert found is not None
        assert json.loads(json.dumps(dataclasses.asdict(found))) == json.loads((folder / kind.file).read_text())
    rows = read_rows(folder, EvalRow)
    assert {(type(row), row.num_loops) for row in rows} == {(EvalRow, 1), (EvalRow, 3), (ExitRow, 3)}
    assert read_rows(folder, InContextRow) == []
    assert read_file(folder / "nothing", Summary) is None


def test_rows_are_written_as_they_are_read(tmp_path: Path):
    rows = [ROW, ROW | {"exit_rule": "kl:0.1", "mean_loops": 2}]
    write_rows(tmp_path, EvalRow, rows)
    assert [json.loads(line) for line in (tmp_path / "eval.jsonl").read_text().splitlines()] == rows
    assert read_rows(tmp_path, EvalRow) == [EvalRow(**ROW), ExitRow(**ROW, exit_rule="kl:0.1", mean_loops=2.0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": "0.5"}, r"eval\.jsonl:2: value='0.5': expected float, not str"),
        ({"n": 1.5}, r"eval\.jsonl:2: n=1.5: expected int, not float"),
        ({"grup": "a"}, r"eval\.jsonl:2: grup: unknown key \(did you mean 'group'\?\)"),
        ({"exit_rule": "kl:0.1"}, r"eval\.jsonl:2: missing mean_loops"),
    ],
)
def test_what_could_not_be_read_is_not_written_either(tmp_path: Path, change: dict, message: str):
    write_rows(tmp_path, EvalRow, [ROW])
    before = (tmp_path / "eval.jsonl").read_text()
    with pytest.raises(ValueError, match=message):
        write_rows(tmp_path, EvalRow, [ROW, ROW | change])
    assert (tmp_path / "eval.jsonl").read_text() == before
    (tmp_path / "eval.jsonl").write_text(before + json.dumps(ROW | change) + "\n")
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path, EvalRow)


def test_missing_keys_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"best\.json: missing step, value"):
        write_file(tmp_path, Best, {"metric": "accuracy"})
    (tmp_path / "best.json").write_text('{"metric": "accuracy"}')
    with pytest.raises(ValueError, match=r"best\.json:1: missing step, value"):
        read_file(tmp_path, Best)
