"""An estimate of a training's memory before it begins, compared with the memory of the machine."""

import math
import os

import torch

from looped.config import ModelConfig, RunConfig
from looped.costs.count import logits_in_training
from looped.machine import machine_memory
from looped.models.memory import memory_of
from looped.tasks.base import Batch

WORKERS_PER_CORE = 4
OPTIONS = {
    "weights": "the model's sizes (width, layers, vocabulary)",
    "activations": "train.batch_size, the loops or the model's sizes; or raise train.accumulation, or set "
    "train.recompute=loop",
    "examples": "train.batch_size, train.eval_examples or train.workers",
}
"""For each part of the memory, the options to lower."""


def training_memory(run: RunConfig, example: Batch, *, half: bool, scores: bool) -> dict[str, int]:
    """A lower estimate of a training's memory in bytes, by the keys of `OPTIONS`. It does not build the model.

    weights: weights, gradients, the optimiser's state and averaged weights, on each device. activations: what the
    backward pass of one part of a batch needs, on each device. examples: for validation, and batches prepared ahead.

    Args:
        example: one training example.
        half: whether activations are in 16 bits.
        scores: whether the attention weights are kept, as on CPUs.
    """
    config, train, seq = run.model, run.train, example.inputs.shape[1]
    rows = train.batch_size // (train.accumulation * train.devices)
    loops = run.schedule.max_loops or config.num_loops
    with_gradient = min(loops, run.schedule.num_grad_loops or loops)
    copies = (3 if run.optim.optimizer == "muon" else 4) + (run.optim.ema_decay is not None)

    layer = _numbers_of_a_layer(config) + scores * config.num_heads * seq
    core, state = config.core_layers * layer, config.d_model
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

    ahead = min(max(1, 4 * train.workers), train.steps) * train.batch_size
    stored = sum(tensor.nbytes for tensor in example)
    return {
        "weights": 4 * copies * _weights(config),
        "activations": activations,
        "examples": stored * (train.eval_examples + ahead),
    }


def _weights(config: ModelConfig) -> int:
    """The number of weights of the embedding, the output and the layers, without norms and modulation."""
    d, heads = config.d_model, 4 * config.num_heads + 2 * len(config.graph_heads)
    layers = config.prelude_layers + config.core_layers + config.coda_layers
    layer = d * heads * config.head_dim + (3 if config.activation == "swiglu" else 2) * d * config.ff_dim
    positions = (config.max_seq_len or 0) * (config.positions == "learned")
    inputs, table = config.vocab_size or config.input_dim or 0, config.max_loops or 0
    outputs = 0 if config.tie_embeddings else config.output_size or 0
    return layers * layer + d * (inputs + outputs + positions + table)


def _numbers_of_a_layer(config: ModelConfig) -> int:
    """The numbers that the backward pass of a layer needs at a position, without attention weights."""
    attention = ((4 if config.cache == "all" else 2) * config.num_heads + 2 * len(config.graph_heads)) * config.head_dim
    feedforward = (4 if config.activation == "swiglu" else 2) * config.ff_dim
    return 2 * config.d_model + attention + feedforward


def check_memory(run: RunConfig, example: Batch, device: torch.device, *, half: bool) -> None:
    """Check that a training can fit into the memory of this machine.

    Args:
        example, half: as for `training_memory`.

    Raises:
        ValueError: it cannot; names the estimate, the memory and the options to lower. Or there are too many workers.
    """
    most = WORKERS_PER_CORE * (os.cpu_count() or 1)
    if run.train.workers > most:
        raise ValueError(
            f"train.workers={run.train.workers}: expected at most {most}, {WORKERS_PER_CORE} for each core"
        )
    parts = training_memory(run, example, half=half, scores=device.type != "cuda")
    examples = {"examples": parts.pop("examples")}
    if device.type == "cuda":
        _compare(parts, memory_of(device), "the GPU")
        _compare(examples, machine_memory(), "this machine")
    else:
        on_devices = {name: run.train.devices * size for name, size in parts.items()}
        _compare(on_devices | examples, machine_memory(), "this machine")


def _compare(parts: dict[str, int], memory: int, place: str) -> None:
    needed, largest = sum(parts.values()), max(parts, key=lambda name: parts[name])
    if needed > memory:
        raise ValueError(
            f"too little memory: this training needs at least {needed / 1e9:,.1f} GB, and {place} has "
            f"{memory / 1e9:,.1f} GB; most is for {largest}; expected less: lower {OPTIONS[largest]}"
        )
