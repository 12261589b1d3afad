import dataclasses

import pytest
import torch
import torch.nn.functional as F
from training_cases import tiny

from looped.config import RunConfig
from looped.models.transformer import LoopedTransformer
from looped.tasks import TASKS
from looped.tasks.base import Batch
from looped.training import NonFiniteError
from looped.training.fabric import make_fabric
from looped.training.optim import make_optimizers
from looped.training.step import ModelWithLoss, train_step, validate


def batch_of(run: RunConfig, step: int = 0) -> Batch:
    return TASKS[run.task.name](run.task).batch("train", step, run.train.batch_size, seed=0)


def one_step(run: RunConfig, model: LoopedTransformer, batch: Batch, loops: tuple[int, int] = (3, 3)):
    fabric = make_fabric(run)
    scored = fabric.setup_module(ModelWithLoss(model, run.train))
    return train_step(fabric, scored, make_optimizers(model, run.optim), batch, run, 37, loops)


def after_step(run: RunConfig, batch: Batch) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The values of a step and the gradients that it used."""
    model = LoopedTransformer(run.model, seed=1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    values = one_step(run, model, batch)
    assert all(not torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    return values, {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("parts", [2, 8, 16])
def test_accumulation_changes_nothing(parts):
    run = tiny()
    batch = batch_of(run)
    # A different number of scored positions in each part: a mean of means would differ.
    mask = torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(0)) < torch.linspace(0, 1, 16)[:, None]
    batch = batch._replace(mask=mask | batch.mask)
    whole, gradients = after_step(run, batch)
    divided, others = after_step(tiny(accumulation=parts), batch)
    assert divided == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "scored"), [({}, [3]), ({"loss": "all"}, [1, 2, 3]), ({"loss": "window", "loss_window": 2}, [2, 3])]
)
def test_loss_is_the_mean_over_scored_loops_and_masked_positions(config, scored):
    run = tiny(**config)
    batch = batch_of(run)
    model = LoopedTransformer(run.model, seed=1)
    loop_logits = model(batch.inputs, attention_mask=batch.attention_mask, loop_logits="all").loop_logits.detach()
    naive, right = [], []
    for example, position in batch.mask.nonzero().tolist():
        target = batch.targets[example, position]
        for loop in scored:
            naive.append(F.cross_entropy(loop_logits[loop - 1, example, position], target))
        right.append(loop_logits[-1, example, position].argmax() == target)
    values = one_step(run, model, batch)
    assert len(right) == 16
    assert values["loss"] == pytest.approx(torch.stack(naive).mean().item(), rel=1e-5)
    assert values["accuracy"] == pytest.approx(sum(right).item() / len(right))  # type: ignore[union-attr]


def test_clipping_shortens_the_gradient_but_reports_its_norm():
    free, gradients = after_step(tiny(optim={"clip_norm": None}), batch_of(tiny()))
    clipped, shorter = after_step(tiny(optim={"clip_norm": 0.01}), batch_of(tiny()))
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
    assert clipped["grad_norm"] == free["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert torch.stack([gradient.norm() for gradient in shorter.values()]).norm().item() == pytest.approx(
        0.01, rel=1e-3
    )


@pytest.mark.parametrize("loop", [1, 2, 3])
def test_non_finite_state_names_step_and_loop_and_touches_nothing(loop):
    run = tiny(model={"modulation": "table", "max_loops": 3, "gate_offset": 1}, accumulation=2)
    model = LoopedTransformer(run.model)
    with torch.no_grad():
        model.modulation.table[loop - 1] = float("inf")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with pytest.raises(NonFiniteError) as raised:
        one_step(run, model, batch_of(run))
    assert str(raised.value) == (
        f"step 38: the state is not finite from loop {loop} of 3 on; stopped with the weights of step 37"
    )
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_non_finite_loss_of_finite_states(accumulation):
    run = tiny(accumulation=accumulation)
    model = LoopedTransformer(run.model)
    with torch.no_grad():
        model.head.weight[0] = float("inf")
    with pytest.raises(NonFiniteError, match="step 38: all states are finite, but the loss is nan and the norm"):
        one_step(run, model, batch_of(run))


@pytest.mark.parametrize("part_size", [1, 5, 16, 100])
def test_validation_does_not_depend_on_its_parts(part_size):
    run = tiny()
    task = TASKS["edit_distance"](run.task)
    batch = task.batch("validation", 0, 24, seed=0)
    model = LoopedTransformer(run.model)
    naive = task.score(batch, model(batch.inputs, attention_mask=batch.attention_mask, num_loops=5).logits.detach())
    scores = validate(make_fabric(run), model, task, batch, 5, part_size)
    assert scores == pytest.approx({name: values.mean().item() for name, values in naive.items()})


@pytest.mark.parametrize("recompute", ["loop", "nested"])
def test_recomputation_changes_nothing(recompute):
    run = tiny()
    batch = batch_of(run)
    plain, gradients = after_step(run, batch)
    train = dataclasses.replace(run.train, recompute=recompute)
    again, others = after_step(dataclasses.replace(run, train=train), batch)
    assert again == pytest.approx(plain)
    torch.testing.assert_close(others, gradients)
