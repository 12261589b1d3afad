"""What of a batch the core sees at a time: some tokens of some examples."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looped.models.recurrence import Recurrence
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


def joined(parts: list[Recurrence]) -> Recurrence:
    """One after another what was looped token by token; tokens that left early are kept as they left."""
    loops = max(part.num_loops for part in parts)
    numbers = sorted({n for part in parts for n in part.kept})
    return Recurrence(
        torch.cat([part.state for part in parts], dim=1),
        loops,
        {n: torch.cat([part.kept.get(n, part.state) for part in parts], dim=1) for n in numbers},
        None if parts[0].exits is None else torch.cat([p.exits for p in parts if p.exits is not None], dim=1),
        None if parts[0].logits is None else torch.cat([p.logits for p in parts if p.logits is not None], dim=1),
    )
