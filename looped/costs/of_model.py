"""Floating-point operations of a model's forward pass."""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looped.costs.count import flops
from looped.models.looped_model import LoopedModel
from looped.models.transformer import LoopedTransformer


@torch.no_grad()
def forward_flops(
    model: LoopedModel, inputs: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq input"], num_loops: int,
    loop_logits: int = 1,
) -> int:  # fmt: skip
    """FLOPs of one forward pass over one sequence of `inputs`, of shape (batch, seq) or (batch, seq, input).

    For a `LoopedTransformer` they follow from the configuration. Another model is run once under torch's counter.
    """
    if isinstance(model, LoopedTransformer):
        return flops(model.config, inputs.shape[1], num_loops, loop_logits)
    from torch.utils.flop_counter import FlopCounterMode  # loads torch's compiler

    with FlopCounterMode(display=False) as counter:
        model(
            inputs[:1].to(model.device),
            num_loops=num_loops,
            loop_logits=range(num_loops - loop_logits + 1, num_loops + 1),
        )
    return counter.get_total_flops()


def exit_flops(
    model: LoopedModel, inputs: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq input"], mean_loops: float,
    needs: Literal["states", "logits", "halting"],
) -> float:  # fmt: skip
    """FLOPs of a forward pass with an exit rule: those at the mean loops, interpolated between whole numbers.

    Args:
        needs: input of the rule after every loop (`ExitRule.needs`). For logits, each loop costs the coda and the
            output matrix. For halting with halting="gate", each loop costs one product with a vector.
    """

    def at(loops: int) -> int:
        gate = model.halt.in_features if needs == "halting" and model.halting == "gate" else 0
        return 2 * gate * inputs.shape[1] * loops + forward_flops(
            model, inputs, loops, loops if needs == "logits" else 1
        )

    low = math.floor(mean_loops)
    return at(low) + (mean_loops - low) * (at(low + 1) - at(low) if mean_loops > low else 0)
