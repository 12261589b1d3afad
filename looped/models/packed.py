"""A model for text generation on a CPU, with its weights in the layout that oneDNN multiplies fastest.

For each token all weights are read, and multiplied with a few rows. This takes most of the time. PyTorch multiplies
float32 with MKL, which reads weights at less than half the speed of the memory on AMD processors (docs/results.md).
"""

import copy
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from looped.models.memory import memory_of
from looped.strict import check

OutputWeights = Literal["exact", "int8"]
LEAST = 2**18
"""A smaller matrix stays as it is: the call would take longer than the product."""
ROWS = 8
"""oneDNN's layout for so many rows was also the fastest for one row and for hundreds."""
RESCORED = 16


class PackedLinear(nn.Module):
    """A linear layer in float32 with a second copy of its weights, in oneDNN's layout. It carries no gradient."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias, self.out_features = linear.weight, linear.bias, linear.out_features
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Int8Linear(nn.Module):
    """A linear layer with whole numbers from -127 to 127 for weights and inputs, and one factor for each row of both.

    The `RESCORED` largest outputs of each row are then computed again from the float32 weights.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias, self.out_features = linear.weight, linear.bias, linear.out_features
        # In parts that stay in the processor's cache: a tenth of the time.
        parts = zip(*map(_in_8_bits, linear.weight.detach().split(512)), strict=True)
        numbers, self.factors = map(torch.cat, parts)
        self.packed = torch.ops.onednn.qlinear_prepack(numbers, [ROWS, linear.in_features])
        self.zeros = torch.zeros(linear.out_features, dtype=torch.long)

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        rows = x.flatten(0, -2)
        numbers, factors = _in_8_bits(rows)
        numbers = numbers.view(torch.uint8) + 128  # without a sign; 128 stands for zero
        product = torch.ops.onednn.qlinear_pointwise(
            numbers, 1.0, 128, self.packed, self.factors[:, 0], self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        outputs = product * factors
        if self.bias is not None:
            outputs += self.bias
        best = outputs.topk(min(RESCORED, self.out_features), sorted=False).indices
        exact = (self.weight[best] @ rows[..., None])[..., 0]
        outputs.scatter_(1, best, exact if self.bias is None else exact + self.bias[best])
        return outputs.view(*x.shape[:-1], -1)


def _in_8_bits(
    rows: Float[Tensor, "rows inputs"],
) -> tuple[Int8[Tensor, "rows inputs"], Float[Tensor, "rows 1"]]:
    """Whole numbers from -127 to 127, and the factor of each row: their product is close to `rows`."""
    factors = rows.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny * 127) / 127
    return (rows / factors).round().to(torch.int8), factors


def packed(model: Any, output_weights: OutputWeights = "exact") -> Any:
    """The model with packed copies of its large linear layers; everything else is shared with `model`.

    Layers with hooks and modules of other packages stay as they are. The model stays whole if its layers are not in
    float32 on a CPU, under autocast, and if memory is short.

    Args:
        output_weights: exact, or the head as an `Int8Linear`.

    Raises:
        ValueError: another value, or int8 for a head that cannot have it.
    """
    check(output_weights in get_args(OutputWeights), "output_weights", output_weights, "exact or int8")
    head = model.head
    if output_weights == "int8" and not _packable(head):
        raise ValueError("output_weights='int8': expected a linear head in float32, on a CPU with oneDNN, no autocast")
    if 2 * sum(p.nbytes for p in model.parameters()) > memory_of(torch.device("cpu")):
        return model
    return _view(model, {head: Int8Linear(head)} if output_weights == "int8" else {})


def _packable(module: nn.Module) -> bool:
    return (
        type(module) is nn.Linear
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
        and not (module._forward_hooks or module._forward_pre_hooks)
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )


def _view(module: nn.Module, known: dict[nn.Module, nn.Module]) -> nn.Module:
    """The module with packed layers, or itself if it has none; `known` are those made already."""
    if module in known:
        return known[module]
    view = module
    if _packable(module) and module.weight.numel() >= LEAST:
        view = PackedLinear(module)
    elif type(module).__module__.partition(".")[0] in ("looped", "torch"):
        children = {name: child and _view(child, known) for name, child in module._modules.items()}
        if any(child is not module._modules[name] for name, child in children.items()):
            view = copy.copy(module)
            view._modules = children
    known[module] = view
    return view
