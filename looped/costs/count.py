"""What a model costs, from its configuration alone. Tested against the built model and torch's own counter."""

from looped.config import ModelConfig
from looped.nn.modulation import ENCODING_WIDTH, LAYER_NAMES


def _sizes(config: ModelConfig) -> tuple[int, int, int]:
    inputs = config.vocab_size if config.inputs == "tokens" else config.input_dim
    outputs, seq = config.output_size, config.max_seq_len
    if inputs is None or outputs is None or seq is None:
        raise ValueError("vocab_size, input_dim, output_size, max_seq_len: expected sizes; the cost depends on them")
    return inputs, outputs, seq


def _linear(inputs: int, outputs: int, bias: bool) -> int:
    return inputs * outputs + outputs * bias


def _norm(kind: str, width: int, gain: bool, bias: bool) -> int:
    return 0 if kind == "none" or not gain else width * (1 + (kind == "layer" and bias))


def embedding_parameters(config: ModelConfig) -> int:
    """Weights of the token embedding, the learned positions and an untied output matrix."""
    inputs, outputs, seq = _sizes(config)
    d = config.d_model
    count = _linear(inputs, d, config.bias and config.inputs == "vectors")
    count += seq * d * (config.positions == "learned")
    return count + (0 if config.tie_embeddings else _linear(d, outputs, config.bias))


def parameters(config: ModelConfig) -> int:
    """All trained weights; shared ones count once."""
    return embedding_parameters(config) + non_embedding_parameters(config)


def non_embedding_parameters(config: ModelConfig) -> int:
    """Weights of the layers, norms, injection, modulation and halting; they do not grow with num_loops."""
    d, bias = config.d_model, config.bias
    up = config.ff_dim * (2 if config.activation == "swiglu" else 1)
    inner = config.num_heads * config.head_dim
    layer = (
        _linear(d, 3 * inner, bias) + _linear(inner, d, bias) + _linear(d, up, bias) + _linear(config.ff_dim, d, bias)
    )
    layer += _norm(config.norm, d, config.norm_gain, bias) * (1 + config.feedforward_norm)
    count = layer * (config.prelude_layers + config.core_layers + config.coda_layers)
    count += _norm(config.final_norm or config.norm, d, True, bias) + 2 * d * config.embedding_norm
    count += _linear(2 * d, d, bias) if config.input_injection == "concat" else 0
    count += _linear(d, 1, True) * (config.halting != "none")
    signals = config.core_layers * len(LAYER_NAMES[config.modulation])
    if config.modulation in ("scale_gate", "adaln_zero"):
        width = ENCODING_WIDTH * (2 if config.timestep == "both" else 1)
        count += _linear(width, d, True) + _linear(d, d, True) + _linear(d, signals * d, True)
    elif config.modulation == "table":
        count += (config.max_loops or 0) * signals * d
    elif config.modulation == "rezero":
        count += signals
    return count


def effective_depth(config: ModelConfig, num_loops: int | None = None) -> int:
    """Layers that an input passes through."""
    loops = config.num_loops if num_loops is None else num_loops
    return config.prelude_layers + config.core_layers * loops + config.coda_layers


def flops(config: ModelConfig, seq_len: int, num_loops: int | None = None, loop_logits: int = 1) -> int:
    """Floating-point operations of the matrix products of one forward pass over one sequence.

    Two for each multiply-add; attention counts all pairs of positions, causal or not; the modulation counts
    in full, although a batch shares it. No token leaves early. Divide by seq_len for FLOPs per token.

    Args:
        loop_logits: how many loops are read out; each passes through the coda and the output matrix.
    """
    inputs, outputs, _ = _sizes(config)
    loops = config.num_loops if num_loops is None else num_loops
    d, ff = config.d_model, config.ff_dim
    inner = config.num_heads * config.head_dim
    layer = 4 * d * inner + (3 if config.activation == "swiglu" else 2) * d * ff + 2 * seq_len * inner
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
        signals = config.core_layers * len(LAYER_NAMES[config.modulation])
        modulation = loops * (width * d + d * d + d * signals * d)
    return 2 * (token * seq_len + modulation)


def training_flops(config: ModelConfig, seq_len: int, num_loops: int, num_grad_loops: int, loop_logits: int = 1) -> int:
    """FLOPs of a training step for one sequence: forward, and twice the loops with gradient for backward.

    What recomputation does again does not count: this is the work that the step needs, not what it does.
    """
    return flops(config, seq_len, num_loops, loop_logits) + 2 * flops(config, seq_len, num_grad_loops, loop_logits)
