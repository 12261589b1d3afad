"""An estimate of a training's memory before it begins, compared with the memory of the machine."""

import math
import os

import torch

from looped.config import ModelConfig, RunConfig
from looped.costs.count import logits_in_training, loops_with_gradient
from looped.machine import machine_memory
from looped.models.memory import memory_of
from looped.nn.native.block import LARGEST
from looped.tasks.base import Batch

WORKERS_PER_CORE = 4
LESS = {
    "weights": "lower the model's sizes (width, layers, vocabulary)",
    "activations": "raise train.accumulation, set train.recompute=loop, or lower train.batch_size, the loops or the "
    "model's sizes (`looped plan` finds settings that fit)",
    "examples": "lower train.batch_size, train.eval_examples or train.workers",
}
"""For each part of the memory, what makes it less."""


def weights_memory(run: RunConfig) -> int:
    """Bytes of weights, gradients, the optimiser's state and averaged weights, on each device. A lower estimate."""
    model, devices = run.model, run.train.devices
    layers = model.core_layers + model.latent_layers
    copies = (3 if run.optim.optimizer == "muon" else 4) + (run.optim.ema_decay is not None)
    weights = _weights(model, layers + model.prelude_layers + model.coda_layers)
    if run.train.strategy == "fsdp":  # a part of each copy, and what is gathered once a step, with its gradient
        return 4 * (copies * weights // devices + 2 * _weights(model, layers))
    return 4 * copies * weights


def activations_memory(run: RunConfig, example: Batch, *, half: bool) -> int:
    """Bytes of what the backward pass of one part of a batch needs, on each device. A lower estimate.

    Args:
        example: one training example.
        half: whether activations are in 16 bits.
    """
    config, train, seq = run.model, run.train, example.inputs.shape[1]
    rows = train.batch_size // (train.accumulation * train.devices)
    loops = run.most_loops
    with_gradient = loops_with_gradient(run)
    layer = _numbers_of_a_layer(config)
    if train.compile is not False and config.d_model <= LARGEST:  # C++ keeps less, in 32 bits
        hidden = config.ff_dim * (2 if config.activation == "swiglu" else 1)
        layer = min(layer, (2 if half else 1) * (config.d_model + 3 * config.num_heads * config.head_dim + hidden))
    core, state = config.core_depth * layer, config.d_model
    kept = {
        "none": with_gradient * core,
        "loop": with_gradient * state + 2 * core,
        "nested": math.isqrt(with_gradient) * state + 2 * core,
    }[train.recompute]
    kept += (config.prelude_layers + config.coda_layers) * layer
    number, outputs = 2 if half else 4, logits_in_training(run, with_gradient) * (config.output_size or 1)
    masked = int(example.mask.sum())  # the loss is computed in 32 bits, and only there
    activations = rows * (number * seq * (kept + outputs) + 2 * 4 * masked * outputs)
    if config.modulation in ("scale_gate", "adaln_zero", "additive"):
        activations += 4 * loops * config.d_model
    return activations


def _numbers_of_a_layer(config: ModelConfig) -> int:
    """The numbers that the backward pass of a layer needs at a position, without attention weights."""
    heads = 2 * config.num_heads + 2 * config.kv_heads * (config.cache == "all") + 2 * len(config.graph_heads)
    attention = heads * config.head_dim
    feedforward = (4 if config.activation == "swiglu" else 2) * config.ff_dim
    return 2 * config.d_model + attention + feedforward


def examples_memory(run: RunConfig, example: Batch) -> int:
    """Bytes of the validation examples and of the batches prepared ahead."""
    ahead = min(max(1, 4 * run.train.workers), run.train.steps) * run.train.batch_size
    return example.nbytes * (run.train.eval_examples + ahead)


def _weights(config: ModelConfig, layers: int) -> int:
    """The number of weights of the embedding, the output and so many layers, without norms and modulation."""
    d, heads = config.d_model, 2 * (config.num_heads + config.kv_heads + len(config.graph_heads))
    layer = d * heads * config.head_dim + (3 if config.activation == "swiglu" else 2) * d * config.ff_dim
    positions = (config.max_seq_len or 0) * (config.positions == "learned")
    inputs, table = config.vocab_size or config.input_dim or 0, config.max_loops or 0
    outputs = 0 if config.tie_embeddings else config.output_size or 0
    return layers * layer + d * table + config.embedding_width * (inputs + outputs + positions)


def check_memory(run: RunConfig, example: Batch, device: torch.device, *, half: bool) -> None:
    """Check that a training can fit into the memory of this machine.

    Args:
        example, half: as for `activations_memory`.

    Raises:
        ValueError: it cannot; names the estimate, the memory and the options to lower. Or there are too many workers.
    """
    most = WORKERS_PER_CORE * (os.cpu_count() or 1)
    if run.train.workers > most:
        raise ValueError(
            f"train.workers={run.train.workers}: expected at most {most}, {WORKERS_PER_CORE} for each core"
        )
    weights = {"weights": weights_memory(run)}
    _check_parts(run, weights, 0, device)  # a model with too many weights cannot even be built
    activations = {"activations": activations_memory(run, example, half=half)}
    _check_parts(run, weights | activations, examples_memory(run, example), device)


def _check_parts(run: RunConfig, on_device: dict[str, int], examples: int, device: torch.device) -> None:
    if device.type == "cuda":
        _compare(on_device, memory_of(device), "the GPU")
        _compare({"examples": examples}, machine_memory(), "this machine")
    else:
        on_devices = {name: run.train.devices * size for name, size in on_device.items()}
        _compare(on_devices | {"examples": examples}, machine_memory(), "this machine")


def _compare(parts: dict[str, int], memory: int, place: str) -> None:
    needed, largest = sum(parts.values()), max(parts, key=lambda name: parts[name])
    if needed > memory:
        raise ValueError(
            f"too little memory: this training needs at least {needed / 1e9:,.1f} GB, and {place} has "
            f"{memory / 1e9:,.1f} GB; most is for {largest}; expected less: {LESS[largest]}"
        )
