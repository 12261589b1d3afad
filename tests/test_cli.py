"""The command line as a newcomer uses it: from training to the report."""

import ast
import csv
import dataclasses
import importlib
import inspect
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from looped import cli, runs
from looped.cli import COMMANDS, main
from looped.commands import choice
from looped.config import RunConfig
from looped.evaluation.scores import loop_logits
from looped.recipes import RECIPES
from looped.tasks import TASKS
from looped.tasks.edit_distance import EditDistanceConfig
from looped.training import load_run

SMALL = [
    "model.d_model=16", "model.num_heads=2", "optim.warmup_steps=2", "train.steps=4", "train.batch_size=8",
    "train.eval_examples=8", "train.device=cpu", "train.precision=fp32", "train.compile=False", "train.workers=0",
]  # fmt: skip
STRINGS = (
    "edit-distance-small --task.length 4 --task.eval-lengths 5 --model.num-loops 3 --model.modulation scale_gate "
    "--model.gate-offset 1 --model.timestep fraction --optim.learning-rate 0.05"
)
BOARDS = (
    "sudoku --task.box 2 --task.pool 200 --task.min-clues 4 --task.max-clues 8 --model.num-loops 2 "
    "--schedule.kind curriculum --schedule.min-loops 1 --schedule.max-loops 2 --schedule.every 2"
)
PUZZLES = ["31.22....21..32.", "3142243142131.2."]

# Whoever changes a command or an option changes it for all scripts of all users: then also here.
PLACES = {"device", "allow-outside"}
OPTIONS = {
    "evaluate": {"loops", "exit-rule", "confidence", "examples", "groups", "split", "checkpoint", *PLACES},
    "calibrate": {"loops", "examples", "split", "tolerance", "checkpoint", *PLACES},
    "compare": {"out", "seeds", "learning-rates", "jobs", "launcher", "slurm", "dry-run", "override"},
    "reproduce": {"scale", "out", "seeds", "jobs", "launcher", "slurm", "override", "dry-run"},
    "report": {"out"},
    "solve": {"out", "format", "num-loops", "exit-rule", "attempts", "on-bad-row"},
    "generate": {
        *("prompt", "tokens", "temperature", "top-k", "top-p", "stop", "seed", "num-loops", "exit-rule"),
        *("cache", "cache-loops", "output-weights", "prefix", "checkpoint", "device"),
    },
    "inspect": {"out", "examples", "group", "loops", "split", "seed", "allow-outside"},
    "loopify": {"out", "loops", "core", "init", "lora-rank", "modulation", "injection", "text"},
    "open": {"out", "text", "context", "document", "examples"},
    "export": {"to", "out", "num-loops", "int8", "license", "push", "public", "dry-run", "checkpoint"},
    "lm-eval": {
        *("tasks", "loops", "exit-rules", "include-path", "limit", "num-fewshot", "batch-size", "use-cache"),
        *("out", "checkpoint", "device"),
    },
    **{name: set() for name in ("status", "show", "recipes", "tasks", "completion")},
}
TRAIN_OPTIONS = {"out", "resume", "from", "recipe", "note"}


def run(command: str, *more: object) -> None:
    assert main([*shlex.split(command), *map(str, more)]) == 0


def options(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("--" + setting.replace("=", " ").replace("_", "-")).split()]


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]


def stamps(folder: Path) -> dict[str, int]:
    """When each file of a run was written; log.txt tells of every attempt."""
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != "log.txt"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def strings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "strings"
    run(f"train {STRINGS}", *options(SMALL), "--out", folder)
    return folder


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "boards"
    run(f"train {BOARDS}", *options(SMALL), "--out", folder)
    return folder


def test_train_leaves_a_whole_run_folder(strings: Path):
    names = {path.name for path in strings.iterdir()}
    assert names >= {"config.json", "environment.json", "metrics.jsonl", "checkpoints", "best.json", "summary.json"}
    assert json.loads((strings / "summary.json").read_text())["steps"] == 4


def test_resuming_a_finished_run_changes_nothing(strings: Path, capsys: pytest.CaptureFixture[str]):
    before = stamps(strings)
    assert before
    run(f"train {STRINGS}", *options(SMALL), "--out", strings, "--resume")
    assert stamps(strings) == before
    assert capsys.readouterr().out.startswith(f"{strings}: steps after 4 steps, best validation accuracy")


