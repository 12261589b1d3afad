"""One training step and one validation, on whatever Fabric provides."""

from collections.abc import Sequence
from math import isfinite

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from lightning.fabric import Fabric
from lightning.fabric.wrappers import _FabricModule
from torch import Tensor, nn

from looped.config import RunConfig, TrainConfig
from looped.models.transformer import LoopedTransformer
from looped.tasks.base import Batch, Task, means


class NonFiniteError(RuntimeError):
    """A loss or gradient was not finite; the weights are those before this step."""


class Scored(nn.Module):
    """The model followed by the loss, so that only sums leave the wrapper that distributes it."""

    def __init__(self, model: LoopedTransformer, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, batch: Batch, padded: bool, num_loops: int, num_grad_loops: int) -> tuple[Tensor, Tensor]:
        """See `masked_sums`."""
        readouts = self.config.loss
        if readouts == "window":
            readouts = tuple(range(num_loops - (self.config.loss_window or 0) + 1, num_loops + 1))
        output = self.model(
            batch.inputs,
            attend=batch.attend if padded else None,
            num_loops=num_loops,
            num_grad_loops=num_grad_loops,
            readouts=readouts,
            recompute=self.config.recompute,
        )
        return masked_sums(output.readouts, batch.targets, batch.mask)


def masked_sums(
    readouts: Float[Tensor, "reads batch seq output"],
    targets: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Sums over the masked positions: the loss (mean over the readouts), and how many the last readout gets right.

    The loss is the cross-entropy in nats; for real targets it is the squared error, and none is counted as right.
    """
    logits, wanted = readouts[:, mask].float(), targets[mask]
    if wanted.is_floating_point():
        return ((logits[..., 0] - wanted) ** 2).sum() / len(logits), wanted.new_zeros((), dtype=torch.long)
    loss = F.cross_entropy(logits.flatten(0, 1), wanted.repeat(len(logits)), reduction="sum") / len(logits)
    return loss, (logits[-1].argmax(-1) == wanted).sum()


def train_step(
    fabric: Fabric,
    scored: _FabricModule,
    optimizers: Sequence[torch.optim.Optimizer],
    batch: Batch,
    run: RunConfig,
    step: int,
    loops: tuple[int, int],
) -> dict[str, float]:
    """One step on a whole batch (on cpu), in `accumulation` parts on each device.

    The loss is the mean over the masked positions of the whole batch, however it is divided.

    Args:
        scored: a `Scored`, set up by `fabric`.
        step: counted from 0.
        loops: (num_loops, num_grad_loops).

    Returns:
        loss; grad_norm: before clipping; with classes as targets also accuracy: share of the masked positions
        that are right.

    Raises:
        NonFiniteError: with the weights as they were.
    """
    count = max(1, int(batch.mask.sum()))
    padded = not batch.attend.all()
    scored.zero_grad()
    sums = torch.zeros(2, device=fabric.device)
    parts = run.train.accumulation * fabric.world_size
    mine = split(batch, parts)[fabric.global_rank :: fabric.world_size]
    for number, part in enumerate(mine, 1):
        with fabric.no_backward_sync(scored, enabled=number < len(mine)):
            loss, right = scored(to_device(part, fabric.device), padded, *loops)
            fabric.backward(loss / count * fabric.world_size)  # gradients are averaged over the devices
        sums += torch.stack([loss.detach(), right])
    clip = run.optim.clip_norm or float("inf")
    grad_norm = nn.utils.clip_grad_norm_(scored.parameters(), clip)
    total = fabric.all_reduce(sums, reduce_op="sum")
    assert isinstance(total, Tensor)
    loss, accuracy, norm = torch.stack([*(total / count), grad_norm]).tolist()
    if not (isfinite(loss) and isfinite(norm)):
        scored.zero_grad()
        assert isinstance(scored.module, Scored)
        reason = first_non_finite(fabric, scored.module.model, batch, parts, loops[0])
        reason = reason or f"all states are finite, but the loss is {loss} and the norm of its gradient {norm}"
        raise NonFiniteError(f"step {step + 1}: {reason}; stopped with the weights of step {step}")
    for optimizer in optimizers:
        optimizer.step()
    values = {"loss": loss, "accuracy": accuracy, "grad_norm": norm}
    if batch.targets.is_floating_point():
        del values["accuracy"]
    return values


@torch.no_grad()
def first_non_finite(fabric: Fabric, model: LoopedTransformer, batch: Batch, parts: int, num_loops: int) -> str:
    """Names the first loop (from 1) after which a state is not finite; '' when all are finite."""
    first = num_loops + 1
    for part in split(batch, parts):
        part = to_device(part, fabric.device)
        with fabric.autocast():
            states = model(part.inputs, attend=part.attend, num_loops=num_loops, trajectory=True).trajectory
        assert states is not None
        bad = (~states.flatten(1).isfinite().all(dim=1)).nonzero()
        first = min([first, *(bad[:1, 0] + 1).tolist()])
    return f"the state is not finite from loop {first} of {num_loops} on" if first <= num_loops else ""


@torch.no_grad()
def validate(
    fabric: Fabric, model: LoopedTransformer, task: Task, batch: Batch, num_loops: int, part_size: int
) -> dict[str, float]:
    """What the task reports of its mean scores over a batch (on cpu), computed `part_size` examples at a time."""
    parts: list[dict[str, Tensor]] = []
    padded = not batch.attend.all()
    for start in range(0, len(batch.inputs), part_size):
        # Whole parts only, the last one filled with examples from the front: compiled code knows one size.
        rows = torch.arange(start, start + part_size) % len(batch.inputs)
        part = to_device(Batch(*(tensor[rows] for tensor in batch)), fabric.device)
        with fabric.autocast():
            output = model(part.inputs, attend=part.attend if padded else None, num_loops=num_loops)
        parts.append(task.score(part, output.logits.float()))
    scores = {name: torch.cat([part[name] for part in parts])[: len(batch.inputs)] for name in parts[0]}
    reported = [task.reported(name, mean, "validation") for name, mean in means(scores).items()]
    return {name: value for values in reported for name, value in values.items()}


def split(batch: Batch, parts: int) -> list[Batch]:
    """Equal parts of a batch."""
    return [Batch(*tensors) for tensors in zip(*(tensor.chunk(parts) for tensor in batch), strict=True)]


def to_device(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))
