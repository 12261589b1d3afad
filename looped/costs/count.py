"""Costs of a model from its configuration alone: weights and floating-point operations."""

from typing import Literal, NamedTuple

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
    width = config.embedding_width
    count = inputs * width + width * (config.bias and config.inputs == "vectors")
    count += seq * width * (config.positions == "learned")
    return count + (not config.tie_embeddings) * width * outputs + outputs * config.output_biased


def non_embedding_parameters(config: ModelConfig) -> int:
    """Number of weights of the layers, norms, injection, modulation and halting; independent of num_loops."""
    _sizes(config)
    c, d = config, config.d_model
    count = (c.prelude_layers + c.coda_layers) * layer_parameters(c) + core_parameters(c)
    count += _norm(c, c.last_norm, c.last_gain, c.embedding_width) + 2 * c.embedding_width * c.embedding_norm
    if c.embedding_dim is not None:
        count += 2 * d * c.embedding_dim + (d + c.embedding_dim) * c.bias
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


def layer_parameters(config: ModelConfig) -> int:
    """Number of weights of a prelude or coda layer."""
    return sum(map(sum, _sublayers(config)))


def core_parameters(config: ModelConfig) -> int:
    """Number of weights of the layers in the loop."""
    c, (attention, feedforward) = config, _sublayers(config)
    attention_copies = c.num_loops if c.core_tied == "feedforward" else 1
    feedforward_copies = c.num_loops if c.core_tied == "attention" else 1
    core = attention_copies * sum(attention) + feedforward_copies * sum(feedforward)
    if c.lora_rank:
        core += (c.num_loops - 1) * (attention[1] + feedforward[1])
        core += c.num_loops * sum(rank * (inputs + outputs) for inputs, outputs, rank in _changes(c))
    return (c.core_layers + c.latent_layers) * core


