"""Segments (deep supervision) against the model called by hand with detached states."""

import json
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from test_batches import Numbers
from training_cases import assert_same_run, metrics, tiny, weights

from looped.config import RunConfig, ScheduleConfig
from looped.models import LoopedTransformer
from looped.tasks import TASKS, Task
from looped.training import NonFiniteError, checkpoint, train, trainer
from looped.training.batches import prepared_batches
from looped.training.devices import fast_products
from looped.training.optim import make_optimizers
from looped.training.schedule import learning_rate_at

INJECTED = {"num_loops": 6, "input_injection": "add"}
SEGMENTED = tiny(model=INJECTED, segments=3, loss="all", save_every=5, log_every=1)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_steps_of_a_segment_have_the_same_batch(workers):
    config = tiny(model=INJECTED, segments=3, workers=workers, steps=20).train
    with prepared_batches(Numbers(), config, 4) as batches:
        assert [int(batch[0][0, 0]) for batch in batches] == [step // 3 for step in range(4, 20)]


def by_hand(run: RunConfig, model: LoopedTransformer, task: Task, window: int | None) -> torch.Tensor:
    """Train for 10 steps in segments of 3, with 2 loops each. Returns the last state."""
    optimizers = make_optimizers(model, run.optim)
    state = torch.empty(0)
    for step in range(10):
        batch = task.batch("train", step // 3, 16, seed=0)
        output = model(
            batch.inputs,
            attention_mask=None if batch.attention_mask.all() else batch.attention_mask,
            initial_state=state if step % 3 else None,
            num_loops=2,
            num_grad_loops=window,
            loop_logits="last" if window else "all",
        )
        state = output.state.detach()
        logits, targets = output.loop_logits[:, batch.mask], batch.targets[batch.mask]
        loss = F.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits)), reduction="sum") / len(logits)
        model.zero_grad()
        (loss / batch.mask.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(run.optim, step, 10)
            optimizer.step()
    return state


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("injection", ["add", "none"])
@pytest.mark.parametrize("window", [None, 1])
def test_a_training_equals_calls_with_detached_states(tmp_path, native, injection, window):
    """Bit for bit. The last segment is not finished."""
    run = tiny(
        model=INJECTED | {"input_injection": injection}, schedule=ScheduleConfig(num_grad_loops=window),
        steps=10, segments=3, compile=None if native else False, loss="last" if window else "all",
    )  # fmt: skip
    train(run, tmp_path / "run")
    model, task = LoopedTransformer(run.model, seed=0), TASKS[run.task.name](run.task)
    if native:
        model.use_native()
    with fast_products(torch.device("cpu")):
        state = by_hand(run, model, task, window)
    torch.testing.assert_close(weights(tmp_path / "run", 10), model.state_dict(), rtol=0, atol=0)
    carried = load_file(tmp_path / "run/checkpoints/step_000010/state.safetensors")["state"]
    torch.testing.assert_close(carried, state, rtol=0, atol=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(SEGMENTED, folder)
    return folder


@pytest.mark.parametrize("stopped_after", [7, 9])
def test_resumes_bit_for_bit_within_and_between_segments(whole, tmp_path, monkeypatch, stopped_after):
    real = trainer.train_step

    def train_step(*arguments):
        if arguments[5] + 1 == stopped_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(trainer, "train_step", train_step)
    assert train(SEGMENTED, tmp_path / "run")["finished"] == "interrupted"
    kept = tmp_path / f"run/checkpoints/step_{stopped_after:06d}/state.safetensors"
    assert kept.exists() == (stopped_after % 3 > 0)
    train(SEGMENTED, tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run", 20)


def test_steps_run_a_part_of_the_loops_and_validation_all(whole):
    lines = metrics(whole)
    assert {line["num_loops"] for line in lines if line["kind"] == "train"} == {2}
    assert {line["num_loops"] for line in lines if line["kind"] == "validation"} == {6}
    assert json.loads((whole / "summary.json").read_text())["examples"] == 7 * 16


def test_a_failed_step_leaves_the_state_before_it(tmp_path, monkeypatch):
    train(tiny(model=INJECTED, segments=3, steps=20, save_every=5, keep_last=9), tmp_path / "good")
    real = trainer.train_step

    def train_step(fabric, scored, optimizers, batch, run, step, loops):
        if step == 5:
            scored.model.head.weight.data[0] = float("inf")
        return real(fabric, scored, optimizers, batch, run, step, loops)

    monkeypatch.setattr(trainer, "train_step", train_step)
    with pytest.raises(NonFiniteError, match="step 6"):
        train(tiny(model=INJECTED, segments=3, steps=20), tmp_path / "bad")
    good, bad = (
        load_file(tmp_path / name / "checkpoints/step_000005/state.safetensors")["state"] for name in ("good", "bad")
    )
    torch.testing.assert_close(bad, good, rtol=0, atol=0)


@pytest.mark.parametrize("fault", ["missing", "damaged", "of another batch", "not finite"])
def test_a_bad_state_is_named(tmp_path, monkeypatch, fault):
    folder = tmp_path / "run"
    train(SEGMENTED, folder)
    state = folder / "checkpoints/step_000020/state.safetensors"
    if fault == "missing":
        state.unlink()
    elif fault == "damaged":
        state.write_bytes(state.read_bytes()[:-9])
    else:
        value = 0.0 if fault == "of another batch" else float("nan")
        rows = 3 if fault == "of another batch" else 16
        save_file({"state": torch.full((rows, 12, 16), value)}, str(state))
    with pytest.raises(ValueError, match=r"step_000020/state\.safetensors"):
        checkpoint.load_state(folder, 20, SEGMENTED)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"accumulation": 2}, r"train\.accumulation=2: expected 1 with train\.segments=3"),
        ({"devices": 2}, r"train\.devices=2: expected 1"),
        ({"loss": "halting", "model": {"halting": "act"}}, r"train\.loss='halting': expected last, all or window"),
        ({"model": {"modulation": "scale_gate"}}, r"model\.modulation='scale_gate': expected none or rezero"),
        ({"model": {"cache": "first"}}, r"model\.cache='first': expected all"),
        ({"model": {"num_loops": 7}}, r"model\.num_loops=7: expected a multiple of 3"),
        ({"schedule": ScheduleConfig(kind="random", min_loops=3, max_loops=6)}, r"schedule\.kind='random': expected"),
        ({"schedule": ScheduleConfig(num_grad_loops=3)}, r"schedule\.num_grad_loops=3: expected at most 2 loops"),
    ],
)
def test_what_segments_cannot_do(options, expected):
    with pytest.raises(ValueError, match=expected):
        tiny(**{"segments": 3, **options, "model": INJECTED | options.get("model", {})})
