"""Batches of one's own `encode` that do not fit: one line that names the fault, before any training."""

from collections.abc import Callable

import pytest
import torch
from own_tasks import Successor, Sums

from looped.cli import main
from looped.tasks.base import Batch
from looped.tasks.faults import check_splits

Edit = Callable[[Batch], object]


def with_rows(name: str, change: Callable[[torch.Tensor], object]) -> Edit:
    def edit(batch: Batch) -> Batch:
        tensor = getattr(batch, name).clone()
        change(tensor)
        return batch._replace(**{name: tensor})

    return edit


FAULTS: dict[str, tuple[type, Edit, str]] = {
    "a tuple": (Successor, tuple, "gave tuple; expected a Batch with at least four tensors"),
    "an array": (Successor, lambda b: b._replace(mask=b.mask.numpy()), "expected a Batch with at least four tensors"),
    "nothing": (Successor, lambda b: None, "gave NoneType; expected a Batch"),
    "too few": (Successor, lambda b: b.map(lambda t: t[:3]), "inputs of shape (3, 5); expected (4, at most 5)"),
    "one row": (Successor, lambda b: b.map(lambda t: t[0]), "inputs of shape (5,); expected (4, at most 5)"),
    "no scalar": (
        Successor,
        lambda b: b._replace(inputs=torch.tensor(1)),
        "inputs of shape (); expected (4, at most 5)",
    ),
    "too long": (Successor, lambda b: b.map(lambda t: t.repeat(1, 2)), "inputs of shape (4, 10); expected"),
    "no position": (Successor, lambda b: b.map(lambda t: t[:, :0]), "inputs of shape (4, 0); expected"),
    "flat vectors": (
        Sums,
        lambda b: b._replace(inputs=b.inputs[..., 0]),
        "inputs of shape (4, 5); expected (4, at most 5, 1)",
    ),
    "wide vectors": (
        Sums,
        lambda b: b._replace(inputs=b.inputs.repeat(1, 1, 2)),
        "inputs of shape (4, 5, 2); expected",
    ),
    "targets": (Successor, lambda b: b._replace(targets=b.targets[:, :1]), "targets of shape (4, 1); expected (4, 5)"),
    "mask": (Successor, lambda b: b._replace(mask=b.mask[..., None]), "mask of shape (4, 5, 1); expected (4, 5)"),
    "float ids": (
        Successor,
        lambda b: b._replace(inputs=b.inputs.float()),
        "torch.float32, torch.bool, torch.bool; expected torch.int64",
    ),
    "double vectors": (
        Sums,
        lambda b: b._replace(inputs=b.inputs.double()),
        "torch.float64, torch.bool, torch.bool; expected torch.float32",
    ),
    "int mask": (Successor, lambda b: b._replace(mask=b.mask.long()), "torch.int64, torch.int64, torch.bool; expected"),
    "bool targets": (Successor, lambda b: b._replace(targets=b.mask), "targets of torch.bool; expected torch.int64"),
    "empty mask": (
        Successor,
        with_rows("mask", lambda t: t[2].zero_()),
        "no supervised position in example 2; expected mask",
    ),
    "mask in padding": (
        Successor,
        with_rows("attention_mask", lambda t: t[1, 4:].zero_()),
        "a supervised position in the padding",
    ),
    "low id": (Successor, with_rows("inputs", lambda t: t[0].fill_(-1)), "the input -1; expected 0 to 9"),
    "high id": (Successor, with_rows("inputs", lambda t: t[0].fill_(10)), "the input 10; expected 0 to 9"),
    "high target": (Successor, with_rows("targets", lambda t: t[3].fill_(11)), "the target 11; expected 0 to 10"),
    "low target": (Successor, with_rows("targets", lambda t: t[3].fill_(-1)), "the target -1; expected 0 to 10"),
    "infinite input": (
        Sums,
        with_rows("inputs", lambda t: t[0].fill_(float("inf"))),
        "inputs of which one is not finite",
    ),
    "unknown target": (
        Sums,
        with_rows("targets", lambda t: t[0].fill_(float("nan"))),
        "targets of which one is not finite",
    ),
    "large target": (
        Sums,
        lambda b: b._replace(targets=b.targets.double() * 1e39),
        "targets of which one is not finite",
    ),
}


@pytest.mark.parametrize(("kind", "edit", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_line(kind: type, edit: Edit, message: str, monkeypatch: pytest.MonkeyPatch):
    task = kind(kind.Config())
    assert task.batch("train", 0, 4, seed=0).inputs.shape[0] == 4
    encode = kind.encode
    monkeypatch.setattr(kind, "encode", lambda self, problems: edit(encode(self, problems)))
    with pytest.raises(ValueError, match=rf"^task {task.name}: encode\(4 problems\) gave [^\n]*$") as error:
        task.batch("train", 0, 4, seed=0)
    assert message in str(error.value)


def test_positions_without_supervision_may_hold_any_target(monkeypatch: pytest.MonkeyPatch):
    task, encode = Successor(Successor.Config()), Successor.encode
    edit = with_rows("targets", lambda t: t[:, 0].fill_(-100))  # the first position is not supervised
    monkeypatch.setattr(Successor, "encode", lambda self, problems: edit(encode(self, problems)))
    assert task.batch("train", 0, 4, seed=0).targets[0, 0] == -100


SMALL = "--model.d-model 16 --model.num-heads 2 --optim.warmup-steps 0 --train.compile False --train.workers 0"


def test_a_sampler_that_ignores_the_split_is_refused_before_training(tmp_path, monkeypatch, capsys):
    draw = lambda self, split, size, rng, group=None: rng.integers(3, size=(size, 5)).tolist()  # noqa: E731
    monkeypatch.setattr(Successor, "sample", draw)
    monkeypatch.chdir(tmp_path)
    assert main(f"train successor --out run {SMALL} --train.steps 2".split()) == 2
    error = capsys.readouterr().err
    assert "training problems are among" in error
    assert "expected `sample` to draw a problem in one split only" in error
    assert error.count("\n") == 1


def test_padding_does_not_hide_a_problem():
    task = Successor(Successor.Config())
    batch = task.batch("train", 0, 4, seed=0)
    pad = torch.nn.functional.pad
    padded = batch.map(lambda tensor: pad(tensor, (0, 2)))
    with pytest.raises(ValueError, match="task successor: 4 of 4 training problems are among 4 of validation"):
        check_splits(task, batch, padded)
    check_splits(task, batch, task.batch("test", 0, 4, seed=0))
