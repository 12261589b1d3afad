"""Checks of the batches of tasks, which find mistakes in one's own tasks above all."""

from __future__ import annotations

from typing import Any

from looped.lazy import torch


def fault_of(batch: Any, kind: type, spec: Any, size: int) -> str:
    """The first fault of a batch in the words "X; expected Y", or ''.

    Args:
        batch: what a task's `encode` returned.
        kind: the class `Batch`, which imports this file.
        spec: the task's `TaskSpec`.
        size: number of problems.
    """
    if not isinstance(batch, kind) or not all(isinstance(tensor, torch.Tensor) for tensor in batch):
        return f"{type(batch).__name__}; expected a Batch of four tensors"
    vectors, (inputs, targets, mask, real) = spec.inputs == "vectors", batch
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


def _inputs(batch: Any) -> set[bytes]:
    """The inputs without padding."""
    return {row[real].numpy().tobytes() for row, real in zip(batch.inputs, batch.attention_mask, strict=True)}
