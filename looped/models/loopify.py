"""A trained standard transformer as a looped one."""

import dataclasses
from typing import Literal

import torch

from looped.models.transformer import LoopedTransformer
from looped.nn.per_loop import BlockPerLoop, LowRankLinear
from looped.strict import check

Init = Literal["average", "stepwise", "lower"]
INITS: tuple[Init, ...] = ("average", "stepwise", "lower")
WITHOUT_LOOPS = ("num_loops", "layer_order", "modulation", "input_injection", "positions_every_loop", "loop_norm",
                 "halting")  # fmt: skip
"""Settings that must have their defaults, because a looped model would apply them in each loop."""


@torch.no_grad()
def loopify(model: LoopedTransformer, loops: int, *, init: Init = "average", lora_rank: int = 0) -> LoopedTransformer:
    """A looped model whose N / loops core layers begin with the weights of the N layers of a standard model.

    Core layer j stands for the layers j, j + K, j + 2K, ... with K = N / loops. Source: Bae et al. (2025), Relaxed
    Recursive Transformers.

    Args:
        model: core_layers=N, num_loops=1. It does not change.
        init: the shared weights of core layer j. average: the mean of the layers that it stands for. stepwise: layer
            round(j (N - 1) / (K - 1)), so the first and the last are kept. lower: layer j.
        lora_rank: rank of the changes for each loop, which are the best approximation of the original matrices. Norms
            and biases of each loop are then the original ones. With rank d_model nothing is lost; 0 shares everything.

    Raises:
        ValueError: the number of layers is no multiple of `loops`, or the model is not a standard one.
    """
    config, layers = model.config, model.config.core_layers
    for name in WITHOUT_LOOPS:
        value, default = getattr(config, name), type(config).__dataclass_fields__[name].default
        check(value == default, f"model.{name}", value, f"{default!r} in a model whose layers become loops")
    divides = loops >= 2 and layers % loops == 0
    check(divides, "loops", loops, f"2 or more that divide the {layers} core layers")
    check(init in INITS, "init", init, "average, stepwise or lower")
    kept = layers // loops
    made = LoopedTransformer(dataclasses.replace(config, core_layers=kept, num_loops=loops, lora_rank=lora_rank))
    made.to(model.device, next(model.parameters()).dtype)
    made.load_state_dict({n: w for n, w in model.state_dict().items() if not n.startswith("core.")}, strict=False)
    for j, block in enumerate(made.core):
        originals = [model.core[i] for i in range(j, layers, kept)]
        step = round(j * (layers - 1) / max(kept - 1, 1))
        chosen = {"average": originals, "stepwise": [model.core[step]], "lower": [model.core[j]]}[init]
        states = [original.state_dict() for original in chosen]
        mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
        if not isinstance(block, BlockPerLoop):
            block.load_state_dict(mean)
            continue
        for own, original in zip(block.blocks, originals, strict=True):
            own.load_state_dict(original.state_dict(), strict=False)  # norms and biases
            for name, part in own.named_modules():
                if isinstance(part, LowRankLinear):
                    part.shared.weight.copy_(mean[f"{name}.weight"])
                    part.approximate(original.get_parameter(f"{name}.weight"))
    return made.train(model.training)
