"""Ways to loop a pretrained model, without training: perplexity and weights of each.

    python -m benchmarks.loopify MODEL TEXT --out results/loopify/untrained.csv

MODEL is a folder, a GGUF file or a name of the hub, as for `looped open`. The perplexity is that of the first tokens of
TEXT in one window. Block influence is 1 - the cosine between the states before and after a layer, as a mean over tokens
(Men et al., 2024, ShortGPT).
"""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from looped.models.loopify import loopify
from looped.models.transformer import LoopedTransformer


def without(model: LoopedTransformer, dropped: range) -> LoopedTransformer:
    """The model without some of its core layers."""
    kept = [block for i, block in enumerate(model.core) if i not in dropped]
    made = LoopedTransformer(dataclasses.replace(model.config, core_layers=len(kept)))
    made.load_state_dict({n: w for n, w in model.state_dict().items() if not n.startswith("core.")}, strict=False)
    for block, original in zip(made.core, kept, strict=True):
        block.load_state_dict(original.state_dict())
    return made.eval()


@torch.no_grad()
def perplexity(model: LoopedTransformer, tokens: Tensor, loops: int | None = None) -> float:
    """exp(mean nats per token) of all tokens but the first, which share one window."""
    logits = model(tokens[None, :-1], num_loops=loops).logits[0]
    return F.cross_entropy(logits, tokens[1:]).exp().item()


def loopified(model: LoopedTransformer) -> Iterator[tuple[str, LoopedTransformer]]:
    """The ways by name."""
    layers = model.config.core_layers
    middle = layers // 2
    four, ten = range(middle - 2, middle + 2), range(middle - 5, middle + 5)
    for core, loops in (
        (range(middle, middle + 1), 2),
        (four, 2),
        (four, 3),
        (four, 4),
        (ten, 2),
        (range(layers - 6, layers - 2), 2),
    ):
        yield f"repeat {core.start}-{core.stop - 1}, {loops} loops", loopify(model, loops, core=core)
    yield f"drop {four.start}-{four.stop - 1}", without(model, four)
    whole, inner = range(layers), range(4, layers - 4)
    for core in (whole, range(1, layers - 1), inner):
        for init in ("average", "lower", "stepwise"):
            yield f"{init} {core.start}-{core.stop - 1}, 2 loops", loopify(model, 2, init=init, core=core)
    for rank in (64, 256, model.config.d_model):
        yield (
            f"average {inner.start}-{inner.stop - 1}, 2 loops, rank {rank}",
            loopify(model, 2, init="average", core=inner, lora_rank=rank),
        )
