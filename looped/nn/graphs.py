"""Graphs that all inputs share, such as the rows, columns and boxes of a board."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class SharedGraph(nn.Module):
    """Multiplies values by a matrix that does not depend on the input.

    If the matrix tells which positions are in one group, and all groups have one size, each group is summed once. This
    takes `seq` additions for each value instead of `seq**2` multiplications.
    """

    def __init__(self, matrix: Float[Tensor, "seq seq"]) -> None:
        super().__init__()
        self.seq = len(matrix)
        groups, group_of, sizes = torch.unique(matrix, dim=0, return_inverse=True, return_counts=True)
        alike = (group_of[:, None] == group_of).to(matrix.dtype)
        self.grouped = bool((sizes == sizes[0]).all()) and torch.equal(matrix, alike)
        if self.grouped:
            members = group_of.argsort(stable=True)
            self.register_buffer("members", members.view(len(groups), -1), persistent=False)
            self.register_buffer("place", members.argsort(), persistent=False)
        else:
            self.register_buffer("matrix", matrix, persistent=False)
        self.matrix: Tensor
        self.members: Tensor
        self.place: Tensor

    def forward(self, values: Float[Tensor, "batch seq width"]) -> Float[Tensor, "batch seq width"]:
        """matrix @ values."""
        if self.grouped:
            return _GroupSums.apply(values, self.members, self.place)  # type: ignore[no-any-return]
        return self.matrix.to(values.dtype) @ values


class _GroupSums(torch.autograd.Function):
    """The sum over a position's group, at each position. The matrix is symmetric, so its gradient is the same sums."""

    @staticmethod
    def forward(
        values: Float[Tensor, "batch seq width"], members: Int[Tensor, "groups size"], place: Int[Tensor, " seq"]
    ) -> Float[Tensor, "batch seq width"]:
        ordered = values.index_select(1, members.flatten()).unflatten(1, members.shape)
        return ordered.sum(2, keepdim=True).expand_as(ordered).flatten(1, 2).index_select(1, place)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _GroupSums.apply(gradient, *ctx.saved_tensors), None, None  # type: ignore[return-value]
