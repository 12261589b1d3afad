"""One training step, and one validation."""

from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from looped.config import OWN_LOOPS, RunConfig, TrainConfig
from looped.models.exit_rules import learned_rule
from looped.models.fixed_point import TERMS, FixedPoint, FixedPointGradient
from looped.models.generated import generated_scores
from looped.models.outputs import own_logits
from looped.models.transformer import LoopedTransformer
from looped.models.weights import whole
from looped.tasks.base import Batch, Task, means
from looped.tasks.batch import IGNORED
from looped.training.errors import NonFiniteError, UpdateError
from looped.training.fabric import Devices, reduced
from looped.training.halting_loss import divergence_from_geometric, exit_distribution, losses
from looped.training.regularisers import regularisation
from looped.training.sharding import gathered, keep_gathered

Positions = Int[Tensor, " masked"] | slice
"""Positions in a flattened batch."""


class ModelWithLoss(nn.Module):
    """The model followed by the loss, as one module for Fabric. Its outputs are sums, not logits."""

    def __init__(self, model: LoopedTransformer, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        kind, terms = config.gradient, config.gradient_terms or TERMS
        self.gradient = None if kind == "unroll" else FixedPointGradient(kind, terms, config.gradient_damping)
        self.fixed_point: FixedPoint | None = None
        """With a gradient at the fixed point, the facts of the last forward pass."""
        self.initial_state: Float[Tensor, "batch seq d_model"] | None = None
        """The state from which the next pass begins, in the middle of a segment; None is the model's own."""
        self.last_state: Float[Tensor, "batch seq d_model"] | None = None
        """The state after the last pass, without gradient, with segments."""

    def forward(
        self, batch: Batch, padded: bool, num_loops: int, num_grad_loops: int, positions: Positions | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sums over the masked positions of a batch.

        Args:
            padded: whether the batch has padding.
            positions: see `masked_sums`; None finds them in the mask, for which the host waits.

        Returns:
            The loss (a scalar), and a vector: the number of right answers and, with loss=halting, the loops taken.
        """
        loss, own = self.config.loss, self.config.loss in OWN_LOOPS
        positions = masked_positions(batch.mask) if positions is None else positions
        if loss == "halting":
            return self.halting_sums(batch, positions, padded, num_loops)
        window = tuple(range(num_loops - (self.config.loss_window or 0) + 1, num_loops + 1))
        output = self.model(
            batch.inputs,
            attention_mask=batch.attention_mask if padded else None,
            num_loops=num_loops,
            num_grad_loops=num_grad_loops if self.gradient is None else None,
            initial_state=self.initial_state,
            loop_logits="all" if own or loss == "all" else window if loss == "window" else "last",
            recompute=self.config.recompute,
            gradient=self.gradient,
        )
        self.fixed_point = output.fixed_point
        self.last_state = output.state.detach() if self.config.segments > 1 else None
        read = output.loop_logits
        if own:
            assert batch.loops is not None
            read = own_logits(read, batch.loops)[None]
        total, right = masked_sums(read, batch.targets, positions)
        if loss == "steps":
            total = total + self.config.step_weight * step_sum(output.loop_logits, batch)
        if self.config.regularisers:  # a mean over examples, weighted as the other terms
            total = total + batch.mask.sum() * regularisation(self.config, self.model, output, batch)
        return total, right[None]

    def halting_sums(self, batch: Batch, positions: Positions, padded: bool, num_loops: int) -> tuple[Tensor, Tensor]:
        """The same sums for loss=halting."""
        gate = self.model.config.halting == "gate"
        attention_mask = batch.attention_mask if padded else None
        options: dict[str, Any] = {"loop_logits": "all", "loop_states": True, "recompute": self.config.recompute}
        output = self.model(
            batch.inputs, attention_mask=attention_mask, num_loops=num_loops, **(options if gate else {})
        )
        targets, logits = batch.targets.flatten()[positions], output.logits.flatten(0, 1)[positions]
        if gate:
            assert output.loop_states is not None
            halts = self.model.halting_probability(output.loop_states, attention_mask).flatten(1)[:, positions]
            p = exit_distribution(halts.float())
            loss = (p * losses(output.loop_logits.flatten(1, 2)[:, positions], targets)).sum(0)
            price = divergence_from_geometric(p, self.config.ponder_prior)
            loops = (p * torch.arange(1, num_loops + 1, device=p.device)[:, None]).sum(0)
        else:
            assert output.loops_taken is not None
            assert output.ponder_cost is not None
            loss = losses(logits[None], targets)[0]
            price, loops = output.ponder_cost.flatten()[positions], output.loops_taken.flatten()[positions]
        right = (logits.argmax(-1) == targets).sum()
        return (loss + self.config.ponder_cost * price).sum(), torch.stack([right, loops.sum()])


def step_sum(loop_logits: Float[Tensor, "loops batch seq output"], batch: Batch) -> Float[Tensor, ""]:
    """The cross-entropy with the targets of each loop, in nats, as a sum over examples.

    For an example it is the mean over a loop's targets, then over its loops with targets. An example counts as often as
    it has answer positions, because the sum is divided by the number of these.
    """
    assert batch.step_targets is not None
    targets = batch.step_targets.transpose(0, 1)  # (loops, batch, seq)
    each = F.cross_entropy(
        loop_logits.flatten(0, 2).float(), targets.flatten(), ignore_index=IGNORED, reduction="none"
    ).view(targets.shape)
    counted = targets != IGNORED
    of_loop = each.sum(2) / counted.sum(2).clamp(min=1)
    of_example = of_loop.sum(0) / counted.any(2).sum(0).clamp(min=1)
    return (of_example * batch.mask.sum(1)).sum()


def masked_sums(
    loop_logits: Float[Tensor, "loops batch seq output"],
    targets: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq"],
    positions: Positions,
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Sums over the masked positions: the loss, as a mean over loops, and the number of right answers in the last loop.

    The loss is the cross-entropy in nats. For real targets it is the squared error, and no answer counts as right.

    Args:
        positions: those of the masked positions in the flattened batch, see `masked_positions`. A mask itself would
            have to be read by the host. Among other positions those with the class IGNORED do not count.
    """
    logits, labels = loop_logits.flatten(1, 2)[:, positions].float(), targets.flatten()[positions]
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
    """One step, in `accumulation` parts on each device; waits for the device.

    Args:
        batch: the part of the step's batch that this device computes, on cpu.
        scored: a `ModelWithLoss`, set up by `fabric`.
        step: counted from 0.
        loops: (num_loops, num_grad_loops).

    Returns:
        Values by name, see `named`.

    Raises:
        NonFiniteError: the loss or gradient is not finite; the weights are unchanged.
        UpdateError: the optimiser failed; the weights must not be saved.
    """
    norm, loss, *others = gradients(fabric, scored, batch, run, loops).tolist()
    if not (isfinite(loss) and isfinite(norm)):
        raise non_finite(fabric, scored, batch, run, step, loops, loss, norm)
    update(optimizers, step)
    return named([norm, loss, *others], batch)


def gradients(fabric: Devices, scored: nn.Module, batch: Batch, run: RunConfig, loops: tuple[int, int]) -> Tensor:
    """Compute the gradients of a step and clip them; arguments as in `train_step`.

    The loss is the mean over the masked positions of the whole batch, however it is divided among devices and parts.
    The host does not wait for a GPU.

    Returns:
        The values that `named` names, on the device.
    """
    count = reduced(fabric, to_device(batch.mask.sum(), fabric.device)).clamp(min=1)
    padded = not batch.attention_mask.all()
    scored.zero_grad()
    sums = torch.zeros(3 if run.train.loss == "halting" else 2, device=fabric.device)
    inner: Any = getattr(scored, "module", scored)  # Fabric wraps it
    facts: list[Tensor] = []
    parts = split(batch, run.train.accumulation)
    for number, part in enumerate(parts, 1):
        last = number == len(parts)
        keep_gathered(inner.model, not last)
        positions = to_device(masked_positions(part.mask), fabric.device)
        with fabric.no_backward_sync(scored, enabled=not last):  # pyright: ignore[reportArgumentType]: a private type
            with fabric.autocast():
                loss, others = scored(batch_to_device(part, fabric.device), padded, *loops, positions)
            fabric.backward(loss / count * fabric.world_size)  # gradients are averaged over the devices
        sums += torch.cat([loss.detach()[None], others.detach()])
        if inner.fixed_point is not None:
            facts.append(inner.fixed_point.values())
    of_parts = (torch.stack(facts).mean(0) if facts else sums[:0]).to(sums)
    values, of_parts = reduced(fabric, torch.cat([sums, of_parts])).split([len(sums), len(of_parts)])
    return torch.stack([clip(scored, run), *(values / count), *(of_parts / fabric.world_size)])


def clip(scored: nn.Module, run: RunConfig) -> Tensor:
    """Clip the gradients. Returns their norm before that."""
    return whole(nn.utils.clip_grad_norm_(scored.parameters(), run.optim.clip_norm or float("inf")))


def update(optimizers: Sequence[torch.optim.Optimizer], step: int) -> None:
    """The optimisers' steps. Raises UpdateError if one fails."""
    try:
        for optimizer in optimizers:
            optimizer.step()
    except Exception as error:
        raise UpdateError(f"step {step + 1}: the optimiser failed ({error})") from error


def named(values: list[float], batch: Batch) -> dict[str, float]:
    """The values of a step by name.

    loss. grad_norm: norm of the gradient before clipping. accuracy, only for classes: share of the masked positions
    with the right answer. mean_loops, only with loss=halting: mean loops at a masked position, taken (act) or expected
    (gate). residual and unconverged, only with a gradient at the fixed point: the relative change of the state in the
    last loop, and 1 if the gradient did not converge, else 0.
    """
    norm, loss, accuracy, *others = values
    result = {"loss": loss, "accuracy": accuracy, "grad_norm": norm}
    result |= zip(("mean_loops",) if len(others) == 1 else ("residual", "unconverged"), others, strict=bool(others))
    if batch.targets.is_floating_point():
        del result["accuracy"]
    return result


def non_finite(
    fabric: Devices,
    scored: nn.Module,
    batch: Batch,
    run: RunConfig,
    step: int,
    loops: tuple[int, int],
    loss: float,
    norm: float,
) -> NonFiniteError:
    """The error of a step whose loss or gradient is not finite. The weights must be those before the step."""
    scored.zero_grad()
    inner: Any = getattr(scored, "module", scored)  # Fabric wraps it
    with gathered(inner.model):
        reason = first_non_finite(fabric, inner.model, batch, run.train.accumulation, loops[0], inner.initial_state)
    reason = reason or f"all states are finite, but the loss is {loss} and the norm of its gradient {norm}"
    return NonFiniteError(f"step {step + 1}: {reason}; stopped with the weights of step {step}")


@torch.no_grad()
def first_non_finite(
    fabric: Devices,
    model: LoopedTransformer,
    batch: Batch,
    parts: int,
    num_loops: int,
    initial_state: Tensor | None = None,
) -> str:
    """A sentence that names the first loop (from 1) after which a state is not finite; '' if all are finite."""
    first = num_loops + 1
    for part in split(batch, parts):
        part = batch_to_device(part, fabric.device)
        with fabric.autocast():
            states = model(
                part.inputs,
                attention_mask=part.attention_mask,
                num_loops=num_loops,
                initial_state=initial_state,
                loop_states=True,
            ).loop_states
        assert states is not None
        bad = (~states.flatten(1).isfinite().all(dim=1)).nonzero()
        first = min([first, *(bad[:1, 0] + 1).tolist()])
    first = int(reduced(fabric, torch.tensor(first, device=fabric.device), "min"))
    return f"the state is not finite from loop {first} of {num_loops} on" if first <= num_loops else ""


@torch.no_grad()
def validate(
    fabric: Devices,
    model: LoopedTransformer,
    task: Task,
    batch: Batch,
    num_loops: int,
    part_size: int,
    *,
    own: bool = False,
) -> dict[str, float]:
    """The scores that the task reports for a batch (on cpu), computed `part_size` examples at a time on each device.

    The devices take turns in the parts, and share the scores of all examples. Means are therefore those of one device.

    Args:
        own: score each example after its own number of loops, of which `num_loops` is the largest.
    """
    parts: list[dict[str, Tensor]] = []
    padded = not batch.attention_mask.all()
    at_once = fabric.world_size * part_size
    for start in range(fabric.global_rank * part_size, at_once * -(-len(batch.inputs) // at_once), at_once):
        # All parts have one size, because compiled code is specialised to it. The last ones are filled from the front.
        rows = torch.arange(start, start + part_size) % len(batch.inputs)
        part = batch_to_device(batch.map(lambda tensor, rows=rows: tensor[rows]), fabric.device)
        with fabric.autocast():
            attention_mask = part.attention_mask if padded else None
            output = model(
                part.inputs,
                attention_mask=attention_mask,
                num_loops=num_loops,
                exit_rule=learned_rule(model.config),
                loop_logits="all" if own else "last",
            )
            written = generated_scores(model, task, part, num_loops, learned_rule(model.config))
        logits = output.logits
        if own:
            assert part.loops is not None
            logits = own_logits(output.loop_logits, part.loops)
        parts.append(task.score(part, logits.float()) | written)
    scores = {name: in_order(fabric, [part[name] for part in parts])[: len(batch.inputs)] for name in parts[0]}
    reported = [task.reported(name, mean, "validation") for name, mean in means(scores).items()]
    return {name: value for values in reported for name, value in values.items()}


def in_order(fabric: Devices, parts: list[Tensor]) -> Tensor:
    """The values of all devices, whose parts take turns: first the first part of each device, then the second ones."""
    own = torch.stack(parts)
    values = own.new_zeros(fabric.world_size, *own.shape)
    values[fabric.global_rank] = own
    return reduced(fabric, values).transpose(0, 1).flatten()


def split(batch: Batch, parts: int) -> list[Batch]:
    """Equal parts of a batch."""
    return [batch.map(lambda tensor, i=i: tensor.chunk(parts)[i]) for i in range(len(batch.inputs.chunk(parts)))]


def masked_positions(mask: Bool[Tensor, "batch seq"]) -> Int[Tensor, " masked"]:
    """The positions in the flattened batch where the mask is True."""
    return mask.flatten().nonzero()[:, 0]


def batch_to_device(batch: Batch, device: torch.device) -> Batch:
    return batch.map(lambda tensor: to_device(tensor, device))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor (on cpu) on a device. The host does not wait for a GPU, which reads from pinned memory."""
    pinned = device.type == "cuda" and type(tensor) is Tensor  # not a fake tensor
    return (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=True)
