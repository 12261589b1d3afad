"""A trained standard transformer as a looped one."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from looped.models.transformer import LoopedTransformer
from looped.nn.injection import ConcatInput
from looped.nn.per_loop import BlockPerLoop, LowRankLinear
from looped.strict import check

Init = Literal["repeat", "average", "stepwise", "lower"]
Modulation = Literal["none", "scale_gate", "adaln_zero", "table", "rezero"]
Injection = Literal["none", "add", "concat"]
INITS: tuple[Init, ...] = ("repeat", "average", "stepwise", "lower")
WITHOUT_LOOPS = ("num_loops", "layer_order", "modulation", "input_injection", "positions_every_loop", "loop_norm",
                 "coda_norm", "halting", "cache", "inner_loops")  # fmt: skip
"""Settings that must have their defaults, because a looped model would apply them in each loop."""


@torch.no_grad()
def loopify(
    model: LoopedTransformer,
    loops: int,
    *,
    init: Init = "repeat",
    core: range | None = None,
    lora_rank: int = 0,
    modulation: Modulation = "none",
    injection: Injection = "none",
) -> LoopedTransformer:
    """A looped model that begins with the weights of a standard one.

    Some layers of the standard model become the core. Those before it are the prelude, those after it the coda. One
    loop of `repeat` is the standard model. The other ways make one layer of several, and so change what the model
    computes; sources: Bae et al. (2025), Relaxed Recursive Transformers; Bae et al. (2025), Mixture-of-Recursions.

    Args:
        model: a model of one loop, such as `open_model` reads. It does not change.
        loops: the number of loops.
        init: repeat: these layers in place, `loops` times (McLeish et al., 2025, Retrofitted
            Recurrence). The others replace N layers by
            K = N / loops, and core layer j stands for the layers j, j + K, j + 2K, ... of these. average: their mean.
            stepwise: layer round(j (N - 1) / (K - 1)), with the first and the last. lower: layer j.
        core: the numbers of the layers that become the core, from 0; None is those of `middle`.
        lora_rank: rank of the changes for each loop, which are the best approximation of the layers that a core layer
            stands for; with repeat they begin at zero. Norms and biases of each loop are then the original ones. With
            rank d_model nothing is lost; 0 shares everything.
        modulation: begins as no modulation, with scales and gates of 1. A table has one row for each of the loops.
        injection: concat begins as no injection, because its matrix takes the state and ignores the input. add starts
            from zero: the first loop is that without injection, and each later one adds the input to the state.

    Raises:
        ValueError: the model is not a standard one, has no such layers, or their number is no multiple of `loops`.
    """
    config, chain = model.config, [*model.prelude, *model.core, *model.coda]
    for name in WITHOUT_LOOPS:
        value, default = getattr(config, name), type(config).__dataclass_fields__[name].default
        check(value == default, f"model.{name}", value, f"{default!r} in a model whose layers become loops")
    check(init in INITS, "init", init, ", ".join(INITS))
    shares = init != "repeat"
    check(loops >= 1 + shares, "loops", loops, f"{1 + shares} or more with init={init!r}")
    core = middle(len(chain), init) if core is None else core
    inside = core.step == 1 and 0 <= core.start < core.stop <= len(chain)
    check(inside, "core", f"{core.start}-{core.stop - 1}", f"layers among 0-{len(chain) - 1}, in ascending order")
    divides = not shares or len(core) % loops == 0
    check(divides, "loops", loops, f"a divisor of the {len(core)} layers {core.start}-{core.stop - 1} of the core")
    layers = chain[core.start : core.stop]
    kept = len(layers) // loops if shares else len(layers)
    made = LoopedTransformer(
        dataclasses.replace(
            config,
            prelude_layers=core.start,
            core_layers=kept,
            coda_layers=len(chain) - core.stop,
            num_loops=loops,
            lora_rank=lora_rank,
            modulation=modulation,
            gate_offset=int(modulation != "none"),
            max_loops=loops if modulation == "table" else None,
            input_injection=injection,
            initial_state="input" if injection == "concat" else "zero",
        )
    )
    made.to(model.device, next(model.parameters()).dtype)
    outside = {name: w for name, w in model.state_dict().items() if name.partition(".")[0] not in model.sections}
    made.load_state_dict(outside, strict=False)
    if isinstance(made.injection, ConcatInput):
        linear = made.injection.linear
        linear.weight.copy_(torch.eye(*linear.weight.shape))
        if linear.bias is not None:
            linear.bias.zero_()
    others = zip([*made.prelude, *made.coda], [*chain[: core.start], *chain[core.stop :]], strict=True)
    for block, original in others:
        block.load_state_dict(original.state_dict())
    for j, block in enumerate(made.core):
        originals = layers[j::kept] if shares else [layers[j]] * loops
        step = round(j * (len(layers) - 1) / max(kept - 1, 1))
        chosen = {"average": originals, "stepwise": [layers[step]]}.get(init, [layers[j]])
        _fill(block, originals, chosen)
    return made.train(model.training)


def _fill(block: nn.Module, originals: Sequence[nn.Module], chosen: Sequence[nn.Module]) -> None:
    """Give a core layer the mean weights of the chosen layers, and each of its loops the changes to an original."""
    states = [layer.state_dict() for layer in chosen]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    if not isinstance(block, BlockPerLoop):
        block.load_state_dict(mean)
        return
    for own, original in zip(block.blocks, originals, strict=True):
        own.load_state_dict(original.state_dict(), strict=False)  # norms and biases
        for name, part in own.named_modules():
            if isinstance(part, LowRankLinear):
                part.shared.weight.copy_(mean[f"{name}.weight"])
                part.approximate(original.get_parameter(f"{name}.weight"))


def middle(layers: int, init: Init) -> range:
    """The layers that become the core if nobody says which.

    repeat: the middle eighth of the layers, at least one. Otherwise all but the first and the last, which differ most
    from their neighbours (Mixture-of-Recursions calls this the middle cycle).
    """
    if init != "repeat":
        return range(1, layers - 1)
    size = max(1, round(layers / 8))
    first = (layers - size) // 2
    return range(first, first + size)
