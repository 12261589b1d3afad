"""The initial weights of a model: all initialisation, in one place and from one generator."""

import math

import torch
from torch import nn

from looped.config import ModelConfig
from looped.models.looped_model import LoopedModel
from looped.nn.attention import Attention
from looped.nn.feedforward import FeedForward
from looped.nn.per_loop import LowRankLinear
from looped.nn.positions import PositionEmbedding

INIT_STD = 0.02


@torch.no_grad()
def initialise(model: LoopedModel, config: ModelConfig, generator: torch.Generator) -> None:
    """Overwrite all weights.

    gpt2: matrices N(0, 0.02), projections into the residual stream N(0, 0.02 / sqrt(2 * depth)), biases zero.
    pytorch: linear layers uniform in +-1/sqrt(fan_in), embeddings N(0, 1): the published reasoning code.
    In both, linear layers of a modulation have the framework's defaults, except its `zero_at_start`.
    in_context: as gpt2, also in a modulation; but a linear embedding and the output have the framework's defaults.
    Learned halting begins near 1 / num_loops, so training begins with all loops in use. On `meta` there are no weights.
    """
    if model.device.type == "meta":  # drawing nothing would import a compiler
        return
    depth = config.initialisation_depth or (
        config.prelude_layers + config.core_depth * config.num_loops + config.coda_layers
    )
    unit = 1 if config.initialisation == "pytorch" else INIT_STD
    last = [m.project for m in model.modules() if isinstance(m, Attention)]
    last += [m.down for m in model.modules() if isinstance(m, FeedForward)]
    into_residual = {m.shared if isinstance(m, LowRankLinear) else m for m in last}
    of_modulation = set() if model.modulation is None else set(model.modulation.modules())
    framework = {model.embed, model.head} if config.initialisation == "in_context" else of_modulation
    for module in model.modules():
        if isinstance(module, nn.Linear):
            if config.initialisation == "pytorch" or module in framework:
                bound = module.in_features**-0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
            else:
                std = INIT_STD / math.sqrt(2 * depth) if module in into_residual else INIT_STD
                module.weight.normal_(0, std, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        elif isinstance(module, LowRankLinear):  # `up` is zero, so all loops begin with the same matrix
            for down in module.down:
                down.normal_(0, module.in_features**-0.5, generator=generator)
        elif isinstance(module, nn.Embedding) and not config.tie_embeddings:
            module.weight.normal_(0, unit, generator=generator)
    if isinstance(model.positions, PositionEmbedding) and isinstance(model.positions.table, nn.Parameter):
        model.positions.table.normal_(0, unit, generator=generator)
    for parameter in getattr(model.modulation, "zero_at_start", ()):
        parameter.zero_()
    if config.halting != "none":
        nn.init.constant_(model.halt.bias, -math.log(max(config.num_loops - 1, 1)))  # type: ignore[arg-type]
