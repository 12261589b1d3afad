"""The paper's block as its public code computes it: the baseline of all speed measurements.

Attention is written out, the modulation is recomputed for every loop and every example, and everything is float32.
The module shares no code with the library. `tests/test_benchmarks.py` checks that both compute the same function.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PublishedBlock(nn.Module):
    """x += g_a Attention(rms(x) (1 + s_a)); x += g_m MLP(rms(x) (1 + s_m))."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.heads = num_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.project = nn.Linear(d_model, d_model, bias=False)
        self.up = nn.Linear(d_model, 4 * d_model, bias=False)
        self.down = nn.Linear(4 * d_model, d_model, bias=False)
        self.modulation = nn.Linear(d_model, 4 * d_model)

    def attention(self, x: Tensor) -> Tensor:
        batch, seq, d = x.shape
        q, k, v = (y.view(batch, seq, self.heads, -1).transpose(1, 2) for y in self.qkv(x).split(d, dim=2))
        weights = F.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
        return self.project((weights @ v).transpose(1, 2).reshape(batch, seq, d))

    def forward(self, x: Tensor, embedded_time: Tensor) -> Tensor:
        s_a, s_m, g_a, g_m = self.modulation(F.silu(embedded_time))[:, None].chunk(4, dim=-1)
        x = x + g_a * self.attention(rms(x) * (1 + s_a))
        return x + g_m * self.down(F.silu(self.up(rms(x) * (1 + s_m))))


class PublishedTMLT(nn.Module):
    """Embedding, learned positions, one looped block, final norm, output."""

    def __init__(self, vocab: int, seq: int, d_model: int, num_heads: int, num_loops: int) -> None:
        super().__init__()
        self.num_loops = num_loops
        self.embedding = nn.Embedding(vocab, d_model)
        self.positions = nn.Parameter(torch.zeros(seq, d_model))
        self.block = PublishedBlock(d_model, num_heads)
        self.hidden = nn.Linear(256, d_model)
        self.embed = nn.Linear(d_model, d_model)
        self.gain = nn.Parameter(torch.ones(d_model))
        self.head = nn.Linear(d_model, vocab, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.embedding(inputs) + self.positions[: inputs.shape[1]]
        frequencies = torch.exp(-math.log(10000) * torch.arange(128, device=x.device) / 128)
        for loop in range(self.num_loops):
            time = torch.full((len(x), 1), float(loop), device=x.device) * frequencies
            time = torch.cat([time.cos(), time.sin()], dim=-1)
            x = self.block(x, self.embed(F.silu(self.hidden(time))))
        return self.head(rms(x) * self.gain)


def rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def copy_weights(reference: PublishedTMLT, model: nn.Module) -> None:
    """Copy the reference's weights into a library model of the same sizes."""
    pairs = {
        "embed.weight": reference.embedding.weight,
        "positions.table": reference.positions,
        "core.0.attention.qkv.weight": reference.block.qkv.weight,
        "core.0.attention.project.weight": reference.block.project.weight,
        "core.0.feedforward.up.weight": reference.block.up.weight,
        "core.0.feedforward.down.weight": reference.block.down.weight,
        "modulation.hidden.weight": reference.hidden.weight,
        "modulation.hidden.bias": reference.hidden.bias,
        "modulation.embed.weight": reference.embed.weight,
        "modulation.embed.bias": reference.embed.bias,
        "modulation.output.weight": reference.block.modulation.weight,
        "modulation.output.bias": reference.block.modulation.bias,
        "norm.weight": reference.gain,
        "head.weight": reference.head.weight,
    }
    model.load_state_dict({name: weight.detach().clone() for name, weight in pairs.items()})
