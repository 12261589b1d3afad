"""How the embedded input enters the state again in each loop."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from looped.config import ModelConfig
from looped.nn.protocols import Context, Injection


class NoInjection(nn.Module):
    """The loop starts from the embedded input, which does not enter again."""

    adds_positions = False

    def initial(self, embedded: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        return embedded

    def forward(
        self, state: Float[Tensor, "batch seq d_model"], context: Context
    ) -> Float[Tensor, "batch seq d_model"]:
        return state


class AddInput(NoInjection):
    """state + embedded input. The loop starts from zero, or from the embedded input."""

    def __init__(self, *, from_input: bool = False) -> None:
        super().__init__()
        self.from_input = from_input

    def initial(self, embedded: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        return embedded if self.from_input else torch.zeros_like(embedded)

    def forward(
        self, state: Float[Tensor, "batch seq d_model"], context: Context
    ) -> Float[Tensor, "batch seq d_model"]:
        assert context.embedded is not None
        return state + context.embedded


class ConcatInput(AddInput):
    """W [state, embedded input]. The loop starts as in AddInput. Geiping et al. (2025)."""

    def __init__(self, d_model: int, *, bias: bool = False, from_input: bool = False) -> None:
        super().__init__(from_input=from_input)
        self.linear = nn.Linear(2 * d_model, d_model, bias=bias)

    def forward(
        self, state: Float[Tensor, "batch seq d_model"], context: Context
    ) -> Float[Tensor, "batch seq d_model"]:
        assert context.embedded is not None
        return self.linear(torch.cat([state, context.embedded], dim=-1))


class StartBoth(NoInjection):
    """For `TwoStates`, which adds the embedded input by itself. Both states start from zero."""

    def initial(self, embedded: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq two_d_model"]:
        return torch.cat([torch.zeros_like(embedded)] * 2, dim=-1)


class StartAnswer(NoInjection):
    """For `TwoStates` without input injection. The answer starts from the embedded input, the other from zero."""

    def initial(self, embedded: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq two_d_model"]:
        return torch.cat([embedded, torch.zeros_like(embedded)], dim=-1)


class AddPositions(nn.Module):
    """The position embedding enters in every loop, after another injection. Dehghani et al. (2019)."""

    adds_positions = True

    def __init__(self, injection: Injection) -> None:
        super().__init__()
        self.injection = injection

    def initial(self, embedded: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        return self.injection.initial(embedded)

    def forward(
        self, state: Float[Tensor, "batch seq d_model"], context: Context
    ) -> Float[Tensor, "batch seq d_model"]:
        assert context.position_embedding is not None
        return self.injection(state, context) + context.position_embedding


def make_injection(config: ModelConfig) -> Injection:
    """The injection that a configuration names."""
    if config.inner_loops is not None:
        return StartBoth() if config.input_injection == "add" else StartAnswer()
    from_input = config.initial_state == "input"
    if config.input_injection == "add":
        injection: Injection = AddInput(from_input=from_input)
    elif config.input_injection == "concat":
        injection = ConcatInput(config.d_model, bias=config.bias, from_input=from_input)
    else:
        injection = NoInjection()
    return AddPositions(injection) if config.positions_every_loop else injection
