"""The cosine between layers, which a regulariser raises (Saunshi et al., 2025, Section 4)."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from looped.strict import check


def layer_cosine(layers: nn.ModuleList, k: int) -> Float[Tensor, ""]:
    """The mean cosine between the weight matrices of layers l and l + k, over all such pairs and all roles.

    It is 1 if the layers repeat with period k, like a block of k layers that is looped. Each matrix has a role in its
    layer: queries, keys, values, output, and those of the feed-forward layer. Norms and biases are left out, because
    gains are near 1 and their cosine therefore too.

    Raises:
        ValueError: k does not divide the number of layers, or is not smaller.
    """
    n = len(layers)
    check(1 <= k < n and n % k == 0, "k", k, f"a divisor of {n} layers, smaller than {n}")
    cosines = []
    for role in zip(*map(_matrices, layers), strict=True):
        directions = normalize(torch.stack([matrix.flatten() for matrix in role]), dim=1)
        cosines.append((directions[k:] * directions[:-k]).sum(1).mean())
    return torch.stack(cosines).mean()


def _matrices(layer: Any) -> Iterator[Tensor]:
    """The weight matrices of a `TransformerBlock` in the order of their roles. Fused ones are taken apart."""
    halves = 2 if layer.feedforward.gated else 1
    fused = {"attention.qkv": layer.attention.parts, "feedforward.up": [layer.feedforward.down.in_features] * halves}
    for name, module in layer.named_modules():
        if isinstance(module, nn.Linear):
            yield from module.weight.split(fused.get(name, module.out_features))
