"""A task of one's own, with its settings and its test: all that it takes, in one short file."""

import json
from pathlib import Path

import numpy as np

from looped.cli import main
from looped.tasks import SequenceTask, TaskConfig, frozen, register


@register("parity")
class Parity(SequenceTask):
    """Whether a word has an odd number of ones: the answer to 0111 is 1."""

    vocabulary = "01"

    @frozen
    class Config(TaskConfig):
        """The settings of parity."""

        length: int = 8
        """The longest word in training."""
        eval_lengths: tuple[int, ...] = (12,)
        """Further lengths for evaluation."""

    def draw(self, length: int, rng: np.random.Generator) -> str:
        return "".join(rng.choice(["0", "1"], length))

    def solve(self, symbols: str) -> str:
        return str(symbols.count("1") % 2)


SMALL = "--model.d-model 16 --model.num-heads 2 --train.batch-size 8 --optim.warmup-steps 0 --train.compile False"


def test_it_trains_resumes_evaluates_reports_and_solves(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = f"train parity --out run {SMALL} --train.eval-examples 16 --task.length 6 --train.workers 0"
    assert main(f"{run} --train.steps 3".split()) == 0
    assert main(f"{run} --train.steps 3 --resume".split()) == 0
    assert main(["evaluate", "run", "--loops", "1", "4", "--examples", "16"]) == 0
    groups = {json.loads(line)["group"] for line in Path("run/eval.jsonl").read_text().splitlines()}
    assert groups == {"6", "12"}
    assert main(["report", "run", "--out", "report"]) == 0
    assert "# Parity: parity" in Path("report/report.md").read_text()
    Path("words.txt").write_text("0111\n\n1 1\n")
    capsys.readouterr()
    assert main(["solve", "run", "words.txt", "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["input"], row["expected"]) for row in rows] == [("0111", "1"), ("11", "0")]
