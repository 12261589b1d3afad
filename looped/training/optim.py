"""The optimiser and the moving average of the weights."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from looped.config import OptimConfig

LAYERS = ("prelude.", "core.", "coda.")


def _without_compiler(kind: type[torch.optim.Optimizer]) -> Any:
    """The optimiser, but two methods do not load torch's compiler (100 MB), which they do to stay out of its way."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "step")}
    return type(kind.__name__, (kind,), methods | {"step": torch.no_grad()(methods["step"])})


AdamW = _without_compiler(torch.optim.AdamW)


class Muon(_without_compiler(torch.optim.Muon)):
    """Muon, whose weights and momentum may be sharded.

    An update depends on the whole matrix. Each device gathers it in bf16, in which it is orthogonalised, and computes
    the same. Sharded products would add parts that were rounded to bf16, and updates would be 1% off.
    """

    def _init_group(self, group: Any, weights: list[Tensor], gradients: list[Tensor], momenta: list[Tensor]) -> bool:
        is_complex = super()._init_group(group, weights, gradients, momenta)
        for i, (gradient, momentum) in enumerate(zip(gradients, momenta, strict=True)):
            if hasattr(gradient, "full_tensor"):
                from torch.distributed.tensor import Replicate

                momentum.lerp_(gradient, 1 - group["momentum"])
                update: Any = gradient.lerp(momentum, group["momentum"]).bfloat16()
                # What follows in `step` is the mean of both, and then a product of whole matrices.
                gradients[i] = momenta[i] = update.redistribute(placements=[Replicate()])
        return is_complex


def make_optimizers(model: nn.Module, config: OptimConfig) -> list[torch.optim.Optimizer]:
    """The optimisers, which share the parameters among them. Tied weights count once.

    AdamW has weight decay on the parameters that `config.decay` selects. With optimizer=muon, Muon (Jordan et al.,
    2024) updates the matrices of the layers, and its updates are scaled to the size of AdamW's (Liu et al., 2025).
    """
    orthogonalised, decayed, plain = [], [], []
    for name, parameter in model.named_parameters():
        matrices = config.decay == "matrices"
        chosen = parameter.ndim >= 2 if matrices else not name.endswith("bias")
        if config.optimizer == "muon" and parameter.ndim == 2 and name.startswith(LAYERS):
            orthogonalised.append(parameter)
        else:
            (decayed if chosen else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    adamw = AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    if not orthogonalised:
        return [adamw]
    rate, decay = config.learning_rate, config.weight_decay
    each = [{"params": [matrix]} for matrix in orthogonalised]  # updated one by one, because whole matrices are large
    return [adamw, Muon(each, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")]


class WeightAverage:
    """Exponential moving average of a model's weights: average <- decay * average + (1 - decay) * weights."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        for name, weight in self.model.named_parameters():
            self.weights[name].lerp_(weight, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside this context the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self.model.named_parameters():
            kept = weight.clone()
            weight.copy_(self.weights[name])
            self.weights[name].copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.weights)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(state[name])