def _sublayers(config: ModelConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """The weights of attention and of the feed-forward layer: in matrices, and others."""
    attention = _matrices(_attention(config)), _others(config, _attention(config)) + _qk_norm(config)
    others = _others(config, _feedforward(config), config.feedforward_norm)
    return attention, (_matrices(_feedforward(config)), others)


class Matrix(NamedTuple):
    """A linear layer, perhaps of several parts that are fused."""

    inputs: int
    parts: tuple[int, ...]
    """Outputs of each part."""
    bias: bool


Matrices = list[Matrix]


def _attention(config: ModelConfig) -> Matrices:
    d, width, bias = config.d_model, config.head_dim, config.bias
    inner, keys, of_graphs = config.num_heads * width, config.kv_heads * width, len(config.graph_heads) * width
    found = [
        Matrix(d, (inner, keys, keys), config.qkv_biased),
        Matrix(d, (of_graphs,), bias),
        Matrix(inner + of_graphs, (d,), bias),
    ]
    return [*found, Matrix(d, (inner,), bias)] if config.gated_attention else found


def _feedforward(config: ModelConfig) -> Matrices:
    hidden = (config.ff_dim,) * (2 if config.activation == "swiglu" else 1)
    return [Matrix(config.d_model, hidden, config.bias), Matrix(config.ff_dim, (config.d_model,), config.bias)]


def _matrices(matrices: Matrices) -> int:
    return sum(matrix.inputs * sum(matrix.parts) for matrix in matrices)


def _others(config: ModelConfig, matrices: Matrices, normed: bool = True) -> int:
    """Number of weights of a sublayer's norm and biases."""
    biases = sum(sum(matrix.parts) for matrix in matrices if matrix.bias)
    return (1 + ("_" in config.norm_place)) * normed * _norm(config, config.norm, config.norm_gain) + biases


def _qk_norm(config: ModelConfig) -> int:
    """Number of weights of the norms of queries and keys."""
    heads = {"none": 0, "head": 2, "full": config.num_heads + config.kv_heads}[config.qk_norm]
    return heads * config.head_dim


def _changes(config: ModelConfig) -> list[tuple[int, int, int]]:
    """The low-rank changes of a core layer in one loop: inputs, outputs, rank."""
    matrices = _attention(config) + _feedforward(config)
    return [(m.inputs, outputs, min(config.lora_rank, m.inputs, outputs)) for m in matrices for outputs in m.parts]


def _norm(config: ModelConfig, kind: Literal["rms", "layer", "none"], gain: bool, width: int | None = None) -> int:
    """Number of weights of a norm (see `looped.nn.norms`)."""
    biased = kind == "layer" and config.bias
    return (width or config.d_model) * (1 + biased) if gain and kind != "none" else 0


def effective_depth(config: ModelConfig, num_loops: int | None = None) -> int:
    """Number of layers that an input passes through: prelude + core * num_loops + coda.

    With `inner_loops` the core counts once for each update of one of its two states.
    """
    loops = config.num_loops if num_loops is None else num_loops
    return config.prelude_layers + config.core_depth * loops + config.coda_layers


def flops(config: ModelConfig, seq_len: int, num_loops: int | None = None, loop_logits: int = 1) -> int:
    """Floating-point operations of the matrix products of one forward pass over one sequence of `seq_len` positions.

    A multiply-add counts as two. Attention counts all pairs of positions, also for causal models. The modulation and
    low-rank changes count in full, although a batch shares them. No early exits are assumed. Divide by seq_len for
    FLOPs per token.

    Args:
        loop_logits: number of loops with logits. Each needs the coda and the output matrix.

    Raises:
        ValueError: a size in the configuration is None.
    """
    inputs, outputs, _ = _sizes(config)
    loops = config.num_loops if num_loops is None else num_loops
    d, width = config.d_model, config.embedding_width
    inner, keys = config.num_heads * config.head_dim, config.kv_heads * config.head_dim
    layer = _matrices(_attention(config)) + _matrices(_feedforward(config)) + 2 * seq_len * inner
    layer += len(config.graph_heads) * config.head_dim * seq_len
    narrowing = 0 if config.embedding_dim is None else d * width
    output = narrowing + width * outputs
    token = narrowing + layer * effective_depth(config, loops) + output
    token += (loop_logits - 1) * (layer * config.coda_layers + output)
    token += inputs * width if config.inputs == "vectors" else 0
    token += 2 * d * d * loops if config.input_injection == "concat" else 0
    if config.cache == "first":  # later loops have no keys and values of their own
        token -= 2 * d * keys * config.core_layers * max(loops - (config.cache_loops or 1), 0)
    token += d * loops * (config.halting == "act")
    modulation = 0
    if config.modulation in ("scale_gate", "adaln_zero"):
        width = ENCODING_WIDTH * (2 if config.timestep == "both" else 1)
        vectors = config.core_layers * len(LAYER_NAMES[config.modulation])
        modulation = loops * (width * d + d * d + d * vectors * d)
    changes = loops * config.core_depth * sum(inputs * outputs * rank for inputs, outputs, rank in _changes(config))
    return 2 * (token * seq_len + modulation + changes)


def training_flops(config: ModelConfig, seq_len: int, num_loops: int, num_grad_loops: int, loop_logits: int = 1) -> int:
    """FLOPs of a training step for one sequence: the forward pass, and twice the loops with gradient for backward.

    Recomputation does not count, because these are the operations that a step needs.
    """
    return flops(config, seq_len, num_loops, loop_logits) + 2 * flops(config, seq_len, num_grad_loops, loop_logits)


def loops_with_gradient(run: RunConfig) -> int:
    """Number of loops through which a training step takes the gradient, at the most loops of the schedule."""
    if run.train.gradient != "unroll":
        return (run.train.gradient_terms or 1) if run.train.gradient == "phantom" else 2
    return min(run.most_loops, run.schedule.num_grad_loops or run.most_loops)


def logits_in_training(run: RunConfig, num_loops: int) -> int:
    """Number of loops, among `num_loops`, after which a training step computes logits."""
    every = run.train.loss in ("all", "task", "steps") or run.model.halting == "gate"
    return num_loops if every else run.train.loss_window or 1
