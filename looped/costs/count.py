"""Costs of a model from its configuration alone: weights and floating-point operations."""

from typing import Literal

from looped.config import ModelConfig, RunConfig
from looped.nn.layer_names import ENCODING_WIDTH, LAYER_NAMES


def _sizes(config: ModelConfig) -> tuple[int, int, int]:
    inputs = config.vocab_size if config.inputs == "tokens" else config.input_dim
    outputs, seq = config.output_size, config.max_seq_len
    if inputs is None or outputs is None or seq is None:
        raise ValueError("vocab_size, input_dim, output_size, max_seq_len: expected sizes; the cost depends on them")
    return inputs, outputs, seq


def parameters(config: ModelConfig) -> int:
    """Number of trained weights. Shared weights count once.

    Raises:
        ValueError: a size in the configuration is None.
    """
    return embedding_parameters(config) + non_embedding_parameters(config)


def embedding_parameters(config: ModelConfig) -> int:
    """Number of weights of the token embedding, the learned positions and an untied output matrix."""
    inputs, outputs, seq = _sizes(config)
    d, bias = config.d_model, config.bias
    count = inputs * d + d * (bias and config.inputs == "vectors")
    count += seq * d * (config.positions == "learned")
    return count + (0 if config.tie_embeddings else d * outputs + outputs * bias)


def non_embedding_parameters(config: ModelConfig) -> int:
    """Number of weights of the layers, norms, injection, modulation and halting; independent of num_loops."""
    _sizes(config)
    c, d = config, config.d_model
    layer = _norm(c, c.norm, c.norm_gain) * (1 + c.feedforward_norm)
    inner, of_graphs = c.num_heads * c.head_dim, len(c.graph_heads) * c.head_dim
    up = (2 if c.activation == "swiglu" else 1) * c.ff_dim
    for inputs, outputs in [(d, 3 * inner), (inner + of_graphs, d), (d, up), (c.ff_dim, d), (d, of_graphs)]:
        layer += inputs * outputs + outputs * c.bias
    count = layer * (c.prelude_layers + c.core_layers + c.coda_layers)
    count += _norm(c, c.last_norm, gain=True) + 2 * d * c.embedding_norm
    count += (2 * d * d + d * c.bias) * (c.input_injection == "concat")
    count += (d + 1) * (c.halting != "none")
    rows = c.core_layers * len(LAYER_NAMES[c.modulation])
    if c.modulation in ("scale_gate", "adaln_zero"):
        width = ENCODING_WIDTH * (2 if c.timestep == "both" else 1)
        count += (width + 1) * d + (d + 1) * d + (d + 1) * rows * d
    elif c.modulation == "table":
        count += (c.max_loops or 0) * rows * d
    elif c.modulation == "rezero":
        count += rows
    return count


def _norm(config: ModelConfig, kind: Literal["rms", "layer", "none"], gain: bool) -> int:
    """Number of weights of a norm (see `looped.nn.norms`)."""
    biased = kind == "layer" and config.bias
    return config.d_model * (1 + biased) if gain and kind != "none" else 0


def effective_depth(config: ModelConfig, num_loops: int | None = None) -> int:
    """Number of layers that an input passes through: prelude + core * num_loops + coda."""
    loops = config.num_loops if num_loops is None else num_loops
    return config.prelude_layers + config.core_layers * loops + config.coda_layers


def flops(config: ModelConfig, seq_len: int, num_loops: int | None = None, loop_logits: int = 1) -> int:
    """Floating-point operations of the matrix products of one forward pass over one sequence of `seq_len` positions.

    A multiply-add counts as two. Attention counts all pairs of positions, also for causal models. The modulation counts
    in full, although a batch shares it. No early exits are assumed. Divide by seq_len for FLOPs per token.

    Args:
        loop_logits: number of loops with logits. Each needs the coda and the output matrix.

    Raises:
        ValueError: a size in the configuration is None.
    """
    inputs, outputs, _ = _sizes(config)
    loops = config.num_loops if num_loops is None else num_loops
    d, ff = config.d_model, config.ff_dim
    inner = config.num_heads * config.head_dim
    layer = 4 * d * inner + (3 if config.activation == "swiglu" else 2) * d * ff + 2 * seq_len * inner
    layer += len(config.graph_heads) * config.head_dim * (2 * d + seq_len)
    token = layer * effective_depth(config, loops) + d * outputs
    token += (loop_logits - 1) * (layer * config.coda_layers + d * outputs)
    token += inputs * d if config.inputs == "vectors" else 0
    token += 2 * d * d * loops if config.input_injection == "concat" else 0
    if config.cache == "first":  # later loops have no keys and values of their own
        token -= 2 * d * inner * config.core_layers * max(loops - (config.cache_loops or 1), 0)
    token += d * loops * (config.halting == "act")
    modulation = 0
    if config.modulation in ("scale_gate", "adaln_zero"):
        width = ENCODING_WIDTH * (2 if config.timestep == "both" else 1)
        vectors = config.core_layers * len(LAYER_NAMES[config.modulation])
        modulation = loops * (width * d + d * d + d * vectors * d)
    return 2 * (token * seq_len + modulation)


def training_flops(config: ModelConfig, seq_len: int, num_loops: int, num_grad_loops: int, loop_logits: int = 1) -> int:
    """FLOPs of a training step for one sequence: the forward pass, and twice the loops with gradient for backward.

    Recomputation does not count, because these are the operations that a step needs.
    """
    return flops(config, seq_len, num_loops, loop_logits) + 2 * flops(config, seq_len, num_grad_loops, loop_logits)


def logits_in_training(run: RunConfig, num_loops: int) -> int:
    """Number of loops, among `num_loops`, after which a training step computes logits."""
    every = run.train.loss in ("all", "task", "steps") or run.model.halting == "gate"
    return num_loops if every else run.train.loss_window or 1
