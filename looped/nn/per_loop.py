"""Core layers that share only a part of their weights between loops; the other part has a copy for each loop."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from looped.model_config import ModelConfig
from looped.nn.attention import Attention
from looped.nn.block import ALONE, TransformerBlock
from looped.nn.feedforward import FeedForward
from looped.nn.protocols import Context


class LowRankLinear(nn.Module):
    """A linear layer with the matrix W + B A. W is shared between loops; the change B A and the bias are its own.

    A fused matrix, such as that of queries, keys and values, has a change of this rank for each of its parts.
    Source: Bae et al. (2025), Relaxed Recursive Transformers; LoRA (Hu et al., 2022).
    """

    def __init__(self, shared: nn.Linear, rank: int, parts: Sequence[int], *, bias: bool) -> None:
        """`parts` are the outputs of each part."""
        super().__init__()
        self.shared, self.in_features, self.out_features = shared, shared.in_features, shared.out_features
        ranks = [min(rank, outputs, shared.in_features) for outputs in parts]
        self.parts = parts
        self.down = nn.ParameterList(torch.empty(r, shared.in_features) for r in ranks)
        self.up = nn.ParameterList(torch.zeros(outputs, r) for outputs, r in zip(parts, ranks, strict=True))
        self.bias = nn.Parameter(torch.zeros(shared.out_features)) if bias else None

    @property
    def weight(self) -> Float[Tensor, "outputs inputs"]:
        changes = [up @ down for up, down in zip(self.up, self.down, strict=True)]
        return self.shared.weight + torch.cat(changes)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        return F.linear(x, self.weight, self.bias)

    @torch.no_grad()
    def approximate(self, wanted: Float[Tensor, "outputs inputs"]) -> None:
        """Make the matrix as near to `wanted` as the rank allows: the largest singular values of what W lacks."""
        lacks = (wanted - self.shared.weight).double().split(list(self.parts))
        for part, up, down in zip(lacks, self.up, self.down, strict=True):
            u, s, v = torch.linalg.svd(part, full_matrices=False)
            up.copy_((u * s)[:, : up.shape[1]])
            down.copy_(v[: len(down)])


class BlockPerLoop(nn.Module):
    """A layer with a `TransformerBlock` for each loop. The blocks share what the configuration ties."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        blocks = [TransformerBlock(config) for _ in range(config.num_loops)]
        if config.core_tied != "all":  # the sublayer and its norms
            for name, part in list(blocks[0].named_children()):
                for block in blocks if name.startswith(config.core_tied) else ():
                    setattr(block, name, part)
        else:
            _share_matrices(blocks, config)
        self.blocks, self.max_loops = nn.ModuleList(blocks), config.num_loops
        self.modulation_names, self.graph_heads = TransformerBlock.modulation_names, blocks[0].graph_heads
        self.kv_shape = blocks[0].kv_shape

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], context: Context = ALONE
    ) -> Float[Tensor, "batch seq d_model"]:
        """The state after the layer, with the weights of the loop that it runs in."""
        return self.blocks[context.loop](x, context)


def _share_matrices(blocks: list[TransformerBlock], config: ModelConfig) -> None:
    """Blocks share their matrices up to changes of rank `lora_rank`; biases and norms stay their own."""
    for owner in (Attention, FeedForward):
        parents = [next(m for m in block.modules() if type(m) is owner) for block in blocks]
        for name, first in list(parents[0].named_children()):
            if not isinstance(first, nn.Linear):
                continue
            halves = [config.ff_dim] * (1 + (config.activation == "swiglu"))
            parts = {"qkv": getattr(parents[0], "parts", ()), "up": halves}.get(name, [first.out_features])
            shared = nn.Linear(first.in_features, first.out_features, bias=False)
            for parent in parents:
                setattr(parent, name, LowRankLinear(shared, config.lora_rank, parts, bias=first.bias is not None))


def make_core_block(config: ModelConfig) -> nn.Module:
    """A core layer: one block for all loops, or blocks that share a part of their weights."""
    return BlockPerLoop(config) if config.own_weights else TransformerBlock(config)
