"""Costs of a model from its configuration alone: weights and floating-point operations."""

import functools
import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

from looped.config import ModelConfig, RunConfig
from looped.models.looped_model import LoopedModel
from looped.models.transformer import LoopedTransformer
from looped.nn.modulation import ENCODING_WIDTH, LAYER_NAMES


def _sizes(config: ModelConfig) -> tuple[int, int, int]:
    inputs = config.vocab_size if config.inputs == "tokens" else config.input_dim
    outputs, seq = config.output_size, config.max_seq_len
    if inputs is None or outputs is None or seq is None:
        raise ValueError("vocab_size, input_dim, output_size, max_seq_len: expected sizes; the cost depends on them")
    return inputs, outputs, seq


class WithoutValues(TorchFunctionMode):
    """Skips random initialisation, because meta tensors hold no values and drawing would load torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):  # of tensors, or of torch.nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@functools.cache
def parameters(config: ModelConfig) -> int:
    """Number of trained weights. The model is built on the meta device. Shared weights count once.

    Raises:
        ValueError: a size in the configuration is None.
    """
    _sizes(config)
    with torch.device("meta"), WithoutValues():
        return sum(parameter.numel() for parameter in LoopedTransformer(config).parameters())


def embedding_parameters(config: ModelConfig) -> int:
    """Number of weights of the token embedding, the learned positions and an untied output matrix."""
    inputs, outputs, seq = _sizes(config)
    d, bias = config.d_model, config.bias
    count = inputs * d + d * (bias and config.inputs == "vectors")
    count += seq * d * (config.positions == "learned")
    return count + (0 if config.tie_embeddings else d * outputs + outputs * bias)


def non_embedding_parameters(config: ModelConfig) -> int:
    """Number of weights of the layers, norms, injection, modulation and halting; independent of num_loops."""
    return parameters(config) - embedding_parameters(config)


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


@torch.no_grad()
def forward_flops(
    model: LoopedModel, inputs: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq input"], num_loops: int,
    loop_logits: int = 1,
) -> int:  # fmt: skip
    """FLOPs of one forward pass over one sequence of `inputs`, of shape (batch, seq) or (batch, seq, input).

    For a `LoopedTransformer` they follow from the configuration. Another model is run once under torch's counter.
    """
    if isinstance(model, LoopedTransformer):
        return flops(model.config, inputs.shape[1], num_loops, loop_logits)
    from torch.utils.flop_counter import FlopCounterMode  # loads torch's compiler

    with FlopCounterMode(display=False) as counter:
        model(
            inputs[:1].to(model.device),
            num_loops=num_loops,
            loop_logits=range(num_loops - loop_logits + 1, num_loops + 1),
        )
    return counter.get_total_flops()


def exit_flops(
    model: LoopedModel, inputs: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq input"], mean_loops: float,
    needs: Literal["states", "logits", "halting"],
) -> float:  # fmt: skip
    """FLOPs of a forward pass with an exit rule: those at the mean loops, interpolated between whole numbers.

    Args:
        needs: input of the rule after every loop (`ExitRule.needs`). For logits, each loop costs the coda and the
            output matrix. For halting with halting="gate", each loop costs one product with a vector.
    """

    def at(loops: int) -> int:
        gate = model.halt.in_features if needs == "halting" and model.halting == "gate" else 0
        return 2 * gate * inputs.shape[1] * loops + forward_flops(
            model, inputs, loops, loops if needs == "logits" else 1
        )

    low = math.floor(mean_loops)
    return at(low) + (mean_loops - low) * (at(low + 1) - at(low) if mean_loops > low else 0)


def logits_in_training(run: RunConfig, num_loops: int) -> int:
    """Number of loops, among `num_loops`, after which a training step computes logits."""
    every = run.train.loss == "all" or run.model.halting == "gate"
    return num_loops if every else run.train.loss_window or 1
