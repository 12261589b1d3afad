"""The loop by itself: `iterate` with a state that is an image.

`iterate` applies any step again and again. It handles the gradient window, recomputation and kept states for tensors of
any shape and for tuples of tensors. Here a small convolution, applied 24 times, learns to fill the inside of a closed
outline. Training keeps about 2 sqrt(24) states instead of the activations of all loops.

    python examples/loop_alone.py
"""

import torch
from torch import Tensor, nn

from looped import iterate


def rectangles(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (count, 1, size, size) with the outline of a rectangle, and the filled rectangles."""
    # Each side begins in the first half and ends in the second half.
    ends = torch.rand(count, 2, 2, generator=generator).mul(size // 2).long() + torch.tensor([0, size // 2])
    place = torch.arange(size)
    inside = (place >= ends[..., :1]) & (place <= ends[..., 1:])
    edge = (place == ends[..., :1]) | (place == ends[..., 1:])
    filled = inside[:, 0, :, None] & inside[:, 1, None, :]
    outline = filled & (edge[:, 0, :, None] | edge[:, 1, None, :])
    return outline[:, None].float(), filled[:, None].float()


class Fill(nn.Module):
    """state <- state + W2 relu(W1 [state, image]), with 3 x 3 convolutions."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.channels = channels
        self.first = nn.Conv2d(channels + 1, 32, 3, padding=1)
        self.second = nn.Conv2d(32, channels, 1)

    def forward(self, image: Tensor, num_loops: int, **options: object) -> tuple[Tensor, dict[int, Tensor]]:
        def step(state: Tensor, t: int) -> Tensor:
            return state + self.second(self.first(torch.cat([state, image], dim=1)).relu())

        start = image.new_zeros(len(image), self.channels, *image.shape[2:])
        result = iterate(step, start, num_loops, **options)  # pyright: ignore[reportArgumentType]
        return result.state[:, :1], {n: state[:, :1] for n, state in result.kept.items()}


def main(steps: int = 100, size: int = 12) -> float:
    """Train, print what happens loop by loop, and return the share of right pixels."""
    torch.manual_seed(0)
    model, generator = Fill(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    right = 0.0
    for step in range(1, steps + 1):
        image, filled = rectangles(32, size, generator)
        logits, _ = model(image, 24, recompute="nested")
        loss = nn.functional.binary_cross_entropy_with_logits(logits, filled)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        right = ((logits > 0) == filled.bool()).float().mean().item()
        if step % 50 == 0:
            print(f"step {step:4}  loss {loss.item():.3f}  right pixels {right:.3f}")
    with torch.no_grad():
        image, filled = rectangles(100, size, generator)
        largest = filled.sum(dim=(1, 2, 3)).argmax()
        _, kept = model(image[largest][None], 24, keep=(1, 3, 5, 24))
        for loop, logits in kept.items():
            print(f"after loop {loop}:")
            for row in (logits[0, 0] > 0).tolist():
                print("".join("#" if cell else "." for cell in row))
    return right


if __name__ == "__main__":
    main()
