"""Training steps on a GPU, which the host starts without waiting for their results.

The values of a step stay on the device until `read`. A step whose loss or gradient is not finite, and all steps after
it, leave weights, moments and averages as they were. The device decides that, because the host learns it too late.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from looped.config import RunConfig
from looped.tasks.base import Batch
from looped.tasks.batch import IGNORED
from looped.training.fabric import Devices
from looped.training.optim import WeightAverage
from looped.training.step import clip, gradients, named, non_finite, to_device, update

REPEATS = 10
"""A step is recorded as a CUDA graph after so many steps of the same shapes and loops."""
LARGEST = 2**24
"""Numbers in a state (batch x seq x d_model) above which kernels take longer than their launch, so a graph gains
nothing."""

Outputs = tuple[Tensor, *tuple[Tensor | None, ...]]
"""The values of a step and the gradient of each weight."""


def queues(fabric: Devices) -> bool:
    """Whether the steps of a training are queued."""
    return fabric.device.type == "cuda" and fabric.world_size == 1


class Started(NamedTuple):
    """A step that was started and not read yet."""

    step: int
    """Counted from 0."""
    loops: tuple[int, int]
    batch: Batch
    values: Tensor
    """On the device."""


class Queue:
    """Starts training steps and reads their values later. The results are those of `train_step`."""

    def __init__(
        self,
        fabric: Devices,
        scored: nn.Module,
        optimizers: Sequence[Optimizer],
        average: WeightAverage | None,
        run: RunConfig,
    ) -> None:
        self.fabric, self.scored, self.optimizers, self.average, self.run = fabric, scored, optimizers, average, run
        self.unread: list[Started] = []
        self.good = torch.ones((), dtype=torch.bool, device=fabric.device)
        """Whether the values of all steps were finite."""
        self.recorded = Recorded(fabric, scored, run)

    def add(self, batch: Batch, step: int, loops: tuple[int, int]) -> None:
        """Start a step on a batch (on cpu). Raises UpdateError if the optimiser fails."""
        values = self.recorded(batch, loops)
        if values is None:
            values = gradients(self.fabric, self.scored, batch, self.run, loops)
        self.good &= values.isfinite().all()
        if not self._makes_moments():
            kept = [tensor.clone() for tensor in self._changed()]
            self._update(step)
            for tensor, before in zip(self._changed(), kept, strict=True):
                tensor.copy_(torch.where(self.good, tensor, before, out=before))
        elif self.good:  # new moments could not be taken back, so the host waits for the device here
            self._update(step)
        self.unread.append(Started(step, loops, batch, values))

    def read(self) -> Iterator[tuple[Started, dict[str, float]]]:
        """Wait for all steps. Yields each with its values, see `step.named`.

        Raises:
            NonFiniteError: from the iterator, in place of the first step whose values are not finite. The weights are
                those before this step.
        """
        started, self.unread = self.unread, []
        rows = torch.stack([one.values for one in started]).tolist() if started else []
        for one, row in zip(started, rows, strict=True):
            norm, loss = row[:2]
            if not (isfinite(loss) and isfinite(norm)):
                raise non_finite(self.fabric, self.scored, one.batch, self.run, one.step, one.loops, loss, norm)
            yield one, named(row, one.batch)

    def _update(self, step: int) -> None:
        update(self.optimizers, step)
        if self.average:
            self.average.update()

    def _makes_moments(self) -> bool:
        """Whether the next update makes moments of a weight that has none yet."""
        return any(
            parameter.grad is not None and parameter not in optimizer.state
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        )

    def _changed(self) -> list[Tensor]:
        """All tensors that an update changes: weights, moments, averages."""
        moments = (state for optimizer in self.optimizers for state in optimizer.state.values())
        averages = self.average.weights.values() if self.average else ()
        weights = (parameter.detach() for parameter in self.scored.parameters())
        return [*weights, *(tensor for state in moments for tensor in state.values()), *averages]


class Recorded:
    """The gradients of a step as one CUDA graph, which the host starts with one call instead of one for each kernel.

    The graph needs equal shapes in every step. It therefore sums over all positions, of which those outside the mask
    have the class IGNORED. Steps that are not recorded yet compute the same, because a resumed run records later.
    """

    def __init__(self, fabric: Devices, scored: nn.Module, run: RunConfig) -> None:
        self.fabric, self.scored, self.run = fabric, scored, run
        self.key: object = None
        self.repeats = 0
        """Steps since the last one of another shape."""
        self.graph: Graph | None = None
        plain = run.train.loss in ("last", "all", "window") and not run.train.regularisers
        plain = plain and run.train.gradient == "unroll"
        self.possible = plain and run.train.accumulation == 1 and run.train.recompute == "none"

    def __call__(self, batch: Batch, loops: tuple[int, int]) -> Tensor | None:
        """The values that `step.gradients` returns, with the same gradients; None if such steps are never recorded."""
        if batch.targets.is_floating_point() or batch.targets.numel() * self.run.model.d_model > LARGEST:
            return None
        if not self.possible:
            return None
        padded = not batch.attention_mask.all()
        key = (batch.inputs.shape, padded, loops)
        self.repeats = self.repeats + 1 if key == self.key else 0
        self.key = key
        count = batch.mask.sum().clamp(min=1)
        batch = batch._replace(targets=batch.targets.masked_fill(~batch.mask, IGNORED))
        tensors = [to_device(tensor, self.fabric.device) for tensor in (*batch[:4], count)]
        if self.repeats < REPEATS:
            self.graph = None
            return self._gradients(padded, loops, *tensors)[0]
        if self.graph is None:
            try:
                self.graph = Graph(lambda *inputs: self._gradients(padded, loops, *inputs), tensors)
            except RuntimeError as error:  # an operation that no graph can contain, or too little memory
                warnings.warn(f"no CUDA graph of the training step: {error}", stacklevel=2)
                self.possible = False
                return self._gradients(padded, loops, *tensors)[0]
        values, *found = self.graph(*tensors)
        for parameter, gradient in zip(self.scored.parameters(), found, strict=True):
            parameter.grad = gradient
        return values.clone()  # the next step overwrites it

    def _gradients(self, padded: bool, loops: tuple[int, int], *inputs: Tensor) -> Outputs:
        *tensors, count = inputs
        self.scored.zero_grad()
        with self.fabric.autocast():
            loss, right = self.scored(Batch(*tensors), padded, *loops, slice(None))
        self.fabric.backward(loss / count)
        total = torch.cat([loss.detach()[None], right.detach()])
        values = torch.stack([clip(self.scored, self.run), *(total / count)])
        return values, *(parameter.grad for parameter in self.scored.parameters())


class Graph:
    """A function of tensors, recorded as a CUDA graph. On a CPU every call calls the function."""

    def __init__(self, function: Callable[..., Outputs], inputs: Sequence[Tensor]) -> None:
        self.function, self.inputs = function, [tensor.clone() for tensor in inputs]
        self.recorded: tuple[torch.cuda.CUDAGraph, Outputs] | None = None
        if not self.inputs[0].is_cuda:
            return
        stream = torch.cuda.Stream()  # the first calls allocate and compile, which a recording cannot contain
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads prepare batches
            outputs = function(*self.inputs)
        self.recorded = graph, outputs

    def __call__(self, *inputs: Tensor) -> Outputs:
        """The function's outputs, which the next call overwrites."""
        for tensor, new in zip(self.inputs, inputs, strict=True):
            tensor.copy_(new, non_blocking=True)
        if self.recorded is None:
            return self.function(*self.inputs)
        graph, outputs = self.recorded
        graph.replay()
        return outputs
