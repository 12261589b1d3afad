"""A block and a modulation of your own inside the loop.

A block is called as `block(x, context)`. It uses what it needs of the context and ignores the rest. This one mixes
neighbouring positions by a convolution. Its `modulation_names` say which vectors it reads from the modulation; the
model refuses a modulation that no block reads, because it would have no effect.

    python examples/own_block.py
"""

import torch
from torch import Tensor, nn

from looped import Context, LoopedModel


class ConvBlock(nn.Module):
    """x + strength * tanh(conv(norm(x))) for x of shape (batch, seq, width)."""

    modulation_names = ("strength",)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.conv = nn.Conv1d(width, width, kernel_size=3, padding=1)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        mixed = self.conv(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return x + context.modulation["strength"] * mixed.tanh()


class Decay(nn.Module):
    """strength(t) = exp(-rate * t), with a rate for each channel, for every layer of the core."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.names = [("strength",)] * layers
        self.rate = nn.Parameter(torch.full((layers, width), 0.1))

    def forward(self, num_loops: int, device: torch.device) -> Tensor:
        t = torch.arange(num_loops, device=device)[:, None, None]
        return (-self.rate * t).exp()  # (loops, one row for each name of each layer, width)


def main(steps: int = 100) -> float:
    """Train it to move a mark along the sequence; returns the share of right positions.

    A convolution of width 3 moves information by one position. To move a mark by 3, three loops are needed.
    """
    torch.manual_seed(0)
    width, seq, shift = 32, 16, 3
    model = LoopedModel(
        embed=nn.Embedding(2, width),
        core=[ConvBlock(width)],
        modulation=Decay(width, layers=1),
        norm=nn.RMSNorm(width),
        head=nn.Linear(width, 2),
        num_loops=4,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    right = 0.0
    for step in range(1, steps + 1):
        tokens = torch.randint(2, (64, seq))
        targets = tokens.roll(shift, dims=1)
        logits = model(tokens).logits[:, shift:]  # the first positions have nothing to copy
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets[:, shift:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        right = (logits.argmax(-1) == targets[:, shift:]).float().mean().item()
        if step % 20 == 0:
            print(f"step {step:4}  loss {loss.item():.3f}  right {right:.2f}")
    with torch.no_grad():
        for num_loops in (1, 2, 3, 4, 5):
            logits = model(tokens, num_loops=num_loops).logits[:, shift:]
            print(f"{num_loops:2} loops: {(logits.argmax(-1) == targets[:, shift:]).float().mean().item():.2f} right")
    return right


if __name__ == "__main__":
    main()