def test_evaluate_scores_groups_below_and_beyond_the_trained_loops(strings: Path, capsys: pytest.CaptureFixture[str]):
    run("evaluate", strings, "--loops", "1", "5", "3", "--examples", "40")
    rows = rows_of(strings)
    assert [(r["group"], r["num_loops"]) for r in rows] == [(g, n) for g in ("4", "5") for n in (1, 3, 5)]
    for row in rows:
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert (row["metric"], row["n"], row["split"]) == ("accuracy", 40, "test")
        assert (row["trained_loops"], row["step"]) == (3, load_run(strings)[2])
    out = " ".join(capsys.readouterr().out.split())
    for part in ("accuracy, test split", "1 loops", "5 loops", f"{rows[0]['value']:.4g}", "95% intervals"):
        assert part in out


def test_evaluate_by_itself_goes_to_twice_the_trained_loops(boards: Path):
    run("evaluate", boards, "--split", "validation", "--examples", "3", "--checkpoint", "last")
    rows = rows_of(boards)
    assert {row["metric"] for row in rows} == {"board", "cells", "valid"}
    assert {row["num_loops"] for row in rows} == set(range(1, 9))
    assert {row["split"] for row in rows} == {"validation"}
    assert all(row["n"] <= 3 for row in rows)


def test_a_fraction_of_the_loops_is_evaluated_in_separate_passes(strings: Path):
    config, model, _ = load_run(strings)
    task = TASKS[config.task.name](config.task)
    batch = task.batch("test", 0, 64, seed=0, group="4")
    loops = [1, 2, 3, 5]
    with torch.no_grad():
        single = [
            model(batch.inputs, attention_mask=batch.attention_mask, num_loops=n, loop_logits=(n,)).loop_logits[0]
            for n in loops
        ]
        shared = model(
            batch.inputs, attention_mask=batch.attention_mask, num_loops=5, loop_logits=tuple(loops)
        ).loop_logits
    assert not torch.allclose(single[2], shared[2], atol=1e-3)  # else it would not matter
    torch.testing.assert_close(loop_logits(model, batch, loops), torch.stack(single))
    rows = runs.evaluate_run(strings, loops=loops, examples=64, groups=["4"])
    for row, logits in zip(rows, single, strict=True):
        assert row["value"] == pytest.approx(task.score(batch, logits)["accuracy"].mean().item())


def test_solve_answers_what_is_most_probable(strings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pairs = [("abca", "abda"), ("ab", "bbbb"), ("cabb", "bbac")]
    (tmp_path / "pairs.txt").write_text("".join(f"{a} {b}\n" for a, b in pairs))
    answers: dict[int, list[str]] = {}
    for loops in (3, 1):
        run("solve", strings, tmp_path / "pairs.txt", "--num-loops", loops)
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        answers[loops] = [row["confidence"] for row in rows]
        config, model, _ = load_run(strings)
        task = TASKS[config.task.name](config.task)
        batch = task.encode(task.read([" ".join(p) for p in pairs], "", "stop")[0])
        with torch.no_grad():
            logits = model(
                batch.inputs, attention_mask=batch.attention_mask, num_loops=loops, loop_logits=(loops,)
            ).loop_logits[0]
        chances, best = logits[batch.mask].double().softmax(-1).max(-1)
        assert [int(row["answer"]) for row in rows] == best.tolist()
        assert [float(row["confidence"]) for row in rows] == pytest.approx(chances.tolist())
        assert [row["input"] for row in rows] == [" ".join(pair) for pair in pairs]
        assert rows[0]["expected"] == "3"
    run("solve", strings, tmp_path / "pairs.txt")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["confidence"] for row in rows] == answers[3] != answers[1]  # as trained


