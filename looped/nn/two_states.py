"""A core with two states: an answer, and a latent state that is updated more often."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from looped.nn.protocols import Context, graph_heads, kv_shape


class TwoStates(nn.Module):
    """Layers that work on an answer y and a latent state z, held side by side: the state is [y, z].

    In one loop z <- norm(g(z + y + x)), `inner_loops` times, and then y <- norm(f(y + z)), where x is the embedded
    input if it is injected, and else absent. Without `latent_layers`, g is f (TRM: Jolicoeur-Martineau, "Less is More:
    Recursive Reasoning with Tiny Networks", 2025). With them g is a stack of its own (HRM: Wang et al., 2025).
    """

    def __init__(
        self,
        layers: Iterable[nn.Module],
        inner_loops: int,
        *,
        latent_layers: Iterable[nn.Module] = (),
        injects: bool = True,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.inner_loops, self.injects = nn.ModuleList(layers), inner_loops, injects
        self.latent_layers, self.norm = nn.ModuleList(latent_layers), norm or nn.Identity()
        blocks = [*self.layers, *self.latent_layers]
        self.graph_heads = [name for block in blocks for name in graph_heads(block)]
        self.applications = inner_loops * len(self.latent_layers or self.layers) + len(self.layers)
        """Layers that a loop applies one after another."""
        shapes = {kv_shape(block) for block in blocks}
        heads, width = shapes.pop() or (0, 0) if len(shapes) == 1 else (0, 0)
        # Each application has keys and values of its own, so the heads of all stand side by side in the slot of a loop.
        self.kv_shape = (heads * self.applications, width) if heads else None

    def forward(
        self, x: Float[Tensor, "batch seq two_d_model"], context: Context
    ) -> Float[Tensor, "batch seq two_d_model"]:
        """Both states after the loop."""
        answer, latent = x.chunk(2, dim=-1)
        inner, applied = self.latent_layers or self.layers, 0
        for _ in range(self.inner_loops):
            given = latent + answer
            if self.injects:
                assert context.embedded is not None
                given = given + context.embedded
            latent, applied = self._update(inner, given, context, applied), applied + len(inner)
        return torch.cat([self._update(self.layers, answer + latent, context, applied), latent], dim=-1)

    def _update(
        self, layers: nn.ModuleList, x: Float[Tensor, "batch seq d_model"], context: Context, applied: int
    ) -> Float[Tensor, "batch seq d_model"]:
        """The state that the layers make of `x`; `applied` layers came before them in this loop."""
        slot = context.kv
        for i, layer in enumerate(layers, applied):
            x = layer(x, context if slot is None else context._replace(kv=slot.part(i, self.applications)))
        return self.norm(x)


class Answer(nn.Module):
    """The answer among the two states."""

    def forward(self, state: Float[Tensor, "*batch seq two_d_model"]) -> Float[Tensor, "*batch seq d_model"]:
        return state.chunk(2, dim=-1)[0]
