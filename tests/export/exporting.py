"""Functions that the tests of exported files share."""

import contextlib
from collections.abc import Iterator

import jaxtyping
import torch
from torch import Tensor, nn

from looped.models import LoopedModel
from looped.nn.protocols import Context


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Without the type checks of tests/conftest.py, which refuse the symbolic sizes of a traced model."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def moved(model: LoopedModel, seed: int = 0, by: float = 0.05) -> LoopedModel:
    """The model with every weight away from its initial value, so that all loops differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += by * torch.randn(weight.shape, generator=generator)
    return model.eval()


def bytes_of(model: LoopedModel) -> int:
    return sum(weight.nbytes for weight in model.parameters())


def mask_for(inputs: Tensor) -> Tensor:
    """Padding on the left in the first sequence and on the right in the last."""
    mask = torch.ones(inputs.shape[:2], dtype=torch.bool)
    mask[0, : inputs.shape[1] // 3] = False
    mask[-1, inputs.shape[1] - inputs.shape[1] // 4 :] = False
    return mask


class Dense(nn.Module):
    """A block of one's own without attention; `step` is a factor on the loop index that it adds."""

    def __init__(self, width: int, step: float = 0.0) -> None:
        super().__init__()
        self.up, self.down, self.step = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), step

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x + self.down(torch.tanh(self.up(x))) + self.step * context.loop


def dense_model(width: int, step: float = 0.0) -> LoopedModel:
    return LoopedModel(
        embed=nn.Linear(8, width), core=[Dense(width, step)], head=nn.Linear(width, 5), num_loops=3, max_seq_len=12
    )
