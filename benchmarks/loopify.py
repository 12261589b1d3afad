"""Ways to loop a pretrained model, without training: perplexity and weights of each.

    python -m benchmarks.loopify MODEL TEXT --out untrained.csv

MODEL is a folder, a GGUF file or a name of the hub, as for `looped open`. The perplexity is that of the first tokens of
TEXT in one window. The last rows repeat four layers at every place, with the block influence of these layers: the mean
of 1 - the cosine between the states before and after a layer (Men et al., 2024, ShortGPT).
"""

import argparse
import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from looped.costs.count import parameters
from looped.models.loopify import loopify
from looped.models.transformer import LoopedTransformer
from looped.pretrained import open_model

BLOCK = 4
"""Layers that are repeated or dropped together."""


def without(model: LoopedTransformer, dropped: range) -> LoopedTransformer:
    """The model without some of its core layers."""
    kept = [block for i, block in enumerate(model.core) if i not in dropped]
    made = LoopedTransformer(dataclasses.replace(model.config, core_layers=len(kept)))
    made.load_state_dict({n: w for n, w in model.state_dict().items() if not n.startswith("core.")}, strict=False)
    for block, original in zip(made.core, kept, strict=True):
        block.load_state_dict(original.state_dict())
    return made.eval()


@torch.no_grad()
def perplexity(model: LoopedTransformer, tokens: Tensor, num_loops: int | None = None) -> float:
    """exp(mean nats per token) of all tokens but the first, in one window."""
    logits = model(tokens[None, :-1], num_loops=num_loops).logits[0]
    return F.cross_entropy(logits, tokens[1:]).exp().item()


@torch.no_grad()
def block_influence(model: LoopedTransformer, tokens: Tensor) -> list[float]:
    """1 - the mean cosine between the states before and after each core layer."""
    found: list[float] = []

    def measure(block: Any, given: tuple[Any, ...], made: Tensor) -> None:
        found.append(1 - F.cosine_similarity(given[0], made, dim=-1).mean().item())

    hooks = [block.register_forward_hook(measure) for block in model.core]
    model(tokens[None, :-1])
    for hook in hooks:
        hook.remove()
    return found


def ways(model: LoopedTransformer) -> Iterator[tuple[str, range, int, LoopedTransformer]]:
    """The name, core, number of loops and model of each way."""
    layers = model.config.core_layers
    half = layers // 2
    four, ten, late = range(half - 2, half + 2), range(half - 5, half + 5), range(layers - 6, layers - 2)
    for core, loops in ((range(half, half + 1), 2), (four, 2), (four, 3), (four, 4), (ten, 2), (late, 2)):
        yield "repeat", core, loops, loopify(model, loops, core=core)
    yield "drop", four, 1, without(model, four)
    inner = range(BLOCK, layers - BLOCK)
    for core in (range(layers), range(1, layers - 1), inner):
        for init in ("average", "lower", "stepwise"):
            yield init, core, 2, loopify(model, 2, init=init, core=core)
    full = model.config.d_model
    for rank in (full // 9, 4 * full // 9, full):  # 64, 256 and 576 of SmolLM2
        yield f"average, rank {rank}", inner, 2, loopify(model, 2, init="average", core=inner, lora_rank=rank)


def main() -> None:
    """Measure, print and write a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=384)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    opened = open_model(options.model)
    model, ids = opened.model, Tokenizer.from_file(str(opened.tokenizer)).encode(options.text.read_text()).ids
    tokens = torch.tensor(ids[: options.tokens + 1])
    rows: list[dict[str, Any]] = []

    def measured(way: str, core: range, loops: int, made: LoopedTransformer) -> dict[str, Any]:
        row = {
            "way": way,
            "layers": f"{core.start}-{core.stop - 1}",
            "loops": loops,
            "weights": parameters(made.config),
            "perplexity": round(perplexity(made, tokens), 2),
            "block_influence": "",
        }
        print(row, flush=True)
        rows.append(row)
        return row

    measured("source", range(model.config.core_layers), 1, model)
    for way in ways(model):
        measured(*way)
    influence = block_influence(model, tokens)
    for first in range(model.config.core_layers - BLOCK + 1):
        core = range(first, first + BLOCK)
        row = measured("repeat", core, 2, loopify(model, 2, core=core))
        row["block_influence"] = round(sum(influence[core.start : core.stop]) / BLOCK, 4)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
