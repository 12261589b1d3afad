"""The estimate of a training's memory, and what is refused before a training begins."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest
import torch
from training_cases import tiny

from looped import machine
from looped.config import check_fits
from looped.costs.memory import activations_memory, check_memory, examples_memory, weights_memory
from looped.machine import machine_memory
from looped.tasks import TASKS
from looped.training import train

SIZES = {"batch_size": 1024, "model": {"d_model": 128, "num_heads": 4, "num_loops": 6}}
MEASURE = """
import re, sys, tempfile, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from training_cases import tiny
from test_memory import SIZES
from looped.training import train
torch.set_num_threads(1)
# Not ru_maxrss, which begins with the peak of the process that started this one.
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
for sizes in ({}, SIZES):
    with tempfile.TemporaryDirectory() as folder:
        before = peak()
        train(tiny(steps=2, **sizes), folder + "/run")
print(peak() - before)
"""


def estimated(run, half=False):
    example = TASKS[run.task.name](run.task).batch("train", 0, 1, seed=0)
    activations = activations_memory(run, example, half=half)
    return {"weights": weights_memory(run), "activations": activations, "examples": examples_memory(run, example)}


def test_the_estimate_is_below_what_a_training_takes_but_not_far():
    command = [sys.executable, "-c", MEASURE, os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    taken, estimate = int(done.stdout), sum(estimated(tiny(**SIZES)).values())
    assert 0.4 * taken < estimate < taken


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"model": {"num_loops": 10**9}}, "activations"),
        ({"model": {"num_loops": 10**9}, "recompute": "loop"}, "activations"),
        ({"model": {"d_model": 10**9}}, "weights"),
        ({"model": {"core_layers": 10**4, "d_model": 10**4, "num_heads": 1}}, "weights"),
        ({"eval_examples": 10**12}, "examples"),
        ({"batch_size": 10**12, "accumulation": 10**11}, "examples"),
        ({"batch_size": 10**9}, "activations"),
    ],
)
def test_what_cannot_fit_is_refused_at_once(tmp_path, settings, part):
    """Before the model or a batch is made."""
    with pytest.raises(ValueError, match=r"^too little memory: this training needs at least .* GB, and this mach") as e:
        train(tiny(**settings), tmp_path / "run")
    assert f"most is for {part}; expected less: " in str(e.value)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "run").exists()


def test_too_many_workers(tmp_path):
    most = 4 * (os.cpu_count() or 1)
    with pytest.raises(ValueError, match=rf"train\.workers={most + 1}: expected at most {most}, 4 for each core"):
        train(tiny(workers=most + 1), tmp_path / "run")


def test_recomputation_and_parts_of_a_batch_need_less():
    few = [
        estimated(tiny(model={"num_loops": 64}, recompute=recompute))["activations"]
        for recompute in ("none", "loop", "nested")
    ]
    assert few == sorted(few, reverse=True)
    whole, parts = (estimated(tiny(batch_size=64, accumulation=n)) for n in (1, 4))
    assert whole["activations"] == pytest.approx(4 * parts["activations"], rel=0.001)
    assert whole["weights"] == parts["weights"]


def test_the_limit_of_the_control_group_counts(tmp_path, monkeypatch):
    (tmp_path / "max").write_text("1000000\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(machine, "LIMITS", (tmp_path / "none", tmp_path / "absent"))
    assert machine_memory() > 2**28
    monkeypatch.setattr(machine, "LIMITS", (tmp_path / "none", tmp_path / "max"))
    assert machine_memory() == 10**6
    run = tiny(batch_size=512)
    example = TASKS[run.task.name](run.task).batch("train", 0, 1, seed=0)
    with pytest.raises(ValueError, match=r"this machine has 0\.0 GB"):
        check_memory(run, example, torch.device("cpu"), half=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vocab_size": 4}, "model.vocab_size=4: expected at least"),
        ({"vocab_size": None}, "model.vocab_size=None: expected at least"),
        ({"output_size": 2}, "model.output_size=2: expected at least"),
        ({"max_seq_len": 11}, "model.max_seq_len=11: expected at least 12 for task edit_distance"),
        ({"inputs": "vectors", "vocab_size": None, "input_dim": 3}, "model.inputs='vectors': expected 'tokens'"),
    ],
)
def test_a_model_that_does_not_fit_its_task(tmp_path, change, says):
    run = tiny()
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, **change))
    with pytest.raises(ValueError, match="expected") as error:
        train(run, tmp_path / "run")
    assert says in str(error.value)
    assert not (tmp_path / "run").exists()
    check_fits(dataclasses.replace(tiny().model, vocab_size=99, max_seq_len=50), TASKS["edit_distance"](run.task))


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e39])
@pytest.mark.parametrize(
    "field", ["optim.learning_rate", "optim.weight_decay", "optim.clip_norm", "train.target", "train.save_minutes"]
)
def test_numbers_of_a_configuration_are_finite_in_float32(field, value):
    part, name = field.split(".")
    settings = {"optim": {name: value}} if part == "optim" else {name: value}
    with pytest.raises(ValueError, match=re.escape(f"{name}={value}: expected")):
        tiny(**settings)
