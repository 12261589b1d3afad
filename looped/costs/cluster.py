"""A training on many GPUs, on paper: memory, communication and time. docs/scale.md explains the formulas."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal

from looped.config import ModelConfig, RunConfig
from looped.costs.activations import LOGIT, activations, layer_activations, repeated_loops
from looped.costs.count import (
    core_parameters,
    embedding_parameters,
    flops,
    layer_parameters,
    logits_in_training,
    loops_with_gradient,
    parameters,
    training_flops,
)
from looped.costs.gpus import GPU, NODE

if TYPE_CHECKING:
    from looped.models.iteration import Recompute

Strategy = Literal["ddp", "fsdp"]
SHARE = 0.8
"""Reached share of the published FLOPs and bytes a second: large products on an H200 reached 791 TFLOP/s of 989
(results/sudoku/environment.json)."""
ATTENTION_SHARE = 0.35
"""Reached share of the published FLOPs in a fused attention: FlashAttention-2 on an H100 (Shah et al., 2024)."""
TRAFFIC = (2, 3)
"""How often the forward and the backward pass move each kept number: it is written and read, then read again, and its
gradient is written and read."""
MARGIN = 1.15
"""A training fits if the memory of a GPU is this many times the predicted need."""
FLOAT = 4
"""Bytes of a weight, a gradient, a moment or an average."""


@dataclass(frozen=True)
class Work:
    """Operations of one kind after the other; none of them overlap on a GPU."""

    products: float = 0.0
    """FLOPs of matrix products with weights."""
    attention: float = 0.0
    """FLOPs of attention."""
    traffic: float = 0.0
    """Bytes that all other operations move."""

    def __add__(self, other: "Work") -> "Work":
        return Work(self.products + other.products, self.attention + other.attention, self.traffic + other.traffic)

    def __mul__(self, times: int | float) -> "Work":
        return Work(times * self.products, times * self.attention, times * self.traffic)

    def backward(self) -> "Work":
        """The backward pass through this forward pass: both factors of each product have a gradient."""
        return Work(2 * self.products, 2 * self.attention, TRAFFIC[1] / TRAFFIC[0] * self.traffic)

    def seconds(self, gpu: GPU) -> dict[str, float]:
        return {
            "products": self.products / (SHARE * gpu.flops),
            "attention": self.attention / (ATTENTION_SHARE * gpu.flops),
            "elementwise": self.traffic / (SHARE * gpu.bandwidth),
        }

    def time(self, gpu: GPU) -> float:
        return sum(self.seconds(gpu).values())


@dataclass(frozen=True)
class Passes:
    """The forward passes of one example through a layer of prelude or coda, a loop, and the output matrix."""

    layer: Work
    loop: Work
    output: Work


@cache
def passes(config: ModelConfig, seq_len: int) -> Passes:
    """The work of one example of `seq_len` positions, whose matrix products add up to `flops`."""
    deeper = replace(config, prelude_layers=config.prelude_layers + 1)
    attention = 4.0 * seq_len**2 * config.num_heads * config.head_dim
    kept = float(TRAFFIC[0]) * seq_len * layer_activations(config)

    def work(all_flops: int, layers: int, others: float = 0.0) -> Work:
        return Work(all_flops - layers * attention, layers * attention, layers * kept + others)

    logits = float(TRAFFIC[0]) * seq_len * LOGIT * (config.output_size or 1)
    layer = flops(deeper, seq_len) - flops(config, seq_len)
    return Passes(
        layer=work(layer, 1),
        loop=work(flops(config, seq_len, 2) - flops(config, seq_len, 1), config.core_depth),
        output=work(
            flops(config, seq_len, 1, 2) - flops(config, seq_len, 1, 1) - config.coda_layers * layer, 0, logits
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU at the peak of a step."""

    weights: int
    gradients: int
    moments: int
    averages: int
    copies: int
    """The weights in 16 bits, which the backward pass needs."""
    gathered: int
    """The whole weights of the core, and of two layers, beside their shards (fsdp)."""
    activations: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


