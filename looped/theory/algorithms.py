"""Two iterative algorithms as looped transformers with constructed weights.

Each function returns a `LoopedTransformer` in which one loop is one step of the algorithm. Attention is linear: the
scores are used without a softmax. The model's `attention_mask` selects the tokens that each token attends to.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from looped.config import ModelConfig
from looped.models import LoopedTransformer
from looped.nn.block import TransformerBlock


def gradient_descent(step: Float[Tensor, "dim dim"], examples: int, loops: int) -> LoopedTransformer:
    """In-context least squares by preconditioned gradient descent (Gatmiry et al., 2024).

    The n examples are tokens (x_i, y_i). The last token is the query (x, 0); no token attends to it (`query_mask`).
    Each loop adds -sum_j y_j x_j' A x_i / n to the y of token i. After t loops, y_i is the residual y_i - w_t' x_i,
    where w_{t+1} = w_t + A' X' (y - X w_t) / n. The query's y is then -w_t' x, and the output is its negative.

    Args:
        step: (dim, dim) A, the step size as a matrix. Convergence is fast if A is near the inverse covariance of x.
        examples: n.
        loops: number of gradient steps.

    Returns:
        A float64 model from (batch, n + 1, dim + 1) to (batch, n + 1, 1); the last token's output is the prediction.
    """
    dim = len(step)
    model = _linear(dim + 1, heads=1, d_head=dim + 1, seq=examples + 1, units=1, loops=loops, outputs=1)
    with torch.no_grad():
        query = torch.zeros(dim + 1, dim + 1, dtype=torch.float64)
        query[:dim, :dim] = -step
        value = torch.zeros_like(query)
        value[dim, dim] = 1 / examples
        _heads(
            model, [(query, torch.eye(dim + 1, dtype=torch.float64), value, torch.eye(dim + 1, dtype=torch.float64))]
        )
        _linear_map(model.head)[0, dim] = -1
    return model


def newton_schulz(dim: int, loops: int) -> LoopedTransformer:
    """The inverse of a symmetric matrix S by Newton-Schulz steps (Giannou et al., 2024), in one layer with two heads.

    A step is X <- X + (X - X S X). Token j is (X e_j, S e_j, e_j). Head 1 adds -X (S' X) = -X S X, head 2 adds
    X (I I) = X. The input (see `newton_tokens`) starts from X_0 = S / (|S|_1 |S|_inf).

    Returns:
        A float64 model from (batch, dim, 3 dim) to (batch, dim, dim); token j's output is column j of X.
    """
    model = _linear(3 * dim, heads=2, d_head=dim, seq=dim, units=1, loops=loops, outputs=dim)
    with torch.no_grad():
        x, s, one = (torch.eye(3 * dim, dtype=torch.float64)[i * dim : (i + 1) * dim] for i in range(3))
        _heads(model, [(x, s, x, -x.T), (one, one, x, x.T)])
        _linear_map(model.head)[:] = x
    return model


def query_mask(batch: int, examples: int) -> Bool[Tensor, "batch seq"]:
    """The attention mask of `gradient_descent`, (batch, examples + 1): no token attends to the query."""
    mask = torch.ones(batch, examples + 1, dtype=torch.bool)
    mask[:, -1] = False
    return mask


def newton_tokens(s: Float[Tensor, "dim dim"]) -> Float[Tensor, "1 dim registers"]:
    """The input (1, dim, 3 dim) of `newton_schulz` for a symmetric S (dim, dim)."""
    start = s / (torch.linalg.matrix_norm(s, 1) * torch.linalg.matrix_norm(s, float("inf")))
    return torch.cat([start, s, torch.eye(len(s), dtype=s.dtype)]).T[None]


def _linear(
    width: int, *, heads: int, d_head: int, seq: int, units: int, loops: int, outputs: int
) -> LoopedTransformer:
    """A float64 model with linear attention and zero weights, whose embedding is the identity."""
    config = ModelConfig(
        inputs="vectors", input_dim=width, output_size=outputs, max_seq_len=seq, d_model=width, num_heads=heads,
        d_head=d_head, d_ff=units, num_loops=loops, attention="linear", activation="relu", norm="none",
        positions="none", bias=False,
    )  # fmt: skip
    model = LoopedTransformer(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        _linear_map(model.embed).copy_(torch.eye(width))
    return model


def _heads(model: LoopedTransformer, heads: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> None:
    """Set the weights (query, key, value, output) of every head; undo the library's division by sqrt(d_head)."""
    attention = _block(model).attention
    scale = model.config.head_dim**0.5
    queries, keys, values, outputs = zip(*heads, strict=True)
    attention.qkv.weight.copy_(torch.cat([*(q * scale for q in queries), *keys, *values]))
    attention.project.weight.copy_(torch.cat(outputs, dim=1))


def _block(model: LoopedTransformer) -> TransformerBlock:
    block = model.core[0]
    assert isinstance(block, TransformerBlock)
    return block


def _linear_map(module: torch.nn.Module) -> Tensor:
    assert isinstance(module, torch.nn.Linear)
    return module.weight
