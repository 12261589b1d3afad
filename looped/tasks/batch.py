"""Examples as tensors of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from looped.lazy import torch

IGNORED = -100
"""The class of targets that do not count, cross-entropy's default."""


class Batch(NamedTuple):
    """Examples as input and target tensors of a model."""

    inputs: Int[torch.Tensor, "batch seq"] | Float[torch.Tensor, "batch seq input"]
    targets: Int[torch.Tensor, "batch seq"] | Float[torch.Tensor, "batch seq"]
    """Classes, or real numbers that the first output should equal."""
    mask: Bool[torch.Tensor, "batch seq"]
    """True at supervised positions: their targets count in the loss and in scores."""
    attention_mask: Bool[torch.Tensor, "batch seq"]
    """True at real positions, False at padding."""
    loops: Int[torch.Tensor, " batch"] | None = None
    """The number of loops that each example needs, if the task says so (see `Task.loops_for`)."""
    step_targets: Int[torch.Tensor, "batch loops seq"] | None = None
    """A target for the output after each loop, for train.loss=steps. The class -100 does not count."""

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The batch with `function` applied to each tensor that is there."""
        return Batch(*(None if tensor is None else function(tensor) for tensor in self))  # pyright: ignore

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self if tensor is not None)
