"""Three iterative algorithms as constructed weights of the library's looped transformer.

Each function returns a `LoopedTransformer` whose loops are the algorithm's steps. Attention is linear (the scores
themselves, no softmax); `seen` says for each token which tokens it reads.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from looped.config import ModelConfig
from looped.models import LoopedTransformer
from looped.nn.block import TransformerBlock


def gradient_descent(step: Float[Tensor, "dim dim"], examples: int, loops: int) -> LoopedTransformer:
    """Least squares in context by preconditioned gradient descent (Gatmiry et al., 2024).

    Tokens are (x_i, y_i) and last the query (x, 0), which no token reads. One loop adds to the y of every token
    -sum_j y_j x_j' A x_i / n, so that y_i becomes the residual y_i - w_t' x_i with
    w_{t+1} = w_t + A' X' (y - X w_t) / n, and the query's y becomes -w_t' x: the output is its negative.

    Args:
        step: A, the step size as a matrix; near the inverse covariance of x it converges fast.
        examples: n.
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
    """The inverse of a symmetric matrix S by X <- X + (X - X S X), in one layer with two heads (Giannou et al., 2024).

    Token j is (X e_j, S e_j, e_j). Head 1 sends X (S' X) = X S X with a minus sign, head 2 X (I I) = X. Start from
    X_0 = S / (|S|_1 |S|_inf); the output is X.
    """
    model = _linear(3 * dim, heads=2, d_head=dim, seq=dim, units=1, loops=loops, outputs=dim)
    with torch.no_grad():
        x, s, one = (torch.eye(3 * dim, dtype=torch.float64)[i * dim : (i + 1) * dim] for i in range(3))
        _heads(model, [(x, s, x, -x.T), (one, one, x, x.T)])
        _linear_map(model.head)[:] = x
    return model


def breadth_first(nodes: int, loops: int) -> LoopedTransformer:
    """Distances from the nodes marked in the input, one level a loop (graph heads: Back de Luca & Fountoulakis, 2024).

    A token is a node (reached, 0, 0) and reads its predecessors alone: `seen[i, j]` is True for an edge from j to i.
    The head sums `reached` over them, A' r, into tmp: three registers, four units, whatever the number of nodes.
    Outputs are reached and the loops before the node was reached: max(level - 1, 0), `loops` where never.
    """
    model = _linear(3, heads=1, d_head=1, seq=nodes, units=4, loops=loops, outputs=2, bias=True, inputs=1)
    reached, distance, tmp = torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        # Queries and keys are the constant 1, so that every edge has the score 1.
        attention = _block(model).attention
        attention.qkv.bias[:2] = 1
        attention.qkv.weight[2] = reached
        attention.project.weight[:, 0] = tmp
        feedforward = _block(model).feedforward
        feedforward.up.weight[:] = torch.stack([reached + tmp, reached + tmp, tmp, reached])
        feedforward.up.bias[1] = -1
        # reached <- min(reached + tmp, 1); the distance grows until then; tmp <- 0.
        feedforward.down.weight[:] = torch.stack([reached - distance, distance - reached, -tmp, -reached], dim=1)
        feedforward.down.bias[:] = distance
        _linear_map(model.embed)[:, 0] = reached
        _linear_map(model.head)[:] = torch.stack([reached, distance])
    return model


def query_unseen(batch: int, examples: int) -> Bool[Tensor, "batch seq"]:
    """The padding mask of `gradient_descent`: no token reads the query."""
    seen = torch.ones(batch, examples + 1, dtype=torch.bool)
    seen[:, -1] = False
    return seen


def newton_tokens(s: Float[Tensor, "dim dim"]) -> Float[Tensor, "1 dim registers"]:
    """The input of `newton_schulz` for a symmetric S."""
    start = s / (torch.linalg.matrix_norm(s, 1) * torch.linalg.matrix_norm(s, float("inf")))
    return torch.cat([start, s, torch.eye(len(s), dtype=s.dtype)]).T[None]


def _linear(
    width: int, *, heads: int, d_head: int, seq: int, units: int, loops: int, outputs: int, bias: bool = False,
    inputs: int | None = None,
) -> LoopedTransformer:  # fmt: skip
    """A float64 model of linear attention with all weights zero, but for an embedding that is the identity."""
    config = ModelConfig(
        inputs="vectors", input_dim=inputs or width, output_size=outputs, max_seq_len=seq, d_model=width,
        num_heads=heads, d_head=d_head, d_ff=units, num_loops=loops, attention="linear", activation="relu",
        norm="none", positions="none", bias=bias,
    )  # fmt: skip
    model = LoopedTransformer(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        if inputs is None:
            _linear_map(model.embed).copy_(torch.eye(width))
    return model


def _heads(model: LoopedTransformer, heads: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> None:
    """Weights (query, key, value, output) of every head; the library divides scores by sqrt(d_head)."""
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
