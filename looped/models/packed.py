"""A model for text generation on a CPU, with its weights in the layout that oneDNN multiplies fastest.

For each token all weights are read, and multiplied with a few rows. This takes most of the time. PyTorch multiplies
float32 with MKL, which reads weights at less than half the speed of the memory on AMD processors (docs/results.md).
"""

import copy
from typing import Any, TypeGuard

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.nn import functional as F

from looped.models.memory import memory_of

LEAST = 2**18
"""A smaller matrix stays as it is: the call would take longer than the product."""
PACKING_PAYS = 16
"""Tokens after which packed weights have saved the time to pack them."""
ROWS = 8
"""oneDNN's layout for so many rows was also the fastest for one row and for hundreds."""


class PackedLinear(nn.Module):
    """A linear layer in float32 with a second copy of its weights, in oneDNN's layout. It carries no gradient."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights and inputs, whose largest output of each row is nevertheless exact.

    Every output that could be the largest, given the largest possible error, is computed again in float32.
    """

    def __init__(self, linear: nn.Linear, outputs: int | None = None) -> None:
        """`outputs` keeps only so many of the outputs."""
        super().__init__()
        self.weight = linear.weight.detach()[:outputs]
        self.bias = None if linear.bias is None else linear.bias.detach()[:outputs]
        self.out_features = len(self.weight)
        parts = [(part, *_in_8_bits(part)) for part in self.weight.split(256)]  # small ones stay in the cache
        numbers, self.factors = (torch.cat([part[i] for part in parts]) for i in (1, 2))
        self.error = max((weight - n * f).norm(dim=-1).amax() for weight, n, f in parts)
        self.length = self.weight.norm(dim=-1).amax()
        self.packed = torch.ops.onednn.qlinear_prepack(numbers, [ROWS, linear.in_features])
        self.zeros = torch.zeros(self.out_features, dtype=torch.long)

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        rows = x.flatten(0, -2)
        numbers, factors = _in_8_bits(rows)
        unsigned = numbers.view(torch.uint8) + 128  # 128 stands for zero
        product = torch.ops.onednn.qlinear_pointwise(
            unsigned, 1.0, 128, self.packed, self.factors[:, 0], self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        outputs = product * factors
        if self.bias is not None:
            outputs += self.bias
        # |x'.w' - x.w| = |x'.(w' - w) + (x' - x).w| is at most the sum of the products of their lengths.
        close = numbers * factors
        error = close.norm(dim=-1) * self.error + (close - rows).norm(dim=-1) * self.length
        least = outputs.amax(-1) - 2.01 * error
        row, output = (outputs >= least[:, None]).nonzero(as_tuple=True)
        if len(row) > self.out_features // 8:  # to collect so many weights takes longer than to multiply with all
            many = row.bincount(minlength=len(rows)) > self.out_features // 8
            outputs[many] = F.linear(rows[many], self.weight, self.bias)
            row, output = row[~many[row]], output[~many[row]]
        exact = (self.weight[output] * rows[row]).sum(-1)
        outputs[row, output] = exact if self.bias is None else exact + self.bias[output]
        return outputs.view(*x.shape[:-1], -1)


def _in_8_bits(
    rows: Float[Tensor, "rows inputs"],
) -> tuple[Int8[Tensor, "rows inputs"], Float[Tensor, "rows 1"]]:
    """Whole numbers from -127 to 127, and the factor of each row: their product is close to `rows`."""
    factors = rows.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny * 127) / 127
    return (rows / factors).round().to(torch.int8), factors


def packed(model: Any, *, int8_head: bool = False, outputs: int | None = None) -> Any:
    """The model with packed copies of its large linear layers; everything else is shared with `model`.

    Layers with hooks and modules of other packages stay as they are. The model stays whole if its layers are not in
    float32 on a CPU, under autocast, and if memory is short.

    Args:
        int8_head: pack the head as an `Int8Linear`.
        outputs: how many outputs an int8 head keeps; None is all.
    """
    if 2 * sum(p.nbytes for p in model.parameters()) > memory_of(torch.device("cpu")):
        return model
    int8 = int8_head and packable(model.head) and model.head.weight.numel() >= LEAST
    return _view(model, {model.head: Int8Linear(model.head, outputs)} if int8 else {})


def packable(module: Any) -> TypeGuard[nn.Linear]:
    """Whether a layer can be packed, if it is large enough."""
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
    if packable(module) and module.weight.numel() >= LEAST:
        view = PackedLinear(module)
    elif type(module).__module__.partition(".")[0] in (__name__.partition(".")[0], "torch"):
        children = {name: child and _view(child, known) for name, child in module._modules.items()}
        if any(child is not module._modules[name] for name, child in children.items()):
            view = copy.copy(module)
            view._modules = children
    known[module] = view
    return view
