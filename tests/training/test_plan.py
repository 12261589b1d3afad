"""Plans: memory against real steps, settings for the memory at hand, the command."""

import json

import pytest
from training_cases import tiny

from benchmarks.training_step import peak_bytes
from looped.cli import main
from looped.commands.arguments import memory_size
from looped.config import ScheduleConfig
from looped.models.transformer import LoopedTransformer
from looped.tasks import TASKS
from looped.training import planning
from looped.training.fabric import make_fabric
from looped.training.optim import WeightAverage, make_optimizers
from looped.training.planning import Planner, plan, simulated_peak
from looped.training.schedule import LoopSchedule
from looped.training.short_steps import rows_of
from looped.training.step import ModelWithLoss, train_step

WIDE = {"d_model": 32, "num_heads": 4, "num_loops": 2}
MODULATED = {"modulation": "adaln_zero", "activation": "swiglu", "norm": "layer", "bias": True}
CASES = {
    "modulated, 16 bits": {"model": MODULATED, "precision": "bf16"},
    "loop, parts": {"recompute": "loop", "accumulation": 4},
    "nested, window": {"recompute": "nested", "model": {"num_loops": 5}, "schedule": ScheduleConfig(num_grad_loops=4)},
    "all loops, muon": {"loss": "all", "optim": {"optimizer": "muon", "ema_decay": 0.9}},
    "act": {"model": {"halting": "act"}, "loss": "halting"},
    "gate, more layers": {
        "model": {"halting": "gate", "prelude_layers": 1, "coda_layers": 1, "input_injection": "concat"},
        "loss": "halting",
    },
    "weights above all": {"batch_size": 2, "model": {"d_model": 256, "num_loops": 2}},
}


def sized(settings):
    model = {**WIDE, **settings.get("model", {})}
    return tiny(**{"batch_size": 64, **settings, "model": model})


def first_batch(run):
    return TASKS[run.task.name](run.task).batch("train", 0, run.train.batch_size, seed=0)


def measured_peak(run, batch, loops):
    """Peak bytes in torch's allocator during the second of two steps of a new training."""

    def steps():
        fabric = make_fabric(run)
        model = LoopedTransformer(run.model)
        scored = fabric.setup_module(ModelWithLoss(model, run.train))
        optimizers = make_optimizers(model, run.optim)
        average = WeightAverage(model, run.optim.ema_decay) if run.optim.ema_decay else None
        own = rows_of(batch, run.train.batch_size)  # a copy, which counts
        for step in range(2):
            train_step(fabric, scored, optimizers, own, run, step, loops)
        del average

    return peak_bytes(steps)


@pytest.mark.parametrize("name", CASES)
def test_the_simulated_peak_is_the_real_one(name):
    run = sized(CASES[name])
    batch, loops = first_batch(run), LoopSchedule(run.schedule, run.model.num_loops, 0).at(0)
    real = measured_peak(run, batch, loops)
    assert 0.93 * real < simulated_peak(run, batch, loops) < 1.07 * real


def test_settings_for_the_memory_at_hand(monkeypatch):
    """Decided by the memory of tensors alone, because nothing is measured here."""
    monkeypatch.setattr(planning, "apart", lambda *_: None)
    monkeypatch.setattr(planning, "resident_memory", lambda: 0)
    run = sized({"model": {"num_loops": 4}, "batch_size": 4})
    ample = plan(run, 2**40)
    configured = ample.choices[0]
    assert ample.choices == [configured]
    assert ample.recommended is configured
    assert not configured.measured
    assert ample.largest_batch > run.train.batch_size
    assert ample.window is None
    needed = ample.program + ample.examples + int(0.75 * configured.tensors)
    short = plan(run, int(planning.MARGIN * needed))
    assert not short.choices[0].fits
    none, loop = short.choices[1:]
    assert (none.recompute, none.accumulation) == ("none", 2)
    assert (loop.recompute, loop.accumulation) == ("loop", 1)
    assert all(choice.fits for choice in (none, loop))
    assert short.recommended is loop
    assert short.window is not None
    assert short.window.num_grad_loops in (2, 3)
    nothing = plan(run, 1000)
    assert nothing.recommended is nothing.window is None
    assert not nothing.choices[0].fits


def test_a_random_schedule_is_a_mean():
    run = sized({"schedule": ScheduleConfig(kind="random", min_loops=1, max_loops=12), "steps": 50})
    found = Planner(run, None)
    one, twelve = (planning.training_flops(run.model, 12, n, n) * run.train.batch_size for n in (1, 12))
    assert 1.5 * one < found.mean_flops < 0.8 * twelve


def test_the_command(tmp_path, capsys, monkeypatch):
    """It measures real steps, and writes nothing but the file that it is asked for."""
    monkeypatch.setattr("looped.training.short_steps.MEASURED", 0.05)
    monkeypatch.chdir(tmp_path)
    words = ["plan", "edit-distance-small", "--train.device", "cpu", "--train.batch-size", "8", "--train.steps", "200"]
    assert main([*words, "--out", "plan.json"]) == 0
    shown = capsys.readouterr().out
    stored = json.loads((tmp_path / "plan.json").read_text())
    assert f"{stored['parameters']:,} parameters" in shown
    assert "recommended: as configured" in shown
    (choice,) = stored["choices"]
    assert choice["measured"]
    assert choice["memory"] > stored["program"]
    assert choice["seconds"] >= 200 * choice["step_seconds"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    assert main([*words, "--memory", "8"]) == 2
    assert "--memory 8: expected a size such as 8GB" in capsys.readouterr().err


def test_sizes_of_memory():
    sizes = {"8GB": 8 * 10**9, "512MB": 512 * 10**6, "1.5GiB": 3 * 2**29, "7 kB": 7000, "9B": 9}
    assert {text: memory_size(text) for text in sizes} == sizes
    for text in ("", "GB", "-1GB", "8G", "1e9B"):
        with pytest.raises(ValueError, match="expected a size"):
            memory_size(text)
