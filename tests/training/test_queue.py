"""Queued steps on a CPU: the same runs, errors and checkpoints as with steps that the host waits for."""

import dataclasses
import inspect
import signal

import pytest
import torch
from safetensors.torch import load_file
from training_cases import RESUMABLE, assert_same_run, losses, tiny

from looped.config import ScheduleConfig
from looped.models.transformer import LoopedTransformer
from looped.tasks import TASKS
from looped.training import NonFiniteError, checkpoint, train, trainer
from looped.training.queue import REPEATS, Graph
from looped.training.step import IGNORED, ModelWithLoss, masked_positions, masked_sums

RANDOM = dataclasses.replace(RESUMABLE, train=dataclasses.replace(RESUMABLE.train, steps=16, eval_every=9))
MUON = {"optimizer": "muon", "ema_decay": 0.9}


def test_queued_run_is_the_same_bit_for_bit(tmp_path, monkeypatch):
    train(RANDOM, tmp_path / "waits")
    monkeypatch.setattr(trainer, "queues", lambda fabric: True)
    train(RANDOM, tmp_path / "queued")
    assert_same_run(tmp_path / "waits", tmp_path / "queued", 16)


def test_recorded_run_differs_by_rounding_only_and_resumes_bit_for_bit(tmp_path, monkeypatch):
    run = tiny(steps=REPEATS + 8, log_every=1, eval_every=100, optim=MUON)
    train(run, tmp_path / "waits")
    monkeypatch.setattr(trainer, "queues", lambda fabric: True)
    recorded = []
    real = Graph.__call__
    monkeypatch.setattr(Graph, "__call__", lambda self, *inputs: recorded.append(1) or real(self, *inputs))
    train(run, tmp_path / "queued")
    assert len(recorded) == 8
    assert losses(tmp_path / "queued") == pytest.approx(losses(tmp_path / "waits"), rel=1e-4)
    interrupt = trainer.Queue.add
    with monkeypatch.context() as patch:
        patch.setattr(
            trainer.Queue, "add", lambda *a: interrupt(*a) or (a[2] == 12 and signal.raise_signal(signal.SIGTERM))
        )
        assert train(run, tmp_path / "resumed")["steps"] == 13
    train(run, tmp_path / "resumed", resume=True)
    assert_same_run(tmp_path / "queued", tmp_path / "resumed", REPEATS + 8)


@pytest.mark.parametrize(("bad", "schedule"), [(0, None), (7, ScheduleConfig(num_grad_loops=2)), (11, None)])
def test_a_step_that_is_not_finite_is_found_later_but_changes_nothing(tmp_path, monkeypatch, bad, schedule):
    """A table that is infinite from its second loop on, as if an earlier step had made it so."""
    model = {"modulation": "table", "max_loops": 3, "gate_offset": 1}
    run = tiny(model=model, steps=15, eval_every=100, optim=MUON, schedule=schedule)

    def breaks(real):
        signature = inspect.signature(real)

        def step(*arguments):
            given = signature.bind(*arguments).arguments
            if given["step"] == bad:
                scored = given["self"].scored if "self" in given else given["scored"]
                scored.model.modulation.table.data[1] = float("inf")
            return real(*arguments)

        return step

    monkeypatch.setattr(trainer, "train_step", breaks(trainer.train_step))
    monkeypatch.setattr(trainer.Queue, "add", breaks(trainer.Queue.add))
    messages = []
    for name in ("waits", "queued"):
        with pytest.raises(NonFiniteError) as raised:
            train(run, tmp_path / name)
        messages.append(str(raised.value))
        assert checkpoint.saved_steps(tmp_path / name) == [bad]
        monkeypatch.setattr(trainer, "queues", lambda fabric: True)
    assert messages[0] == messages[1]
    assert messages[0].startswith(f"step {bad + 1}: the state is not finite from loop 2 of 3 on; stopped with")
    for name in ("model", "average", "optimizer"):
        one, other = (tmp_path / run / f"checkpoints/step_{bad:06d}/{name}.safetensors" for run in ("waits", "queued"))
        torch.testing.assert_close(load_file(one), load_file(other), rtol=1e-4, atol=1e-5)


def test_sums_over_chosen_positions_equal_those_with_ignored_classes():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    targets = torch.randint(5, (3, 4), generator=generator)
    mask = torch.rand(3, 4, generator=generator) < 0.5
    assert 0 < mask.sum() < 12
    loss, right = masked_sums(logits, targets, masked_positions(mask))
    other, also = masked_sums(logits, targets.masked_fill(~mask, IGNORED), slice(None))
    assert loss.item() == pytest.approx(other.item())
    assert right == also


@pytest.mark.parametrize("loss", ["last", "all"])
@pytest.mark.parametrize("model", [{"modulation": "table", "max_loops": 3}, {"positions": "rotary", "causal": True}])
def test_no_step_reads_a_tensor(model, loss):
    """On the meta device tensors have no content, so every wait of the host for a value raises an error."""
    run = tiny(model=model, loss=loss)
    meta = torch.device("meta")
    scored = ModelWithLoss(LoopedTransformer(run.model), run.train).to(meta)
    batch = TASKS["edit_distance"](run.task).batch("train", 0, 16, seed=0)
    positions = masked_positions(batch.mask)
    batch = batch.map(lambda tensor: tensor.to(meta))
    for chosen in (positions.to(meta), slice(None)):
        loss_, right = scored(batch, True, 3, 3, chosen)
        loss_.backward()
        norm = torch.nn.utils.clip_grad_norm_(scored.parameters(), 1.0)
        assert norm.device == right.device == meta
