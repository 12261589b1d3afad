"""A core with two states: an answer, and a latent state that is updated more often."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from looped.nn.injection import NoInjection
from looped.nn.protocols import Context, graph_heads


class TwoStates(nn.Module):
    """Layers f that work on an answer y and a latent state z, held side by side: the state is [y, z].

    In one loop z <- f(z + y + x), `inner_loops` times, and then y <- f(y + z), where x is the embedded input (TRM:
    Jolicoeur-Martineau, "Less is More: Recursive Reasoning with Tiny Networks", 2025).
    """

    def __init__(self, layers: Iterable[nn.Module], inner_loops: int) -> None:
        super().__init__()
        self.layers, self.inner_loops = nn.ModuleList(layers), inner_loops
        self.graph_heads = [name for layer in self.layers for name in graph_heads(layer)]

    def forward(
        self, x: Float[Tensor, "batch seq two_d_model"], context: Context
    ) -> Float[Tensor, "batch seq two_d_model"]:
        """Both states after the loop."""
        assert context.embedded is not None
        answer, latent = x.chunk(2, dim=-1)
        for _ in range(self.inner_loops):
            latent = self._f(latent + answer + context.embedded, context)
        return torch.cat([self._f(answer + latent, context), latent], dim=-1)

    def _f(self, x: Float[Tensor, "batch seq d_model"], context: Context) -> Float[Tensor, "batch seq d_model"]:
        for layer in self.layers:
            x = layer(x, context)
        return x


class StartBoth(NoInjection):
    """The injection of `TwoStates`, which adds the embedded input by itself. Both states start from zero."""

    def initial(self, embedded: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq two_d_model"]:
        return torch.cat([torch.zeros_like(embedded)] * 2, dim=-1)


class Answer(nn.Module):
    """The answer among the two states."""

    def forward(self, state: Float[Tensor, "*batch seq two_d_model"]) -> Float[Tensor, "*batch seq d_model"]:
        return state.chunk(2, dim=-1)[0]
