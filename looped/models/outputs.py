"""Results of a looped model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from looped.models.fixed_point import FixedPoint


@dataclass(frozen=True, slots=True)
class LoopedOutput:
    """The result of a forward pass."""

    logits: Float[Tensor, "batch read output"]
    """After the last loop of each token."""
    loop_logits: Float[Tensor, "reads batch read output"]
    """After each loop that was asked for, in ascending order."""
    state: Float[Tensor, "batch seq d_model"]
    """State after the last loop of each token."""
    num_loops: int
    """Loops that were run."""
    loop_states: Float[Tensor, "loops batch seq d_model"] | None = None
    """State after each loop, if asked for."""
    loops_taken: Int[Tensor, "batch seq"] | None = None
    """Loops that each token took part in, with an exit rule."""
    ponder_cost: Float[Tensor, "batch seq"] | None = None
    """With halting="act", the ponder cost N + R of each token: its loops, and the remainder of the last."""
    fixed_point: FixedPoint | None = None
    """With a gradient at the fixed point, its facts."""


# Without this, DistributedDataParallel with static_graph finds no tensor in the output and never reduces the gradients.
pytree.register_dataclass(LoopedOutput, serialized_type_name="looped.LoopedOutput")


def own_logits(
    loop_logits: Float[Tensor, "loops batch seq output"], loops: Int[Tensor, " batch"]
) -> Float[Tensor, "batch seq output"]:
    """For each example the logits after its own number of loops, from the logits after every loop."""
    return loop_logits[loops - 1, torch.arange(len(loops), device=loops.device)]


class Loop(NamedTuple):
    """A model on given inputs, taken apart: its forward pass is `decode(iterate(step, initial, num_loops).state)`."""

    initial: Float[Tensor, "batch seq d_model"]
    """The state before the first loop."""
    step: Callable[[Tensor, int], Tensor]
    """The state after loop t = 0, 1, ... from the state before it."""
    decode: Callable[[Tensor], Tensor]
    """The logits (batch, seq, output) of a state."""
