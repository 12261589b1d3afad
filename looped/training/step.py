"""One training step, and one validation."""

from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from looped.config import RunConfig, TrainConfig
from looped.models.exit_rules import learned_rule
from looped.models.transformer import LoopedTransformer
from looped.tasks.base import Batch, Task, means
from looped.training.errors import NonFiniteError, UpdateError
from looped.training.fabric import Devices
from looped.training.halting_loss import divergence_from_geometric, exit_distribution, losses


class ModelWithLoss(nn.Module):
    """The model followed by the loss, as one module for Fabric. Its outputs are sums, not logits."""

    def __init__(self, model: LoopedTransformer, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, batch: Batch, padded: bool, num_loops: int, num_grad_loops: int) -> tuple[Tensor, Tensor]:
        """Sums over the masked positions of a batch.

        Args:
            padded: whether the batch has padding.

        Returns:
            The loss (a scalar), and a vector: the number of right answers and, with loss=halting, the loops taken.
        """
        loop_logits = self.config.loss
        if loop_logits == "halting":
            return self.halting_sums(batch, padded, num_loops)
        if loop_logits == "window":
            loop_logits = tuple(range(num_loops - (self.config.loss_window or 0) + 1, num_loops + 1))
        output = self.model(
            batch.inputs,
            attention_mask=batch.attention_mask if padded else None,
            num_loops=num_loops,
            num_grad_loops=num_grad_loops,
            loop_logits=loop_logits,
            recompute=self.config.recompute,
        )
        loss, right = masked_sums(output.loop_logits, batch.targets, batch.mask)
        return loss, right[None]

    def halting_sums(self, batch: Batch, padded: bool, num_loops: int) -> tuple[Tensor, Tensor]:
        """The same sums for loss=halting."""
        gate, mask = self.model.config.halting == "gate", batch.mask
        attention_mask = batch.attention_mask if padded else None
        options: dict[str, Any] = {"loop_logits": "all", "loop_states": True, "recompute": self.config.recompute}
        output = self.model(
            batch.inputs, attention_mask=attention_mask, num_loops=num_loops, **(options if gate else {})
        )
        targets = batch.targets[mask]
        if gate:
            assert output.loop_states is not None
            p = exit_distribution(self.model.halting_probability(output.loop_states, attention_mask)[:, mask].float())
            loss = (p * losses(output.loop_logits[:, mask], targets)).sum(0)
            price = divergence_from_geometric(p, self.config.ponder_prior)
            loops = (p * torch.arange(1, num_loops + 1, device=p.device)[:, None]).sum(0)
        else:
            assert output.loops_taken is not None
            assert output.ponder_cost is not None
            loss = losses(output.logits[mask][None], targets)[0]
            price, loops = output.ponder_cost[mask], output.loops_taken[mask]
        right = (output.logits[mask].argmax(-1) == targets).sum()
        return (loss + self.config.ponder_cost * price).sum(), torch.stack([right, loops.sum()])


