"""The defaults of `Task`: what a task with nothing but `sample` and `encode` can do."""

import json
from pathlib import Path

import pytest
import torch
from own_tasks import Successor, Sums

import looped
from looped.cli import main


def test_scores_of_classes():
    task = Successor(Successor.Config())
    batch = task.encode([[1, 2, 3, 4, 5], [9, 9, 9, 9, 9]])
    logits = torch.nn.functional.one_hot(batch.targets, 11).float()
    logits[:, 0] = 0  # wrong, but does not count
    logits[1, 4] = 0
    assert {name: values.tolist() for name, values in task.score(batch, logits).items()} == {
        "accuracy": [1, 0],
        "token_accuracy": [1, 0.75],
    }


def test_scores_of_real_numbers():
    task = Sums(Sums.Config())
    batch = task.encode([[1, 2, 3, 4, 5]])
    assert batch.targets.tolist() == [[1, 3, 6, 10, 15]]
    logits = batch.targets[..., None].clone()
    logits[0, 0] = 99.0  # does not count
    logits[0, 1] += 2.0
    assert task.score(batch, logits) == {"squared_error": torch.tensor([1.0])}


def test_answers_and_text_of_classes():
    task = Successor(Successor.Config())
    problem = [1, 2, 3, 4, 5]
    logits = 9.0 * torch.nn.functional.one_hot(torch.tensor([2, 3, 4, 5, 10]), 11)
    said = task.answer(problem, logits)
    assert (said["answer"], said["valid"]) == ("3 4 5 10", None)
    confidence = (torch.tensor(9.0).exp() / (torch.tensor(9.0).exp() + 10)).item()
    assert said["confidence"] == pytest.approx(confidence**4)
    assert task.to_text(problem) == {"input": "1 2 3 4 5", "expected": "3 4 5 6"}
    text = task.describe(problem, logits)
    assert text.splitlines() == ["successor: 1 2 3 4 5", "answer: 3 4 5 6", "prediction: 3 4 5 10 (100%)"]
    visualisation = task.visualise(problem, torch.stack([0 * logits, logits]))
    assert (visualisation["kind"], visualisation["answer"]) == ("slots", ["3", "4", "5", "6"])
    assert visualisation["loops"][1]["slots"] == ["3", "4", "5", "10"]
    assert visualisation["loops"][0]["confidence"] == pytest.approx([1 / 11] * 4)


def test_answers_and_text_of_real_numbers():
    task = Sums(Sums.Config())
    problem = [1, 2, 3, 4, 5]
    logits = torch.tensor([9.0, 3.0, 6.0, 10.0, 15.123456])[:, None]
    assert task.answer(problem, logits) == {"answer": "3 6 10 15.12", "valid": None, "confidence": None}
    assert task.describe(problem, logits).splitlines()[2] == "prediction: 3 6 10 15.12"
    visualisation = task.visualise(problem, torch.stack([0 * logits, logits]))
    assert (visualisation["kind"], visualisation["truth"]) == ("points", [3, 6, 10, 15])
    assert visualisation["loops"][1]["predictions"] == pytest.approx([3, 6, 10, 15.123456])
    assert visualisation["loops"][0]["predictions"] == [0, 0, 0, 0]


def test_padded_logits_are_cut_to_the_problem():
    task = Successor(Successor.Config())
    logits = torch.nn.functional.one_hot(torch.tensor([2, 3, 4, 5, 6, 0, 0]), 11).float()
    assert task.answer([1, 2, 3, 4, 5], logits)["answer"] == "3 4 5 6"


def test_files_and_prompts_are_refused():
    task = Successor(Successor.Config())
    with pytest.raises(ValueError, match=r"in\.txt: the task successor reads no files"):
        task.read(["1 2"], "in.txt", "stop")
    with pytest.raises(ValueError, match="the task successor continues no text"):
        task.prompt("1 2")


@pytest.mark.parametrize("name", ["successor", "sums"])
def test_they_train_and_are_reported(name: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = "--model.d-model 16 --model.num-heads 2 --train.batch-size 8 --optim.warmup-steps 0 --train.compile False"
    command = f"train {name} --out run {small} --train.eval-examples 16 --train.workers 0 --train.steps 3"
    assert main(command.split()) == 0
    assert main(["evaluate", "run", "--loops", "1", "4", "--examples", "16"]) == 0
    rows = [json.loads(line) for line in Path("run/eval.jsonl").read_text().splitlines()]
    assert {row["group"] for row in rows} == {"all"}
    assert {"accuracy", "token_accuracy"} == {row["metric"] for row in rows} or name == "sums"
    assert looped.calibrate_run(Path("run"), examples=16)["recommendation"]
    assert main(["inspect", "run", "--examples", "8"]) == 0
    assert main(["report", "run", "--out", "report"]) == 0
    page = Path("report/report.html").read_text()
    assert f"{name.capitalize()}: {name}" in page
    assert "visualisations-slots" in page or name == "sums"
    assert "visualisations-points" in page or name == "successor"
    capsys.readouterr()
    assert main(["generate", "run", "--prompt", "a"]) == 2
    assert f"trained on {name}; expected a run on text" in capsys.readouterr().err


def test_an_error_is_better_when_lower():
    assert Sums.lower_is_better
    assert not Successor.lower_is_better
