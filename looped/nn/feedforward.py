"""The feed-forward layer."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from looped.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
    "swiglu": F.silu,  # of the gate
}


class Activation(nn.Module):
    """An activation by its name. That of swiglu is silu."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return ACTIVATIONS[self.kind](x)


class FeedForward(nn.Module):
    """W2 act(W1 x), or with swiglu W2 (silu(W_gate x) * (W_up x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.activation
        self.gated = config.activation == "swiglu"
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.d_model, config.ff_dim * (2 if self.gated else 1), bias=config.bias)
        self.down = nn.Linear(config.ff_dim, config.d_model, bias=config.bias)

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        hidden = self.up(x)
        if self.gated:
            gate, hidden = hidden.chunk(2, dim=-1)
            return self.down(self.activation(gate) * hidden)
        return self.down(self.activation(hidden))
