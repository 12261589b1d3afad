"""What of a batch the core sees at a time: some tokens of some examples; and what comes of all of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looped.models.iterate import Iterated
from looped.nn.positions import Rotation


class Part(NamedTuple):
    """What the core needs besides its state, for some tokens of some examples."""

    embedded: Float[Tensor, "batch seq d_model"]
    where: Float[Tensor, "seq d_model"] | Float[Tensor, "batch seq d_model"] | None
    """Vectors of the positions."""
    mask: Bool[Tensor, "#batch 1 #seq keys"] | None
    by: Rotation | None
    span: slice
    """Which tokens of the sequence these are."""

    def token(self, i: int) -> "Part":
        span = slice(self.span.start + i, self.span.start + i + 1)
        return Part(
            self.embedded[:, i : i + 1],
            None if self.where is None else self.where[..., i : i + 1, :],
            None if self.mask is None else self.mask[:, :, -self.embedded.shape[1] :][:, :, i : i + 1, : span.stop],
            None if self.by is None else (self.by[0][:, :, i : i + 1], self.by[1][:, :, i : i + 1]),
            span,
        )

    def rows(self, rows: Int[Tensor, " active"] | None) -> "Part":
        if rows is None:
            return self
        where = self.where if self.where is None or self.where.ndim == 2 else self.where[rows]
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[rows]
        by = self.by if self.by is None or len(self.by[0]) == 1 else (self.by[0][rows], self.by[1][rows])
        return Part(self.embedded[rows], where, mask, by, self.span)


def joined(parts: list[Iterated]) -> Iterated:
    """One after another what was looped token by token; tokens that left early are kept as they left."""

    def along(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else torch.cat(found, dim=1)

    loops = max(part.num_loops for part in parts)
    numbers = sorted({n for part in parts for n in part.kept})
    return Iterated(
        along("state"),
        loops,
        {n: torch.cat([part.kept.get(n, part.state) for part in parts], dim=1) for n in numbers},
        along("exits"),
        along("logits"),
        along("halting"),
    )


@dataclass(frozen=True, slots=True)
class LoopedOutput:
    """What a forward pass returns."""

    logits: Float[Tensor, "batch read output"]
    """Readout of the last loop."""
    loop_logits: Float[Tensor, "reads batch read output"]
    """Readouts of the loops that were asked for, in ascending order."""
    state: Float[Tensor, "batch seq d_model"]
    """State after the last loop."""
    num_loops: int
    """Loops that were run."""
    loop_states: Float[Tensor, "loops batch seq d_model"] | None = None
    """State after each loop."""
    loops_taken: Int[Tensor, "batch seq"] | None = None
    """Loops that each token took part in, with an exit rule."""
    ponder_cost: Float[Tensor, "batch seq"] | None = None
    """Each token's ponder cost, with halting="act"."""


class Loop(NamedTuple):
    """A model on given inputs: its forward pass is `read` of what `iterate` makes of `step` and `state`."""

    state: Float[Tensor, "batch seq d_model"]
    """The state before the first loop."""
    step: Callable[[Tensor, int], Tensor]
    """The state after loop t (from 0) from the one before it."""
    read: Callable[[Tensor], Tensor]
    """The logits (batch, seq, output) decoded from a state."""