def test_what_calibrate_recommends_is_used_by_default(boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = shutil.copytree(boards, tmp_path / "boards")
    (tmp_path / "in.txt").write_text("\n".join(PUZZLES))
    run("calibrate", folder, "--loops", "1", "4", "--examples", "12", "--tolerance", "0.1")
    out = capsys.readouterr().out
    found = json.loads((folder / "calibration.json").read_text())
    rows, chosen = found["rows"], found["recommendation"]
    assert [row["num_loops"] for row in rows if row["exit_rule"] is None] == [1, 2, 4], "those of training too"
    assert {key: chosen[key] for key in rows[0]} in rows
    assert f"recommended: {chosen['exit_rule'] or str(chosen['num_loops']) + ' loops'}" in out
    assert "unchanged:2" in out

    # Whatever an untrained model makes best: from here on a rule that does something.
    chosen |= {"exit_rule": "unchanged:1", "num_loops": 5}
    (folder / "calibration.json").write_text(json.dumps(found))
    answers = {}
    for words in ("", "--exit-rule unchanged:1 --num-loops 5", "--exit-rule none", "--num-loops 2", "--num-loops 5"):
        run("solve", folder, tmp_path / "in.txt", *words.split())
        answers[words], err = capsys.readouterr()
        says = f"exit rule unchanged:1, at most 5 loops, as {folder / 'calibration.json'} recommends\n"
        assert err == ("" if words else says)
    assert answers[""] == answers["--exit-rule unchanged:1 --num-loops 5"] != answers["--num-loops 5"]
    assert answers["--exit-rule none"] == answers["--num-loops 2"] != answers["--num-loops 5"]

    run("evaluate", folder, "--examples", "12")
    told = " ".join(capsys.readouterr().out.split())
    rows = rows_of(folder)
    early = [row for row in rows if "exit_rule" in row]
    assert {(row["exit_rule"], row["num_loops"]) for row in early} == {("unchanged:1", 5)}
    assert {row["group"] for row in early} == {row["group"] for row in rows}
    assert all(2 <= row["mean_loops"] <= 5 for row in early)
    assert "unchanged:1" in told
    run("report", folder, "--out", tmp_path / "report")
    assert "Early exit" in (tmp_path / "report/report.md").read_text()
    run("evaluate", folder, "--examples", "12", "--loops", "1", "2")
    assert not any("exit_rule" in row for row in rows_of(folder))

    found["step"] += 1
    (folder / "calibration.json").write_text(json.dumps(found))
    capsys.readouterr()
    run("solve", folder, tmp_path / "in.txt")
    again, err = capsys.readouterr()
    assert (again, "not used" in err) == (answers["--exit-rule none"], True)

    found["recommendation"]["exit_rule"] = "unchnged:1"
    (folder / "calibration.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"calibration\.json: recommendation: exit rule 'unchnged:1'.* again$"):
        runs.recommended_setting(folder, found["step"])


def test_solve_boards_from_standard_input_into_a_file(
    boards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(PUZZLES).encode())))
    run("solve", boards, "-", "--format", "jsonl", "--out", tmp_path / "answers.jsonl")
    assert capsys.readouterr() == ("", "")
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["input"] for answer in answers] == [puzzle.replace(".", "0") for puzzle in PUZZLES]
    inputs = torch.tensor([[int(cell) for cell in answer["input"]] for answer in answers])
    with torch.no_grad():
        logits = load_run(boards)[1](inputs, num_loops=2, loop_logits=(2,)).loop_logits[0]
    filled = torch.where(inputs > 0, inputs, logits[..., 1:].argmax(-1) + 1)
    assert [answer["answer"] for answer in answers] == ["".join(map(str, cells)) for cells in filled.tolist()]
    for answer in answers:
        assert answer["expected"] == "3142243142131324"
        assert answer["valid"] == (answer["answer"] == answer["expected"])
        assert 0 < answer["confidence"] <= 1


def test_sudoku_files_take_the_place_of_the_recipes_pool(tmp_path: Path, boards: Path):
    pool = TASKS["sudoku"](load_run(boards)[0].task).pool  # pyright: ignore[reportAttributeAccessIssue]
    (tmp_path / "puzzles.txt").write_text("".join("".join(map(str, p)) + "\n" for p in pool.puzzles.tolist()))
    command = BOARDS.replace("--task.pool 200", f"--task.files {tmp_path / 'puzzles.txt'}")
    run(f"train {command}", *options(SMALL), "--out", tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())["run"]
    assert config["task"]["files"] == [str(tmp_path / "puzzles.txt")]


def test_show_recipes_tasks(strings: Path, capsys: pytest.CaptureFixture[str]):
    run("show", strings)
    shown = capsys.readouterr().out
    for part in ('"d_model": 16', "checkpoints: ", '"finished": "steps"'):
        assert part in shown
    run("recipes")
    listed = capsys.readouterr().out
    names = [line.split("│")[1].strip() for line in listed.splitlines() if line.startswith("│")]
    assert [name for name in names if name] == list(RECIPES)
    run("tasks")
    told = capsys.readouterr().out
    for part in (*(f"{name}: " for name in TASKS), "edit distance: ", "puzzle", "target: ", "answer: "):
        assert part in told


def test_report_of_both(strings: Path, boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run("evaluate", strings, "--loops", "1", "3", "--examples", "16")
    run("evaluate", boards, "--loops", "1", "2", "--examples", "8")
    capsys.readouterr()
    run("report", strings, boards, "--out", tmp_path / "report")
    assert capsys.readouterr().out.strip() == str(tmp_path / "report/report.html")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "report" / name).read_text()
        assert "strings" in text
        assert "boards" in text
    assert len((tmp_path / "report/results.csv").read_text().splitlines()) > 4


