"""A table of the paper from its command: estimated, run, skipped when done, reported beside the paper's numbers."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from looped.cli import main
from looped.commands import sweep
from looped.launch.job import Job
from looped.paper.reproduce import all_runs, estimate, folder_name, work_for
from looped.paper.tables import paper_table
from looped.recipes import complete, recipe
from looped.run_folder import Failure
from looped.tasks.in_context import baselines as in_context


def test_folders_and_commands(tmp_path):
    table = paper_table(2, "cpu")
    work = work_for(table, tmp_path, (0, 1), ["--train.steps", "5"])
    assert len(work) == 2 * len(all_runs(table)) == len({folder for folder, _ in work}) == 64
    folder, (train, evaluate) = next(item for item in work if "num-loops2-seed1" in item[0].name)
    assert train == ["looped", "train", "sudoku-looped@cpu", "--out", str(folder), "--resume", "--model.num-loops", "2",
                     "--train.steps", "5", "--train.seed", "1"]  # fmt: skip
    assert evaluate == ["looped", "evaluate", str(folder), "--loops", "1", "2", "4", "8"]
    assert folder_name(("lcs-looped@cpu",), 3) == "lcs-looped@cpu-seed3"


def test_dry_run_prints_a_command_a_run(capsys):
    assert main(["reproduce", "3", "--scale", "cpu", "--seeds", "0", "1", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 16
    assert all(line.startswith("looped train in-context-tree-") and " && looped evaluate " in line for line in lines)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("reproduce 7", "table 7: expected one of 2, 3, 4"),
        ("reproduce 2 --scale laptop", "laptop"),
        ("reproduce 2 --jobs 0", "--jobs 0: expected at least one run at a time"),
        ("reproduce 2 --override train.steps", "--override train.steps: expected field=value"),
        ("reproduce 2 --override train.stepz=4", "--train.stepz"),
        ("reproduce 4", "train_files"),
    ],
)
def test_mistakes(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_estimate_counts_what_a_training_does():
    run = complete(recipe("lcs-looped@demo"))
    flops, seconds = estimate(run)
    longer = dataclasses.replace(run, train=dataclasses.replace(run.train, steps=2 * run.train.steps))
    assert estimate(longer)[0] == 2 * flops
    assert flops == pytest.approx(run.train.steps * 128 * 20 * 6 * 4 * 12 * 64**2, rel=0.25)  # 6 N D, N looped 4 times
    assert 0.1 < seconds < 1000


@pytest.mark.parametrize("halting", ["gate", "act"])
def test_estimate_of_learned_halting(halting):
    run = complete(recipe("lcs-looped@demo"))
    learned = dataclasses.replace(
        run,
        model=dataclasses.replace(run.model, halting=halting),
        train=dataclasses.replace(run.train, loss="halting"),
    )
    assert 1.0 < estimate(learned)[0] / estimate(run)[0] < 1.1


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that have run: in this process, one after another. tests/test_cli.py runs real processes."""
    done: list[list[str]] = []

    def run_local(jobs: Sequence[Job], at_a_time: int) -> dict[Path, Failure]:
        for line in (line for job in jobs for line in job.commands):
            assert line[0] == "looped"
            done.append(line[1:])
            assert main(line[1:]) == 0
        return {}

    monkeypatch.setattr(sweep, "run_local", run_local)
    for size in ("PROMPTS", "SLOW_PROMPTS"):  # the baselines are tested elsewhere
        monkeypatch.setattr(in_context, size, 4)
    return done


def test_writes_the_table_runs_and_reports(tmp_path, monkeypatch, capsys, in_process):
    """The smallest table, with all of its eight runs."""
    monkeypatch.chdir(tmp_path)
    small = ["train.steps=2", "train.batch-size=4", "train.eval-every=2", "train.save-every=2", "train.eval-examples=4"]
    small += ["task.points=11", "model.d-model=16", "model.num-heads=2", "task.dim-every=1", "task.points-every=1"]
    small += ["train.compile=False", "train.workers=0"]
    words = ["reproduce", "3", "--jobs", "2", "--out", "out", "--override", *small]
    assert main(words) == 0
    assert len(in_process) == 16
    assert capsys.readouterr().out.endswith("out/report/report.html\n")
    table = json.loads((tmp_path / "out/table.json").read_text())
    assert table["scale"] == "demo"
    names = {name for row in table["rows"] for kind in ("published", "corrected") for name in row[kind]}
    assert names == {path.parent.name for path in (tmp_path / "out").glob("*/eval.jsonl")}
    text = (tmp_path / "out/report/report.md").read_text()
    assert text.index("## Table 3, in-context learning, at the scale demo") < text.index("## In-context learning")
    (row,) = re.findall(r"\| timestep, 4 times \|.*", text)
    assert re.fullmatch(
        r"\| timestep, 4 times \| 0.034 \|( \d+\.\d+ \\\[.*?\\\] \|){2} 1 \| \S+ \w \| \d+ s \|", row
    ), row
    assert "This is open with fewer than two shared seeds" in text