def masked_sums(
    loop_logits: Float[Tensor, "loops batch seq output"],
    targets: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Sums over the masked positions: the loss, as a mean over loops, and the number of right answers in the last loop.

    The loss is the cross-entropy in nats. For real targets it is the squared error, and no answer counts as right.
    """
    logits, labels = loop_logits[:, mask].float(), targets[mask]
    if labels.is_floating_point():
        return ((logits[..., 0] - labels) ** 2).sum() / len(logits), labels.new_zeros((), dtype=torch.long)
    loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="sum") / len(logits)
    return loss, (logits[-1].argmax(-1) == labels).sum()


def train_step(
    fabric: Devices,
    scored: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    batch: Batch,
    run: RunConfig,
    step: int,
    loops: tuple[int, int],
) -> dict[str, float]:
    """One step on a whole batch (on cpu), in `accumulation` parts on each device.

    The loss is the mean over the masked positions of the whole batch, however the batch is divided.

    Args:
        scored: a `ModelWithLoss`, set up by `fabric`.
        step: counted from 0.
        loops: (num_loops, num_grad_loops).

    Returns:
        Values by name. loss. grad_norm: norm of the gradient before clipping. accuracy, only for classes: share of the
        masked positions with the right answer. mean_loops, only with loss=halting: mean loops at a masked position,
        taken (act) or expected (gate).

    Raises:
        NonFiniteError: the loss or gradient is not finite; the weights are unchanged.
        UpdateError: the optimiser failed; the weights must not be saved.
    """
    count = max(1, int(batch.mask.sum()))
    padded = not batch.attention_mask.all()
    scored.zero_grad()
    learned_halting = run.train.loss == "halting"
    sums = torch.zeros(3 if learned_halting else 2, device=fabric.device)
    parts = run.train.accumulation * fabric.world_size
    mine = split(batch, parts)[fabric.global_rank :: fabric.world_size]
    for number, part in enumerate(mine, 1):
        last = number == len(mine)
        with fabric.no_backward_sync(scored, enabled=not last):  # pyright: ignore[reportArgumentType]: a private type
            with fabric.autocast():
                loss, others = scored(to_device(part, fabric.device), padded, *loops)
            fabric.backward(loss / count * fabric.world_size)  # gradients are averaged over the devices
        sums += torch.cat([loss.detach()[None], others.detach()])
    clip = run.optim.clip_norm or float("inf")
    grad_norm = nn.utils.clip_grad_norm_(scored.parameters(), clip)
    total = fabric.all_reduce(sums, reduce_op="sum")
    assert isinstance(total, Tensor)
    norm, loss, accuracy, *mean_loops = torch.stack([grad_norm, *(total / count)]).tolist()
    if not (isfinite(loss) and isfinite(norm)):
        scored.zero_grad()
        inner: Any = getattr(scored, "module", scored)  # Fabric wraps it
        reason = first_non_finite(fabric, inner.model, batch, parts, loops[0])
        reason = reason or f"all states are finite, but the loss is {loss} and the norm of its gradient {norm}"
        raise NonFiniteError(f"step {step + 1}: {reason}; stopped with the weights of step {step}")
    try:
        for optimizer in optimizers:
            optimizer.step()
    except Exception as error:
        raise UpdateError(f"step {step + 1}: the optimiser failed ({error})") from error
    values = {"loss": loss, "accuracy": accuracy, "grad_norm": norm}
    if learned_halting:
        values["mean_loops"] = mean_loops[0]
    if batch.targets.is_floating_point():
        del values["accuracy"]
    return values


@torch.no_grad()
def first_non_finite(fabric: Devices, model: LoopedTransformer, batch: Batch, parts: int, num_loops: int) -> str:
    """A sentence that names the first loop (from 1) after which a state is not finite; '' if all are finite."""
    first = num_loops + 1
    for part in split(batch, parts):
        part = to_device(part, fabric.device)
        with fabric.autocast():
            states = model(
                part.inputs, attention_mask=part.attention_mask, num_loops=num_loops, loop_states=True
            ).loop_states
        assert states is not None
        bad = (~states.flatten(1).isfinite().all(dim=1)).nonzero()
        first = min([first, *(bad[:1, 0] + 1).tolist()])
    return f"the state is not finite from loop {first} of {num_loops} on" if first <= num_loops else ""


@torch.no_grad()
def validate(
    fabric: Devices, model: LoopedTransformer, task: Task, batch: Batch, num_loops: int, part_size: int
) -> dict[str, float]:
    """The scores that the task reports for a batch (on cpu), computed `part_size` examples at a time."""
    parts: list[dict[str, Tensor]] = []
    padded = not batch.attention_mask.all()
    for start in range(0, len(batch.inputs), part_size):
        # All parts have one size, because compiled code is specialised to it. The last part is filled from the front.
        rows = torch.arange(start, start + part_size) % len(batch.inputs)
        part = to_device(Batch(*(tensor[rows] for tensor in batch)), fabric.device)
        with fabric.autocast():
            attention_mask = part.attention_mask if padded else None
            output = model(
                part.inputs, attention_mask=attention_mask, num_loops=num_loops, exit_rule=learned_rule(model.config)
            )
        parts.append(task.score(part, output.logits.float()))
    scores = {name: torch.cat([part[name] for part in parts])[: len(batch.inputs)] for name in parts[0]}
    reported = [task.reported(name, mean, "validation") for name, mean in means(scores).items()]
    return {name: value for values in reported for name, value in values.items()}


def split(batch: Batch, parts: int) -> list[Batch]:
    """Equal parts of a batch."""
    return [Batch(*tensors) for tensors in zip(*(tensor.chunk(parts) for tensor in batch), strict=True)]


def to_device(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))
