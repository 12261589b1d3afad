"""Run folders of constructions: every command reads them like those of trained models."""

import dataclasses
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from looped import load_run, train
from looped.cli import main
from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.tasks import TASKS
from looped.training.checkpoint import start_from
from looped.training.constructed import write_run

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = "--task.length 5 --task.eval-lengths 4 6 --examples 16"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("constructed")
    for name in ("edit-distance", "lcs"):
        assert main(["construct", name, *SIZES.split(), "--out", str(folder / name)]) == 0
    return folder


def test_the_folder_holds_counted_numbers(folder):
    run, model, step = load_run(folder / "edit-distance")
    assert (run.recipe, run.train.steps, step) == ("edit-distance-constructed", 0, 0)
    summary = json.loads((folder / "edit-distance/summary.json").read_text())
    weights = load_file(folder / "edit-distance/checkpoints/step_000000/model.safetensors")
    assert summary["parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert summary["best"] == {"step": 0, "metric": "accuracy", "value": 1.0}
    assert (summary["steps"], summary["examples"], summary["seconds"]) == (0, 0, 0)
    assert summary["effective_depth"] == 1 + 16
    assert sum(int((tensor != 0).sum()) for name, tensor in weights.items() if name.startswith("core")) == 145
    assert model.num_loops == 16


def test_commands_read_it(folder, tmp_path, capsys):
    run, text = folder / "edit-distance", tmp_path / "pairs.txt"
    text.write_text("kitte sitti\nabc cab\n")
    trained = (
        "train edit-distance-small --task.length 5 --task.eval-lengths 4 6 --task.min-letters 3 --task.max-letters 26 "
    )
    trained += "--task.letter-pool 26 --model.d-model 8 --model.num-heads 1 --train.steps 2 --optim.warmup-steps 0 "
    trained += f"--train.batch-size 4 --train.eval-examples 4 --train.workers 0 --train.device cpu --out {tmp_path}/t"
    for words in (
        f"evaluate {run} --loops 4 16 30 --examples 32",
        f"evaluate {folder}/lcs --loops 16 --examples 32",
        f"solve {run} {text}",
        f"inspect {run} --examples 2 --loops 3",
        f"show {run}",
        trained,
        f"evaluate {tmp_path}/t --loops 2 --examples 8",
        f"report {run} {tmp_path}/t --out {tmp_path}/report",
    ):
        assert main(words.split()) == 0, words
    out = capsys.readouterr().out
    assert "kitte sitti,6,6" in out
    rows = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    assert {(row["group"], row["num_loops"]) for row in rows} == {(g, n) for g in "456" for n in (4, 16, 30)}
    assert all((row["value"] == 1) == (row["num_loops"] >= 16) for row in rows)
    assert all(json.loads(line)["value"] == 1 for line in (folder / "lcs/eval.jsonl").read_text().splitlines())
    report = (tmp_path / "report/report.md").read_text()
    assert "| edit-distance-constructed | 1.000" in report
    assert "| edit-distance-small |" in report
    assert (tmp_path / "report/figures/edit_distance_score_by_group.svg").exists()


def test_sudoku(tmp_path, capsys):
    run, board = tmp_path / "sudoku", "1 0 0 0 0 0 3 0 0 4 0 0 0 0 0 2"
    assert main(f"construct sudoku --task.box 2 --task.pool 60 --examples 8 --out {run}".split()) == 0
    assert "6 looped layers of 64 registers" in capsys.readouterr().out
    (tmp_path / "board.txt").write_text(board.replace(" ", "") + "\n")
    assert main(f"solve {run} {tmp_path}/board.txt --exit-rule change:1e-9".split()) == 0
    assert "1000003004000002,1324423124133142,1324423124133142,True" in capsys.readouterr().out
    assert main(f"evaluate {run} --examples 8 --loops 64".split()) == 0
    rows = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    assert {row["value"] for row in rows} == {1.0}
    assert main(f"construct sudoku --task.box 4 --out {tmp_path}/large".split()) == 2
    assert main(f"construct sudoku --inverse-temperature 12 --out {tmp_path}/soft".split()) == 2
    assert "inverse_temperature" in capsys.readouterr().err


def test_it_is_not_trained_further_but_may_begin_another_training(folder, tmp_path, capsys):
    run = folder / "edit-distance"
    assert main(["train", "edit-distance-looped", "--out", str(run), "--resume"]) == 2
    assert "another configuration: recipe=" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"train.steps=0: expected at least 1"):
        train(load_run(run)[0], run, resume=True)
    with pytest.raises(ValueError, match="already holds a run"):
        write_run(*load_run(run)[:2], run)
    config = TrainConfig(
        steps=1, batch_size=4, eval_examples=4, workers=0, device="cpu", precision="fp32", compile=False
    )
    optim = OptimConfig(warmup_steps=0, learning_rate=1e-9)
    tuned = dataclasses.replace(load_run(run)[0], train=config, optim=optim, start=start_from(run))
    assert train(tuned, tmp_path / "tuned")["best"] == {"step": 1, "metric": "accuracy", "value": 1.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("edit-distanc", "unknown (did you mean 'edit-distance'?)"),
        ("edit-distance --task.version published", "task.version='published': expected corrected"),
        ("edit-distance --task.length 1001", "length=1001: expected 4 to 1000"),
        ("edit-distance --task.length 1000 --num-loops 9000", "expected below 2^24"),
        ("edit-distance --task.length 1000 --inverse-temperature 12", "expected below 2^24"),
        ("edit-distance --task.length 1000 --num-loops 9000 --inverse-temperature 0.01", "expected below 2^24"),
        ("lcs --num-loops 0", "num_loops=0: expected 1 to 1,000,000"),
        ("lcs --examples 0", "examples=0: expected 1 to 100,000"),
        ("lcs --examples 1000000000000", "examples=1000000000000: expected 1 to 100,000"),
        ("lcs --inverse-temperature -1", "inverse_temperature=-1.0: expected above 0"),
        ("sudoku --inverse-temperature 12", "inverse_temperature=12.0: expected None, because Sudoku is written for"),
        ("lcs --inverse-temperature nan", "inverse_temperature=nan: expected above 0"),
    ],
)
def test_mistakes(words, message, capsys, tmp_path):
    assert main(["construct", *words.split(), "--out", str(tmp_path / "new")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_configuration_with_steps_is_refused(folder, tmp_path):
    _, model, _ = load_run(folder / "lcs")
    run = RunConfig(model=ModelConfig(), task=TASKS["lcs"].Config())
    with pytest.raises(ValueError, match=r"train.steps=3000: expected 0, because nothing is trained"):
        write_run(run, model, tmp_path / "new")