@dataclass(frozen=True, kw_only=True)
class Communication:
    """The communication of one GPU in a step."""

    sent: float
    """Bytes that it sends."""
    sent_by_loop: float
    """Bytes that it would send if each layer of the core were gathered in each loop, forward and backward (fsdp)."""
    seconds: float
    exposed: float
    """Seconds in which nothing else runs."""

    @property
    def overlapped(self) -> float:
        """Share of the seconds in which the GPU computes."""
        return 1 - self.exposed / self.seconds if self.seconds else 1.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A way to train on this many GPUs, and what it costs."""

    gpus: int
    strategy: Strategy
    recompute: "Recompute"
    accumulation: int
    memory: Memory
    communication: Communication
    seconds: dict[str, float]
    """Seconds of a step by part: products, attention, elementwise, update and exposed communication."""
    tokens: int
    """Positions in a batch."""
    useful: float
    """FLOPs that a step needs, on one GPU."""
    gpu: GPU

    @property
    def step(self) -> float:
        return sum(self.seconds.values())

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.step

    @property
    def mfu(self) -> float:
        """The needed FLOPs a second as a share of the published ones (Chowdhery et al., PaLM, 2022)."""
        return self.useful / (self.step * self.gpu.flops)

    @property
    def fits(self) -> bool:
        return MARGIN * self.memory.total <= self.gpu.memory

    def words(self) -> str:
        """The options of `looped train` that choose these settings."""
        return (
            f"--train.devices {self.gpus} --train.strategy {self.strategy} --train.recompute {self.recompute} "
            f"--train.accumulation {self.accumulation}"
        )


@dataclass(frozen=True)
class Groups:
    """Numbers of weights by the place where their gradient is complete."""

    layers: int
    """Number of layers with a group of their own: those of the prelude, and of a coda that is applied once."""
    layer: int
    """Weights of each of these layers."""
    table: int
    """Embedding and positions; with tied embeddings also the output matrix."""
    output: int
    """The output matrix, unless it is tied."""
    core: int
    """Core, norms, modulation, injection, and a coda that is applied after several loops."""
    all: int

    @property
    def root(self) -> int:
        """Weights that fsdp gathers together, once."""
        return self.table + self.output + self.core


def groups(run: RunConfig) -> Groups:
    """The groups of all weights, as `looped.training.sharding.shard` makes them."""
    config = run.model
    each, everything, embedding = layer_parameters(config), parameters(config), embedding_parameters(config)
    output = 0 if config.tie_embeddings else config.embedding_width * (config.output_size or 0)
    layers = config.prelude_layers + config.coda_layers * (logits_in_training(run, run.most_loops) == 1)
    core = everything - embedding - layers * each
    return Groups(layers, each, embedding - output, output, core, everything)


def bus(gpu: GPU, gpus: int) -> float:
    """Bytes a second that each GPU sends in a ring. Between machines, eight rings share eight network cards."""
    return SHARE * (gpu.nvlink if gpus <= NODE else min(gpu.nvlink, NODE * gpu.network))


def memory(run: RunConfig, strategy: Strategy, gpus: int, seq_len: int) -> Memory:
    """The memory of one GPU. `run.train` says how a batch is divided and what is recomputed."""
    train, found, config = run.train, groups(run), run.model
    shards = gpus if strategy == "fsdp" else 1
    own = math.ceil(FLOAT * found.all / shards)
    # DDP copies all gradients into buckets. FSDP2 keeps those of a group whole until the last part reduces them.
    whole = found.root if strategy == "fsdp" and train.accumulation == 1 else found.all
    moments = 2 * own
    if run.optim.optimizer == "muon":  # has one for the matrices of layers, which are nearly all weights of layers
        moments -= math.ceil(FLOAT * (found.layers * found.layer + found.core) / shards)
    rows = train.batch_size // (gpus * train.accumulation)
    return Memory(
        weights=own,
        gradients=own + (FLOAT * whole if gpus > 1 else 0),
        moments=moments,
        averages=own if run.optim.ema_decay else 0,
        copies=2 * (found.all - (0 if config.tie_embeddings else found.table)),
        gathered=FLOAT * (found.root + min(2, found.layers) * found.layer) if shards > 1 else 0,
        activations=rows * activations(run, seq_len, train.recompute),
    )


def exposed(ready: Iterable[tuple[float, float]], end: float) -> float:
    """Seconds after `end` until all communication is over.

    Args:
        ready: (when it can begin, how long it takes), in this order; one after the other.
    """
    finish = 0.0
    for begin, takes in ready:
        finish = max(finish, begin) + takes
    return max(0.0, finish - end)


def communication(run: RunConfig, strategy: Strategy, gpu: GPU, gpus: int, seq_len: int) -> Communication:
    """The bytes that a GPU sends in a step, and the share that overlaps. `run.train` says how a batch is divided."""
    train, config, found = run.train, run.model, groups(run)
    work = passes(config, seq_len)
    parts, rows = train.accumulation, train.batch_size // (gpus * train.accumulation)
    others, speed = (gpus - 1) / gpus, bus(gpu, gpus)
    loops, window, reads = run.most_loops, loops_with_gradient(run), logits_in_training(run, run.most_loops)

    def sends(weights: int | float) -> float:
        """Bytes that a gather, or a reduction to shards, of these weights sends from each GPU."""
        return FLOAT * others * weights

    if strategy == "fsdp":
        at_once = sends(found.root + 2 * parts * found.layers * found.layer + found.all)
        calls = config.core_depth / (config.core_layers + config.latent_layers)
        gathers = parts * calls * (loops + window) - 1 + (parts > 1)  # the last is a reduction of earlier parts
        by_loop = at_once + sends(gathers * core_parameters(config))
        # A layer is gathered while a neighbour computes, which takes twice as long backward. The last part reduces too.
        one, forward = sends(found.layer) / speed, (work.layer * rows).time(gpu)
        late = parts * max(0.0, one - forward) + (parts - 1) * max(0.0, one - 2 * forward)
        late += max(0.0, 2 * one - 2 * forward)
        waits = sends(2 * found.root) / speed + found.layers * late
        seconds = at_once / speed
        return Communication(sent=at_once, sent_by_loop=by_loop, seconds=seconds, exposed=min(seconds, waits))
    # An all-reduce is a reduction to shards and a gather. It begins when the gradient is complete: that of a layer of
    # the core in the backward pass of the first loop, which is the last one.
    end, ready = (work.output.backward() * (rows * reads)).time(gpu), list[tuple[float, float]]()
    layer = (work.layer.backward() * rows).time(gpu)
    ready.append((end, float(found.output)))
    for _ in range(config.coda_layers):
        end += layer * reads
        ready.append((end, float(found.layer * (reads == 1))))
    again = repeated_loops(window, train.recompute)
    end += ((work.loop.backward() * window + work.loop * again) * rows).time(gpu)
    of_layer = (work.loop.backward() * rows).time(gpu) / config.core_layers
    for layers_before in reversed(range(config.core_layers)):
        ready.append((end - layers_before * of_layer, found.core / config.core_layers))
    for _ in range(config.prelude_layers):
        end += layer
        ready.append((end, float(found.layer)))
    ready.append((end, float(found.table)))
    late = exposed(((at, sends(2 * weights) / speed) for at, weights in ready), end)
    sent = sends(2 * found.all)
    return Communication(sent=sent, sent_by_loop=sent, seconds=sent / speed, exposed=min(late, sent / speed))


def step_work(run: RunConfig, rows: int | float, seq_len: int) -> Work:
    """All work of a step on `rows` examples."""
    config, window = run.model, loops_with_gradient(run)
    work = passes(config, seq_len)
    reads = logits_in_training(run, run.most_loops)
    outside = work.layer * (config.prelude_layers + config.coda_layers * reads) + work.output * reads
    backward = (outside + work.loop * window).backward()
    forward = outside + work.loop * (run.most_loops + repeated_loops(window, run.train.recompute))
    return (forward + backward) * rows


def update_bytes(run: RunConfig, shards: int) -> float:
    """Bytes that the optimiser, the average, the clipping and the copies in 16 bits move. Muon's products are left
    out."""
    average = 3 * FLOAT * bool(run.optim.ema_decay)
    return parameters(run.model) * ((7 * FLOAT + 3 * FLOAT + average) / shards + run.train.accumulation * (FLOAT + 2))


def setting(run: RunConfig, strategy: Strategy, gpu: GPU, gpus: int) -> Setting:
    """The costs of a step with the most loops of the schedule, as `run.train` divides the batch."""
    seq_len, size = run.model.max_seq_len or 1, run.train.batch_size
    talk = communication(run, strategy, gpu, gpus, seq_len)
    seconds = step_work(run, size / gpus, seq_len).seconds(gpu)
    shards = gpus if strategy == "fsdp" else 1
    seconds["update"] = update_bytes(run, shards) / (SHARE * gpu.bandwidth)
    seconds["communication"] = talk.exposed
    logits = logits_in_training(run, run.most_loops)
    useful = training_flops(run.model, seq_len, run.most_loops, loops_with_gradient(run), logits)
    return Setting(
        gpus=gpus,
        strategy=strategy,
        recompute=run.train.recompute,
        accumulation=run.train.accumulation,
        memory=memory(run, strategy, gpus, seq_len),
        communication=talk,
        seconds=seconds,
        tokens=size * seq_len,
        useful=useful * size / gpus,
        gpu=gpu,
    )
