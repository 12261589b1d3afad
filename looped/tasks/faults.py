"""Checks of the batches of tasks, which find mistakes in one's own tasks above all."""

from __future__ import annotations

from typing import Any

from looped.lazy import torch
from looped.tasks.batch import IGNORED, Batch


def fault_of(batch: Any, spec: Any, size: int) -> str:
    """The first fault of a batch in the words "X; expected Y", or ''.

    Args:
        batch: what a task's `encode` returned.
        spec: the task's `TaskSpec`.
        size: number of problems.
    """
    if not isinstance(batch, Batch) or not all(isinstance(tensor, torch.Tensor) for tensor in batch[:4]):
        return f"{type(batch).__name__}; expected a Batch with at least four tensors"
    vectors, (inputs, targets, mask, real, loops, steps) = spec.inputs == "vectors", batch
    wanted = f"({size}, at most {spec.max_seq_len}{f', {spec.input_dim}' if vectors else ''})"
    width = inputs.shape[1] if inputs.ndim > 1 else 0
    if (*inputs.shape,) != (size, width, spec.input_dim)[: 2 + vectors] or not 1 <= width <= spec.max_seq_len:
        return f"inputs of shape {(*inputs.shape,)}; expected {wanted}"
    for name, tensor in {"targets": targets, "mask": mask, "attention_mask": real}.items():
        if tensor.shape != (size, width):
            return f"{name} of shape {(*tensor.shape,)}; expected {(size, width)}, as the inputs have"
    dtype = torch.float32 if vectors else torch.int64
    if inputs.dtype != dtype or mask.dtype != torch.bool or real.dtype != torch.bool:
        found = ", ".join(str(tensor.dtype) for tensor in (inputs, mask, real))
        return f"inputs, mask and attention_mask of {found}; expected {dtype}, torch.bool, torch.bool"
    if not (targets.is_floating_point() or targets.dtype == torch.int64):
        return f"targets of {targets.dtype}; expected torch.int64 (classes) or torch.float32 (numbers)"
    if not mask.any(1).all():
        row = int((~mask.any(1)).nonzero()[0])
        return f"no supervised position in example {row}; expected mask to be True somewhere"
    if (mask & ~real).any():
        return "a supervised position in the padding; expected mask to be True only where attention_mask is"
    for name, tensor, most in (("input", inputs, spec.vocab_size), ("target", targets[mask], spec.output_size)):
        if tensor.is_floating_point():
            if not tensor.float().isfinite().all():
                return f"{name}s of which one is not finite in float32; expected numbers"
        else:
            low, high = (int(value) for value in tensor.aminmax())
            if low < 0 or high >= (most or 0):
                return f"the {name} {low if low < 0 else high}; expected 0 to {(most or 0) - 1}"
    if loops is not None and (loops.shape != (size,) or loops.dtype != torch.int64 or loops.min() < 1):
        return f"loops of {loops.dtype} and shape {(*loops.shape,)}; expected {(size,)} counts of at least 1 in int64"
    if steps is None:
        return ""
    if loops is None or steps.shape != (size, int(loops.max()), width) or steps.dtype != torch.int64:
        wanted = "loops beside them" if loops is None else f"int64 and {(size, int(loops.max()), width)}"
        return f"step_targets of {steps.dtype} and shape {(*steps.shape,)}; expected {wanted}"
    known = steps[steps != IGNORED]
    if len(known) and not 0 <= int(known.min()) <= int(known.max()) < spec.output_size:
        return f"step_targets from {int(known.min())} to {int(known.max())}; expected 0 to {spec.output_size - 1}"
    return ""


def check_splits(task: Any, train: Any, held_out: Any) -> None:
    """Check that a task's `sample` keeps its splits apart. Texts may repeat themselves and are not checked.

    Args:
        train: a training batch.
        held_out: a batch of another split.

    Raises:
        ValueError: both have an equal input.
    """
    if task.tokenizer is None and (shared := _inputs(train) & _inputs(held_out)):
        raise ValueError(
            f"task {task.name}: {len(shared)} of {len(train.inputs)} training problems are among "
            f"{len(held_out.inputs)} of validation; expected `sample` to draw a problem in one split only (split_of)"
        )


def check_loops(run: Any, task: Any, batch: Any) -> None:
    """Check that a task gives what the loss of a run needs.

    Raises:
        ValueError: train.loss=task without numbers of loops, or train.loss=steps without targets for each loop.
    """
    lacks = {
        "task": batch.loops is None and "says how many loops each problem needs (`loops_for`)",
        "steps": batch.step_targets is None and "has targets for each loop (`Batch.step_targets`)",
    }
    if reason := lacks.get(run.train.loss):
        raise ValueError(f"train.loss={run.train.loss!r}: expected a task that {reason}; {task.name} does not")


def _inputs(batch: Any) -> set[bytes]:
    """The inputs without padding."""
    return {row[real].numpy().tobytes() for row, real in zip(batch.inputs, batch.attention_mask, strict=True)}
