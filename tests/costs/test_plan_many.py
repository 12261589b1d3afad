"""`looped plan RECIPE --gpu NAME`: every recipe, a large model in a moment, the table, mistakes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from looped.cli import main

LARGE = [
    *("plan", "wikitext-looped", "--gpu", "h100", "--gpus", "8", "64", "512", "--model.d-model", "2048"),
    *("--model.num-heads", "16", "--model.core-layers", "12", "--model.num-loops", "2", "--model.prelude-layers", "1"),
    *("--model.coda-layers", "1", "--model.d-ff", "9216", "--train.batch-size", "1024"),
]
WITHOUT_TORCH = "import sys; from looped.cli import main; code = main(sys.argv[1:]); assert 'torch' not in sys.modules"


EVERY_RECIPE = """
from dataclasses import replace
from looped.costs.gpus import GPUS
from looped.costs.scale import counts
from looped.recipes import RECIPES, recipe

sizes = {"vocab_size": 100, "output_size": 100, "max_seq_len": 64, "input_dim": 20}
for name in RECIPES:
    run = recipe(name)
    unused = "input_dim" if run.model.inputs == "tokens" else "vocab_size"
    missing = {k: v for k, v in sizes.items() if getattr(run.model, k) is None and k != unused}
    run = replace(run, model=replace(run.model, **missing))
    try:
        (count,) = counts(run, GPUS["h100"], [8])
    except ValueError as error:
        assert run.train.segments > 1 and str(error).startswith("train.devices=8: expected 1"), (name, error)
        continue
    best = count.recommended
    assert (best is None) == (run.train.batch_size % 8 != 0), name
    assert best is None or (0 < best.mfu < 0.8 and best.memory.total > 0 and len(count.doubled) == 3), (name, best)
    print(name)
"""


def test_every_recipe_has_a_plan():
    """In a process of its own, without the checks of types here, which take longer than all plans. Sizes that a task
    would set are filled in, because some tasks need files."""
    done = subprocess.run([sys.executable, "-c", EVERY_RECIPE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 100


def test_a_large_model_is_planned_at_once_without_torch_or_text(tmp_path):
    out = tmp_path / "plan.json"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *LARGE, "--out", str(out)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan = json.loads(out.read_text())
    assert plan["parameters"] > 8e8
    assert f"{plan['parameters']:,} parameters, effective depth 26 with 2 loops" in done.stdout
    assert [count["gpus"] for count in plan["counts"]] == [8, 64, 512]
    for count in plan["counts"]:
        best = count["recommended"]
        assert best in count["settings"]
        assert best["memory_total"] == sum(best["memory"].values())
        assert best["step"] == pytest.approx(sum(best["seconds"].values()))
        assert (
            f"{count['gpus']} GPUs: --train.devices {count['gpus']} --train.strategy {best['strategy']}" in done.stdout
        )
        assert f"{best['tokens_per_second']:,.0f}" in done.stdout
    speeds = [count["recommended"]["tokens_per_second"] for count in plan["counts"]]
    assert speeds[0] < speeds[1] < speeds[2] < 64 * speeds[0]


def test_the_command_shows_what_does_not_work(capsys):
    assert main(["plan", "wikitext-looped", "--gpu", "h100", "--memory", "2GB"]) == 0
    shown = capsys.readouterr().out
    assert "h100: 2 GB, 989 TFLOP/s" in shown
    assert "64 GPUs: the batch of 48 does not divide; 64 GPUs need at least --train.batch-size 64" in shown
    assert "recommended" in shown
    assert main(["plan", "wikitext-looped", "--gpu", "h100", "--memory", "1MB", "--gpus", "8"]) == 0
    assert "8 GPUs: does not fit" in capsys.readouterr().out


def test_the_task_gives_sizes_and_the_devices_the_count(capsys):
    words = ["plan", "p-hop-looped", "--gpu", "a100", "--train.devices", "2", "--train.batch-size", "64"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert re.search(r"a step: 64 sequences of \d+ positions", shown)
    assert "2 GPUs: --train.devices 2" in shown
    assert "8 GPUs" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--gpu v100", r"--gpu: invalid choice 'v100'|v100"),
        ("--gpus 8", r"--gpus=\(8,\): expected none without --gpu"),
        ("--gpu h100 --gpus 0", r"--gpus=\(0,\): expected numbers of at least 1"),
        ("--gpu h100 --gpus 8 8", "--gpus: 8 is given twice"),
        ("--gpu h100 --memory 8", "--memory 8: expected a size such as 8GB"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert main(["plan", "wikitext-looped", *words.split()]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys):
    assert main(["plan", "wikitext-looped", "--gpu", "h100", "--out", str(tmp_path / "no" / "plan.json")]) == 2
    assert "no" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