def test_compare_does_all_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "compare"
    recipes = ("edit-distance-small", "edit-distance-small-timestep")
    command = ["compare", *recipes, "--jobs", "2", "--out", str(out)]
    command += ["--override", *SMALL, "task.length=4"]
    assert main([*command, "--seeds", "0", "1", "--dry-run"]) == 0
    planned = capsys.readouterr().out.splitlines()
    names = [f"{name}-seed{seed}" for name in recipes for seed in (0, 1)]
    assert all(f"--out {out / name} " in line for name, line in zip(names, planned, strict=True))
    assert all(f"--train.seed {name[-1]} &&" in line for name, line in zip(names, planned, strict=True))
    assert not out.exists()

    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(planned[3], shell=True, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folders = [out / name for name in (names[1], names[3])]
    first = stamps(folders[1])
    assert str(folders[1] / "eval.jsonl") in first
    assert not folders[0].exists()

    command += ["--seeds", "1"]
    assert main(command) == 0
    assert (out / "report/report.html").exists()
    assert stamps(folders[1]) == first
    assert [json.loads((folder / "config.json").read_text())["run"]["train"]["seed"] for folder in folders] == [1, 1]
    assert all(rows_of(folder) for folder in folders)
    results = (out / "report/results.csv").read_text()
    assert all(f",{name}," in results for name in recipes)

    before = {folder: stamps(folder) for folder in folders}
    assert main([word for word in command if word != recipes[1]]) == 0
    assert {folder: stamps(folder) for folder in folders} == before


def told_options(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    assert main([*command.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    names = re.findall(r"(?<![\w`-])--([a-z][\w.-]*)", out)
    return {name for name in names if name != "help" and not re.search(r"(^|\.)no-", name)}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_tells_the_options(command: str, capsys: pytest.CaptureFixture[str]):
    assert told_options(command, capsys) - {"train.steps", "task.length"} == OPTIONS[command]


def test_help_of_train_tells_all_settings(capsys: pytest.CaptureFixture[str]):
    parts = {f.name: f.default_factory for f in dataclasses.fields(RunConfig) if callable(f.default_factory)}
    parts["task"] = EditDistanceConfig
    settings = {
        f"{part}.{field.name}".replace("_", "-")
        for part, config in parts.items()
        for field in dataclasses.fields(config())  # pyright: ignore[reportArgumentType]
    }
    assert told_options("train edit-distance-small", capsys) == settings | TRAIN_OPTIONS


def test_commands(capsys: pytest.CaptureFixture[str]):
    assert set(COMMANDS) == {"train", "plan", "construct", "theory", *OPTIONS}
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert [line.split()[0] for line in out.splitlines()[2:-2]] == list(COMMANDS)
    assert main(["train"]) == 0
    assert f"recipes: {', '.join(RECIPES)}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_what_the_command_says(name: str):
    module = importlib.import_module(f"looped.commands.{name.replace('-', '_')}")
    documented = module.main if name == "theory" else getattr(module, name.replace("-", "_"))
    assert COMMANDS[name] == (inspect.getdoc(documented) or "").partition("\n")[0]


def test_no_command_is_imported_before_it_is_chosen():
    """Without the package's own imports, which are another test's, as one sees from the module alone."""
    known = {"contextlib", "importlib", "os", "signal", "sys", "warnings", "collections"}
    for module in (cli, choice):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        names = [n.module for n in tree.body if isinstance(n, ast.ImportFrom)]
        names += [alias.name for n in tree.body if isinstance(n, ast.Import) for alias in n.names]
        assert names
        assert {str(name).partition(".")[0] for name in names} <= known | {"looped"}
        assert {name for name in names if str(name).startswith("looped")} <= {
            "looped.commands.choice", "looped.launch.parent", "looped.printing", "looped.strict",
            "looped.training.errors", "looped.user_code",
        }  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        ["train", "edit-distance-small", "--train.eval-every", "5", "--train.eval_every=7"],
        ["compare", "lcs", "--dry-run", "--learning-rates", "0.1", "--override", "optim.learning_rate=5"],
    ],
)
def test_two_spellings_of_an_option_are_the_same_option(command, capsys):
    assert main(command) == 2
    assert "given 2 times; expected once" in capsys.readouterr().err


def test_a_folder_with_control_characters_is_named_without_them(tmp_path, capsys):
    small = ["--train.steps=1", "--optim.warmup-steps=0", "--train.batch-size=4", "--train.eval-examples=4"]
    assert main(["train", "edit-distance-small", "--out", f"{tmp_path}/\x1b[31m", "--train.workers=0", *small]) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert r"\x1b[31m: steps after 1 steps" in out
