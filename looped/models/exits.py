"""When inference stops looping."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

ExitRule = Callable[[Tensor, Tensor, int], Tensor]
"""Tells after each loop which examples are done: (state before, state after, loop number) -> bool (batch,)."""


@dataclass(frozen=True)
class StateChange:
    """Done when ||h_{t+1} - h_t|| <= threshold * ||h_t||, norms over the whole example."""

    threshold: float

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(f"threshold={self.threshold!r}: expected a positive number")

    def __call__(
        self, before: Float[Tensor, "batch seq d_model"], after: Float[Tensor, "batch seq d_model"], loop: int
    ) -> Bool[Tensor, " batch"]:
        change = (after - before).flatten(1).norm(dim=1)
        return change <= self.threshold * before.flatten(1).norm(dim=1)
