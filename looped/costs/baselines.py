"""Baselines: standard transformers with as many parameters, or as many FLOPs, as a looped one."""

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Literal, NamedTuple

from looped.config import ModelConfig
from looped.costs.count import flops, parameters

MAX_LAYERS = 64
TOLERANCE = 0.02  # among candidates whose cost is this near, the shape decides
ASPECT = 64  # d_model / layers of GPT-2 small; near it the loss depends little on the shape


class Match(NamedTuple):
    """A standard transformer, and its cost divided by the cost of the looped one."""

    config: ModelConfig
    ratio: float


def standard(looped: ModelConfig, layers: int, d_model: int) -> ModelConfig:
    """The looped model's settings with `layers` layers that are applied once, and without all looping options."""
    return dataclasses.replace(
        looped,
        d_model=d_model,
        d_ff=None if looped.d_ff is None else max(1, looped.d_ff * d_model // looped.d_model),
        prelude_layers=0,
        core_layers=layers,
        coda_layers=0,
        num_loops=1,
        layer_order="cycle",
        core_tied="all",
        lora_rank=0,
        max_loops=None,
        modulation="none",
        gate_offset=0,
        timestep="index",
        input_injection="none",
        initial_state="zero",
        inner_loops=None,
        latent_layers=0,
        positions_every_loop=False,
        loop_norm=False,
        initialisation_depth=None,
    )


def match(looped: ModelConfig, equal: Literal["parameters", "flops"]) -> Match:
    """The standard transformer with the cost of `looped`, among up to 64 layers and widths up to 4 * d_model.

    The number of heads stays, so widths are multiples of num_heads. For each number of layers, the candidates are the
    two widths whose costs are just below and above that of `looped`. Only candidates within 2% of that cost remain. If
    there are none, the nearest one remains. The result is the candidate whose d_model / layers is closest to GPT-2
    small's 64. At equal cost the loss depends only weakly on the shape (Kaplan et al. 2020, section 3.1).

    Args:
        looped: a configuration without sizes that are None.
        equal: parameters counts all trained weights; flops counts a forward pass over max_seq_len positions.

    Raises:
        ValueError: a size is None.
    """
    cost: Callable[[ModelConfig], int] = parameters if equal == "parameters" else _flops
    aim = cost(looped)
    even = looped.positions in ("sinusoidal", "rotary")
    widths = range(looped.num_heads * (1 + even), 4 * looped.d_model + 1, looped.num_heads * (1 + even))
    candidates = []
    for layers in range(1, MAX_LAYERS + 1):
        at = bisect_left(widths, aim, key=lambda d: cost(standard(looped, layers, d)))
        for d_model in widths[max(0, at - 1) : at + 1]:
            config = standard(looped, layers, d_model)
            candidates.append(Match(config, cost(config) / aim))
    nearest = min(abs(math.log(found.ratio)) for found in candidates)
    near = [found for found in candidates if abs(math.log(found.ratio)) <= max(nearest, TOLERANCE)]
    return min(near, key=lambda found: abs(math.log(found.config.d_model / found.config.core_layers / ASPECT)))


def _flops(config: ModelConfig) -> int:
    return flops(config, config.max_seq_len or 0)
