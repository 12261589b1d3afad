"""The numbers that a backward pass needs, from the configuration alone: computed in bf16 with a fused attention.

Autocast keeps the state and the norms in 32 bits and everything else in 16. `looped.costs.simulate` finds the same by
running a step on tensors without values, which takes seconds and needs the model.
"""

import math
from typing import TYPE_CHECKING

from looped.config import ModelConfig, RunConfig
from looped.costs.count import logits_in_training, loops_with_gradient

if TYPE_CHECKING:
    from looped.models.iteration import Recompute

STATE, HALF = 4, 2
"""Bytes of a number in the state and in a norm, and in all others."""
LOGIT = 10
"""Bytes of a logit in the loss: in 16 bits, and twice in 32."""


def layer_activations(config: ModelConfig) -> int:
    """Bytes of a layer at one position of a sequence."""
    d, inner, keys = config.d_model, config.num_heads * config.head_dim, config.kv_heads * config.head_dim
    scaled = config.modulation in ("scale_gate", "adaln_zero", "table")
    gated = scaled or config.modulation == "rezero"
    norms = {"rms": STATE * (1 + config.norm_gain), "layer": STATE, "none": 0}[config.norm]
    norms *= 2 if "_" in config.norm_place else 1
    sublayer = (norms + HALF + STATE * scaled + HALF * gated) * d  # with the input of the first matrix
    attention = HALF * (2 * inner + 2 * keys)  # queries, keys, values and the output
    attention += 2 * HALF * inner * config.gated_attention
    attention += 2 * STATE * (inner + keys) * (config.qk_norm != "none")
    attention += 2 * HALF * len(config.graph_heads) * config.head_dim
    if config.attention != "softmax":
        attention += 2 * HALF * config.num_heads * (config.max_seq_len or 0)
    numbers = {"swiglu": 4, "relu": 1}.get(config.activation, 2)
    return 2 * sublayer + attention + HALF * numbers * config.ff_dim


def activations(run: RunConfig, seq_len: int, recompute: "Recompute") -> int:
    """Bytes of one example of `seq_len` positions at the peak of a step."""
    config = run.model
    loops = loops_with_gradient(run)
    layer, state = layer_activations(config), STATE * config.d_model
    core = config.core_depth * layer + 2 * HALF * config.d_model * (config.input_injection == "concat")
    states = {"none": 0, "loop": loops, "nested": sum(segments(loops))}[recompute]
    read = logits_in_training(run, loops)
    decoding = read * (config.coda_layers * layer + LOGIT * (config.output_size or 1) + 10 * config.embedding_width)
    # A loop is computed again when the logits have been freed.
    kept = loops * core + decoding if recompute == "none" else states * state + max(core, decoding)
    return seq_len * (config.prelude_layers * layer + kept)


def segments(loops: int) -> tuple[int, int]:
    """The loops of a segment, and the number of segments, with recompute=nested (`looped.models.iteration`)."""
    size = math.isqrt(loops - 1) + 1
    return size, -(-loops // size)


def repeated_loops(loops: int, recompute: "Recompute") -> int:
    """Forward passes through loops that the backward pass repeats. The state after a segment is known."""
    return {"none": 0, "loop": loops, "nested": 2 * loops - segments(loops)[1]}[recompute]
