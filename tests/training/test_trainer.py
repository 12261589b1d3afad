import dataclasses
import functools
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
import training_cases
from training_cases import RESUMABLE, assert_same_run, files_of_at_most, losses, metrics, tiny, weights

from looped.runs import evaluate_run
from looped.strict import to_dict
from looped.training import NonFiniteError, checkpoint, load_run, train, trainer
from looped.training.devices import should_compile
from looped.training.logger import Metrics


def start(folder: Path, run, *arguments: str) -> subprocess.Popen:
    words = [training_cases.__file__, str(folder), json.dumps(to_dict(run)), *arguments]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(run.train.devices)]
    return subprocess.Popen([sys.executable, *(torchrun if run.train.devices > 1 else ()), *words])


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """RESUMABLE without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    summary = train(RESUMABLE, folder)
    assert summary["finished"] == "steps"
    assert len(set(losses(folder))) == len(losses(folder))
    first, last = weights(folder, summary["best"]["step"]), weights(folder, 120)
    assert summary["best"]["step"] == 120 or all(not torch.equal(first[name], last[name]) for name in first)
    return folder


def interrupt_at(monkeypatch, step: int, number: int = signal.SIGTERM) -> None:
    """The process gets a signal while it computes that step."""

    real = trainer.train_step
    signature = inspect.signature(real)

    @functools.wraps(real)
    def train_step(*arguments, **named):
        if signature.bind(*arguments, **named).arguments["step"] + 1 == step:
            os.kill(os.getpid(), number)
        return real(*arguments, **named)

    monkeypatch.setattr(trainer, "train_step", train_step)


def test_run_folder(whole):
    summary = json.loads((whole / "summary.json").read_text())
    best = json.loads((whole / "best.json").read_text())
    assert summary["best"] == best
    assert {key: summary[key] for key in ("recipe", "metric", "steps", "examples", "finished", "effective_depth")} == {
        "recipe": "custom", "metric": "accuracy", "steps": 120, "examples": 1920, "finished": "steps",
        "effective_depth": 4,
    }  # fmt: skip
    assert summary["parameters"] == sum(p.numel() for p in load_run(whole)[1].parameters())
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert list(filter(lambda line: line["kind"] == "train", lines))[-1].keys() == {
        "kind", "step", "loss", "accuracy", "learning_rate", "grad_norm", "num_loops", "num_grad_loops",
        "examples_per_s", "tokens_per_s", "matmul_share", "data_wait", "peak_memory", "seconds",
    }  # fmt: skip
    assert all(0 < line["matmul_share"] < 1 for line in lines if line["kind"] == "train")
    assert all(2**26 < line["peak_memory"] < 2**36 for line in lines if line["kind"] == "train")
    assert all(line["tokens_per_s"] == pytest.approx(line["examples_per_s"] * 12) for line in lines[:3])
    assert lines[-1].keys() == {"kind", "step", "seconds", "num_loops", "scores"}
    assert [line["step"] for line in lines if line["kind"] == "train"] == [*range(7, 120, 7), 120]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [40, 80, 120]
    scores = [line["scores"]["accuracy"] for line in lines if line["kind"] == "validation"]
    assert best["value"] == max(scores)
    assert best["step"] == max(40 * i for i, score in enumerate(scores, 1) if score == max(scores))
    assert set(checkpoint.saved_steps(whole)) == {100, 120, best["step"]}
    environment = json.loads((whole / "environment.json").read_text())
    assert environment.keys() == {
        "command", "date", "machine", "python", "torch", "looped", "threads", "precision", "matmul_peak", "device",
        "devices", "nodes", "strategy",
    }  # fmt: skip


def test_logged_values_are_means_of_the_steps_since_the_last_line(tmp_path):
    train(tiny(log_every=1), tmp_path / "each")
    train(tiny(log_every=5), tmp_path / "mean")
    each = losses(tmp_path / "each")
    assert losses(tmp_path / "mean") == pytest.approx([sum(each[i : i + 5]) / 5 for i in range(0, 20, 5)])


def test_same_seed_same_losses_and_untouched_generators(tmp_path):
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    for name, seed, workers in (("one", 3, 0), ("other", 3, 2), ("third", 4, 0)):
        train(tiny(seed=seed, workers=workers, log_every=1), tmp_path / name)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state()) == before[1]  # noqa: NPY002
    one, other, third = (losses(tmp_path / name) for name in ("one", "other", "third"))
    assert len(set(one)) == 20
    assert one == other
    assert not set(one) & set(third)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_resumes_bit_for_bit_after_a_signal_from_outside(whole, tmp_path, number):
    process = start(tmp_path / "run", RESUMABLE)
    log = tmp_path / "run/metrics.jsonl"
    wait_for(lambda: log.exists() and log.read_bytes().count(b"\n") > 5)
    process.send_signal(number)
    assert process.wait(60) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["finished"], summary["signal"]) == ("interrupted", number)
    assert 35 <= summary["steps"] < 120
    assert train(RESUMABLE, tmp_path / "run", resume=True)["finished"] == "steps"
    assert_same_run(whole, tmp_path / "run", 120)


def test_resumes_bit_for_bit_after_kill_while_saving(whole, tmp_path):
    process = start(tmp_path / "run", RESUMABLE, "60")
    wait_for((tmp_path / "run/hangs").exists)
    process.kill()
    process.wait()
    (leftover,) = (tmp_path / "run/checkpoints").glob(".step_000060.*.tmp")
    assert not (tmp_path / "run/summary.json").exists()
    assert load_run(tmp_path / "run", "last")[2] < 60
    train(RESUMABLE, tmp_path / "run", resume=True)
    assert not leftover.exists()
    assert_same_run(whole, tmp_path / "run", 120)


def test_resumes_after_many_interruptions_and_half_written_leftovers(whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    for step in (1, 13, 40, 64, 119):
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            assert train(RESUMABLE, folder, resume=step > 1) | {"seconds": 0} == {
                **json.loads((folder / "summary.json").read_text()),
                "steps": step, "finished": "interrupted", "signal": signal.SIGTERM, "seconds": 0,
            }  # fmt: skip
        half = folder / f"checkpoints/.step_{step + 1:06d}.0123.tmp"
        half.mkdir()
        (half / "model.safetensors").write_bytes(b"half")
        (folder / ".summary.json.tmp").write_text("{")
        with (folder / "metrics.jsonl").open("a") as file:  # lines that no checkpoint knows, the last cut
            file.write('{"kind": "train", "step": 9999}\n{"kind":')
    (folder / "best.json").unlink()  # as after a kill between the checkpoint and this file
    train(RESUMABLE, folder, resume=True)
    assert_same_run(whole, folder, 120)
    assert not [path for path in folder.rglob("*") if "tmp" in path.name]


def test_killed_before_the_first_checkpoint_starts_again(tmp_path):
    run = tiny()
    train(run, tmp_path / "whole")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "data.json"):
        (folder / name).write_text((tmp_path / "whole" / name).read_text())
    (folder / "metrics.jsonl").write_text('{"kind": "tr')
    train(run, folder, resume=True)
    assert_same_run(tmp_path / "whole", folder, 20)


def test_a_run_continues_with_other_settings_more_than_once(tmp_path, monkeypatch):
    """Those that change rounding only, such as the number of devices. Afterwards it is evaluated as any other run."""
    for last, accumulation in ((5, 1), (10, 2), (15, 4), (20, 1)):
        interrupt_at(monkeypatch, last)
        summary = train(tiny(accumulation=accumulation), tmp_path / "run", resume=last > 5)
        assert summary["steps"] == last
    assert evaluate_run(tmp_path / "run", loops=[1], examples=8)


def test_signals_are_handled_only_while_training(tmp_path, monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    interrupt_at(monkeypatch, 7, signal.SIGINT)
    assert train(tiny(), tmp_path / "run")["steps"] == 7
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert checkpoint.saved_steps(tmp_path / "run") == [7]


def test_second_signal_acts_at_once(tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 7, signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7, signal.SIGINT)
        outside = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
        try:
            with pytest.raises(KeyboardInterrupt):
                train(tiny(), tmp_path / "run")
        finally:
            signal.signal(signal.SIGINT, outside)
    assert checkpoint.saved_steps(tmp_path / "run") == []


def test_trains_in_another_thread(tmp_path):
    summaries = []
    thread = threading.Thread(target=lambda: summaries.append(train(tiny(), tmp_path / "run")))
    thread.start()
    thread.join()
    assert summaries[0]["finished"] == "steps"


def test_finished_run_returns_its_summary(whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert train(RESUMABLE, whole, resume=True) == json.loads((whole / "summary.json").read_text())
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_nothing_is_overwritten(whole, tmp_path):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"already holds a run \(config.json\); resume it or choose another"):
        train(RESUMABLE, whole)
    other = dataclasses.replace(RESUMABLE, train=dataclasses.replace(RESUMABLE.train, seed=9))
    with pytest.raises(ValueError, match=r"another configuration: train\.seed=9, but the folder has 0$"):
        train(other, whole, resume=True)
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before
    with pytest.raises(ValueError, match="not a run folder"):
        train(RESUMABLE, tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()


def test_damaged_checkpoint_on_resume(tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 7)
    train(tiny(), tmp_path / "run")
    path = tmp_path / "run/checkpoints/step_000007/optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"step_000007/optimizer\.safetensors: the file is cut short or damaged"):
        train(tiny(), tmp_path / "run", resume=True)


def test_metrics_shorter_than_the_checkpoint_says(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="3 bytes, but the checkpoint was written after 9"):
        Metrics(tmp_path / "metrics.jsonl", 9)


def test_target_ends_early(tmp_path):
    run = tiny(steps=50, eval_every=5, target=0.01)
    summary = train(run, tmp_path / "run")
    assert summary["finished"] == "target"
    assert summary["steps"] == summary["best"]["step"] < 50
    (tmp_path / "run/summary.json").unlink()  # as after a kill just before the end
    assert train(run, tmp_path / "run", resume=True) | {"seconds": 0} == summary | {"seconds": 0}


def test_saves_by_the_clock(tmp_path):
    train(tiny(save_every=1000, save_minutes=1e-9, keep_last=99), tmp_path / "run")
    assert checkpoint.saved_steps(tmp_path / "run") == list(range(1, 21))


def test_schedule_reaches_the_metrics(tmp_path):
    schedule = training_cases.ScheduleConfig(kind="curriculum", min_loops=1, max_loops=4, every=4, num_grad_loops=2)
    train(tiny(schedule=schedule, log_every=1), tmp_path / "run")
    lines = [line for line in metrics(tmp_path / "run") if line["kind"] == "train"]
    assert [line["num_loops"] for line in lines] == [min(4, 1 + step // 4) for step in range(20)]
    assert [line["num_grad_loops"] for line in lines] == [min(2, 1 + step // 4) for step in range(20)]
    assert metrics(tmp_path / "run")[-1]["num_loops"] == 4


def test_non_finite_leaves_the_last_good_weights(tmp_path, monkeypatch):
    """A table that is infinite from its second loop on, as if the seventh step had made it so."""
    run = tiny(model={"modulation": "table", "max_loops": 3, "gate_offset": 1})
    real = trainer.train_step

    def train_step(fabric, scored, optimizers, batch, run, step, loops):
        if step == 7:
            scored.model.modulation.table.data[1] = float("inf")
        return real(fabric, scored, optimizers, batch, run, step, loops)

    monkeypatch.setattr(trainer, "train_step", train_step)
    with pytest.raises(NonFiniteError, match=r"^step 8: the state is not finite from loop 2 of 3 on; stopped with"):
        train(run, tmp_path / "run")
    assert checkpoint.saved_steps(tmp_path / "run") == [7]
    assert weights(tmp_path / "run", 7)["modulation.table"][1].isinf().all()


def test_non_finite_saves_what_no_checkpoint_has(tmp_path):
    run = tiny(optim={"learning_rate": 1e30, "warmup_steps": 1, "clip_norm": None}, log_every=1)
    with pytest.raises(NonFiniteError, match=r"^step (3|4): "):
        train(run, tmp_path / "run")
    _, model, step = load_run(tmp_path / "run", "last")
    assert step == len(losses(tmp_path / "run")) > 0
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    run = tiny(save_every=5, eval_every=20)
    train(run, tmp_path / "whole")
    real = os.fsync

    def full(descriptor: int) -> None:
        if "step_000010." in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match=r"step_000010: cannot write this checkpoint.*No space left on device"):
            train(run, tmp_path / "run")
    assert checkpoint.saved_steps(tmp_path / "run") == [5]
    train(run, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run", 20)


def test_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = Metrics(path, 0)
    log.write("train", step=1)
    with files_of_at_most(path.stat().st_size + 5), pytest.raises(OSError, match="File too large"):
        log.write("train", step=2)
    assert path.read_text() == '{"kind": "train", "step": 1}\n'


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device that this test says is missing")
def test_no_such_device(tmp_path):
    with pytest.raises(ValueError, match=r"device='cuda': this machine has no cuda devices"):
        train(tiny(device="cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_devices_compute_what_one_does(tmp_path):
    train(tiny(accumulation=2), tmp_path / "one")
    assert start(tmp_path / "two", tiny(accumulation=2, devices=2)).wait(180) == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert len(metrics(tmp_path / "two")) == len(metrics(tmp_path / "one"))


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not should_compile(None, torch.device("cpu"))
    with pytest.raises(ValueError, match="compile=True: found no compiler for cpu"):
        train(tiny(compile=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # so that the mended command needs no --resume


@pytest.mark.skipif(not should_compile(None, torch.device("cpu")), reason="no compiler here")
@pytest.mark.parametrize(("attention", "setting"), [("softmax", None), ("linear", True)], ids=["C++", "torch.compile"])
def test_compiled_run_trains_and_resumes(attention, setting, tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its checks cannot be compiled
    run = tiny(steps=6, log_every=1, eval_every=6, model={"attention": attention})
    compiled = dataclasses.replace(run, train=dataclasses.replace(run.train, compile=setting))
    train(run, tmp_path / "eager")
    train(compiled, tmp_path / "compiled")
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=1e-4)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        train(compiled, tmp_path / "resumed")
    train(compiled, tmp_path / "resumed", resume=True)
    assert_same_run(tmp_path / "compiled", tmp_path / "resumed", 6)
