"""The configuration of a run: frozen, keyword-only dataclasses that check their values.

`strict.to_dict` and `strict.from_dict` convert them to plain data and back. A setting without effect is an error, so a
run's configuration never claims something that the run did not do.
"""

from dataclasses import field, fields
from typing import Any, Literal

from looped.strict import check, forbid_unused, fraction, frozen, ordered, positive
from looped.tasks.registry import TaskConfig

CachePolicy = Literal["all", "first", "last", "ring"]
OutputWeights = Literal["exact", "int8"]
Device = Literal["auto", "cpu", "cuda", "mps"]
MAX_LAYERS = 10_000
"""More layers are refused in each part of a model, because to build them would take minutes. One layer can loop."""
STEPS = "at least 1 to train; `--from RUN` begins with the weights of a run of 0 steps"


@frozen
class ModelConfig:
    """The sizes and options of a looped transformer: prelude layers, a core applied `num_loops` times, coda layers."""

    inputs: Literal["tokens", "vectors"] = "tokens"
    """Type of the input at a position: an integer token or a real vector."""
    vocab_size: int | None = None
    """Number of input tokens; None takes the task's."""
    input_dim: int | None = None
    """Width of an input vector (inputs=vectors); None takes the task's."""
    output_size: int | None = None
    """Number of outputs per position; None takes the task's."""
    max_seq_len: int | None = None
    """Longest sequence, in positions; None takes the task's."""
    causal: bool = False
    """Whether a position attends only to itself and earlier positions."""
    d_model: int = 256
    num_heads: int = 4
    """Heads that compare queries with keys; 0 leaves the graph heads alone."""
    d_head: int | None = None
    """Width of an attention head; None is d_model / num_heads."""
    graph_heads: tuple[str, ...] = ()
    """Further heads in every layer. Each multiplies its values by the matrix of this name, which comes with the input
    (graph heads: Back de Luca & Fountoulakis, 2024), such as the edges of a graph, or which the task gives
    (`Task.graphs`), such as the cells in one row of a board."""
    d_ff: int | None = None
    """Width of the feed-forward layer; None is 4 * d_model."""
    prelude_layers: int = 0
    """Layers before the loop."""
    core_layers: int = 1
    """Layers inside the loop. A standard transformer of L layers is core_layers=L, num_loops=1."""
    coda_layers: int = 0
    """Layers after the loop."""
    num_loops: int = 1
    """Number of times that the core is applied, unless a call gives another number."""
    norm: Literal["rms", "layer", "none"] = "rms"
    norm_gain: bool = True
    """Whether the norms inside the layers have a learned gain."""
    final_norm: Literal["rms", "layer", "none"] | None = None
    """Norm before the output, always with a learned gain; None is the same kind as `norm`."""
    loop_norm: bool = False
    """Whether the final norm is applied after every loop instead of once."""
    embedding_norm: bool = False
    """Whether a LayerNorm follows the embedding (published for edit distance and LCS)."""
    feedforward_norm: bool = True
    """False feeds the raw state to the feed-forward layer (published language-model baseline)."""
    values: Literal["normalised", "state"] = "normalised"
    """Input of the attention values: the normalised state, or the raw state (published language-model baseline)."""
    attention: Literal["softmax", "hardmax", "linear"] = "softmax"
    """Map from scores to attention weights. softmax; hardmax: the limit of softmax for large scores (ties averaged);
    linear: the scores themselves."""
    activation: Literal["gelu", "gelu_tanh", "silu", "relu", "swiglu"] = "gelu"
    bias: bool = False
    """Whether linear layers, LayerNorms and the output have a bias."""
    positions: Literal["learned", "sinusoidal", "rotary", "none"] = "learned"
    positions_every_loop: bool = False
    """Whether positions are added again before every loop instead of once at the input."""
    input_injection: Literal["none", "add", "concat"] = "none"
    """How the embedded input is combined with the state in each loop. With add or concat the state starts at zero."""
    inner_loops: int | None = None
    """None: one state. A number: in each loop the core updates a latent state so many times, and then once an answer
    state, which is read out (TRM: Jolicoeur-Martineau, 2025; needs input_injection=add)."""
    modulation: Literal["none", "additive", "scale_gate", "adaln_zero", "table", "rezero"] = "none"
    """How the loop index acts on the core. additive: a sinusoid is added to the state (Universal Transformer).
    scale_gate: scales and gates (TMLT, the paper's model). adaln_zero: scales, gates and shifts (DiT). table: a learned
    table of scales and gates. rezero: one learned scalar gate for each sublayer, independent of the index (ReZero)."""
    gate_offset: Literal[0, 1] = 0
    """Value of the gate at initialisation: 0 (published, the layer is the identity) or 1 (as without modulation)."""
    timestep: Literal["index", "fraction", "both"] = "index"
    """Input of the modulation: t, t / num_loops, or both."""
    max_loops: int | None = None
    """Number of rows of the learned table (modulation=table)."""
    cache: Literal["all", "first"] = "all"
    """The loops with keys and values of their own. all: every loop. first: only the first `cache_loops` loops; later
    loops attend to the keys and values of the last of these, so the cache is smaller."""
    cache_loops: int | None = None
    """Number of loops with keys and values of their own (cache=first); None is 1."""
    halting: Literal["none", "gate", "act"] = "none"
    """Learned halting. gate: a probability of exiting after each loop (PonderNet, 2021). act: adaptive computation time
    (Graves, 2016), whose output is a weighted mean of the states. Causal models halt per token, others per sequence."""
    tie_embeddings: bool = False
    """Whether the output matrix is the transposed token embedding."""
    initialisation: Literal["gpt2", "pytorch", "in_context"] = "gpt2"
    """gpt2: N(0, 0.02), residual projections divided by sqrt(2 * depth). pytorch: PyTorch's defaults. in_context: gpt2
    between an embedding and an output with PyTorch's defaults, and in a modulation too (published in-context code)."""
    initialisation_depth: int | None = None
    """The depth in that formula; None is the effective depth. The public code uses a constant 12."""

    def __post_init__(self) -> None:
        positive(
            self, "vocab_size", "input_dim", "output_size", "max_seq_len", "d_model", "d_head",
            "d_ff", "core_layers", "num_loops", "max_loops", "initialisation_depth", "cache_loops", "inner_loops",
        )  # fmt: skip
        for name in ("prelude_layers", "core_layers", "coda_layers"):
            check(
                0 <= getattr(self, name) <= MAX_LAYERS, name, getattr(self, name), f"at least 0, at most {MAX_LAYERS}"
            )
        least = "at least 1, or 0 beside graph_heads and d_head"
        alone = self.num_heads == 0 and bool(self.graph_heads) and self.d_head is not None
        check(self.num_heads >= 1 or alone, "num_heads", self.num_heads, least)
        divides = self.d_head is not None or self.d_model % self.num_heads == 0
        check(divides, "num_heads", self.num_heads, f"a divisor of d_model={self.d_model}, or d_head beside it")
        names = self.graph_heads
        check(all(names) and len({*names}) == len(names), "graph_heads", names, "different names")
        even = self.positions == "sinusoidal" or self.modulation == "additive"
        check(not even or self.d_model % 2 == 0, "d_model", self.d_model, "an even number for sinusoids")
        rotary = self.positions == "rotary"
        check(not rotary or self.head_dim % 2 == 0, "d_model", self.d_model, "an even width of a head for rotary")
        if self.inputs == "tokens":
            forbid_unused(self, "inputs='tokens'", "input_dim")
        else:
            forbid_unused(self, "inputs='vectors'", "vocab_size", "tie_embeddings")
        if self.norm == "none":
            forbid_unused(self, "norm='none'", "norm_gain", "feedforward_norm", "values")
        if self.final_norm == "none" or (self.final_norm is None and self.norm == "none"):
            forbid_unused(self, "there is no final norm", "loop_norm")
        if self.positions in ("rotary", "none"):
            forbid_unused(self, f"positions={self.positions!r}", "positions_every_loop")
        if self.modulation in ("none", "additive"):
            forbid_unused(self, f"modulation={self.modulation!r}", "gate_offset")
        if self.modulation not in ("scale_gate", "adaln_zero", "additive"):
            forbid_unused(self, f"modulation={self.modulation!r}", "timestep")
        if self.modulation == "table":
            check(self.max_loops is not None, "max_loops", None, "the table's number of loops")
            check(self.num_loops <= (self.max_loops or 0), "num_loops", self.num_loops, f"<= {self.max_loops}")
        else:
            forbid_unused(self, f"modulation={self.modulation!r}", "max_loops")
        if self.cache == "all":
            forbid_unused(self, "cache='all'", "cache_loops")
        if self.inner_loops is not None:
            check(self.input_injection == "add", "input_injection", self.input_injection, "add with inner_loops")
            forbid_unused(
                self, "inner_loops", "modulation", "coda_layers", "loop_norm", "cache", "positions_every_loop"
            )
        if self.tie_embeddings and self.vocab_size and self.output_size:
            check(
                self.vocab_size == self.output_size, "output_size", self.output_size, "vocab_size when embeddings tie"
            )
        if self.initialisation == "pytorch":
            forbid_unused(self, "initialisation='pytorch'", "initialisation_depth")

    @classmethod
    def for_task(cls, task: Any, **settings: Any) -> "ModelConfig":
        """A configuration with the sizes of a task: `ModelConfig.for_task(task, d_model=64, num_loops=8)`.

        Args:
            task: a `Task`, whose `spec` gives inputs, vocab_size, input_dim, output_size, max_seq_len and causal.
            settings: further fields; they override the sizes of the task.

        Raises:
            ValueError: a field has an impossible value, or a setting has no effect.
        """
        spec = {f.name: getattr(task.spec, f.name) for f in fields(task.spec)}
        return cls(**{**spec, **settings})

    @property
    def core_depth(self) -> int:
        """Layers that a loop applies one after another."""
        return self.core_layers * (1 + (self.inner_loops or 0))

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.d_head or self.d_model // self.num_heads

    @property
    def ff_dim(self) -> int:
        """Width of the feed-forward layer."""
        return self.d_ff or 4 * self.d_model


def check_fits(model: ModelConfig, task: Any, *, complete: bool = True) -> None:
    """Check that a model has the sizes that a task needs. They may be larger, except the width of an input vector.

    Args:
        task: a `Task`.
        complete: False allows sizes that are None.

    Raises:
        ValueError: one line that names the field.
    """
    for name in (f.name for f in fields(task.spec)):
        given, needed = getattr(model, name), getattr(task.spec, name)
        if name == "causal":
            check(given or not needed, "model.causal", given, f"True for task {task.name}, whose inputs hold answers")
        elif name in ("inputs", "input_dim") or needed is None:
            fits = given == needed or (given is None and not complete)
            check(fits, f"model.{name}", given, f"{needed!r} for task {task.name}")
        else:
            fits = given >= needed if given is not None else not complete
            check(fits, f"model.{name}", given, f"at least {needed} for task {task.name}")
    if model.graph_heads and not {*model.graph_heads} <= task.graphs.keys():
        expected = f"among {', '.join(task.graphs)}, the graphs of" if task.graphs else "none for"
        check(False, "model.graph_heads", model.graph_heads, f"{expected} task {task.name}")


@frozen
class ScheduleConfig:
    """The number of loops in a training step, and the number of loops with gradient."""

    kind: Literal["fixed", "curriculum", "random"] = "fixed"
    """fixed: model.num_loops. curriculum: grows from min_loops to max_loops. random: uniform in that range."""
    min_loops: int | None = None
    max_loops: int | None = None
    loops_step: int = 1
    """Number of loops that the curriculum adds at a time."""
    every: int | None = None
    """Number of steps between two additions of the curriculum."""
    num_grad_loops: int | None = None
    """Number of final loops with gradient; None is all loops."""

    def __post_init__(self) -> None:
        positive(self, "min_loops", "max_loops", "loops_step", "every", "num_grad_loops")
        if self.kind == "fixed":
            forbid_unused(self, "kind='fixed'", "min_loops", "max_loops")
        else:
            for name in ("min_loops", "max_loops"):
                check(getattr(self, name) is not None, name, None, f"a number of loops with kind={self.kind!r}")
            ordered(self, "loops")
        if self.kind == "curriculum":
            check(self.every is not None, "every", None, "a number of steps with kind='curriculum'")
        else:
            forbid_unused(self, f"kind={self.kind!r}", "loops_step", "every")


@frozen
class OptimConfig:
    """The optimiser, its learning rate schedule, gradient clipping and, optionally, averaged weights."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw, or muon: orthogonalised momentum for the matrices of the layers, scaled to AdamW's learning rates, and
    AdamW for the other weights (embeddings, output, modulation, norms)."""
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    decay: Literal["matrices", "all_but_bias"] = "matrices"
    """The weights with weight decay. all_but_bias also decays norm gains, as the public reasoning code does."""
    warmup_steps: int = 100
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final_fraction: float = 0.0
    """Learning rate at the end, as a fraction of the largest learning rate."""
    update_every: int = 1
    """Number of steps between changes of the learning rate. In the public code this is an epoch. With warm-up, the
    learning rate of the first epoch is therefore zero."""
    clip_norm: float | None = 1.0
    """Largest norm of the gradient; None disables clipping."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, which is then evaluated; None disables it."""

    def __post_init__(self) -> None:
        check(self.learning_rate > 0, "learning_rate", self.learning_rate, "a positive number")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        check(all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers from 0 to below 1")
        check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "at least 0")
        fraction(self, "final_fraction")
        positive(self, "update_every")
        check(self.clip_norm is None or self.clip_norm > 0, "clip_norm", self.clip_norm, "a positive number")
        check(self.ema_decay is None or 0 < self.ema_decay < 1, "ema_decay", self.ema_decay, "strictly between 0 and 1")
        if self.schedule == "constant":
            forbid_unused(self, "schedule='constant'", "final_fraction")


@frozen
class TrainConfig:
    """Length of the training, loss, device, and the intervals of logging, evaluation and checkpoints."""

    steps: int = 3000
    """0 is for weights that were written instead of trained (`looped construct`)."""
    batch_size: int = 128
    """Number of examples in a step, over all devices and accumulated parts."""
    accumulation: int = 1
    """Number of parts in which each device computes its share of a batch."""
    seed: int = 0
    """Fixes the initial weights and the order of the training examples."""
    loss: Literal["last", "all", "window", "halting"] = "last"
    """The loops whose loop_logits enter the loss. halting: the exits of learned halting, plus a cost of the loops."""
    loss_window: int | None = None
    """Number of final loops in the loss (loss=window)."""
    segments: int = 1
    """Number of optimiser steps on the same problems. Each runs num_loops / segments loops, from the last state of the
    step before, through which no gradient flows (deep supervision; Wang et al., HRM, 2025)."""
    ponder_cost: float = 0.01
    """Weight of the cost of loops (loss=halting). act: the ponder cost N + R. gate: the KL divergence, in nats, of the
    exit distribution from a geometric distribution."""
    ponder_prior: float = 0.2
    """Parameter of that geometric distribution, whose mean is 1 / ponder_prior loops (model.halting=gate)."""
    device: Device = "auto"
    devices: int = 1
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto is bf16 mixed precision if the processor supports it."""
    compile: bool | None = None
    """Whether to use compiled code. None does if a compiler is available: small blocks in C++ on CPUs, torch.compile
    for large models and GPUs. True also uses torch.compile for small cores that have no form in C++."""
    recompute: Literal["none", "loop", "nested"] = "none"
    """Activations kept for the backward pass. none: all are kept. loop: one state for each loop. nested: about
    sqrt(num_loops) states. The others are recomputed."""
    workers: int = 1
    """Number of processes that prepare batches; with 0 the batches are prepared between steps."""
    log_every: int = 50
    eval_every: int = 500
    eval_examples: int = 1024
    save_every: int = 1000
    save_minutes: float = 10.0
    """Minutes since the last checkpoint after which another one is written."""
    keep_last: int = 2
    """Number of last checkpoints kept, in addition to the best one."""
    target: float | None = None
    """Training ends when the validation metric reaches this value."""

    def __post_init__(self) -> None:
        positive(
            self, "batch_size", "accumulation", "loss_window", "segments", "devices", "log_every", "eval_every",
            "eval_examples", "save_every", "keep_last",
        )  # fmt: skip
        check(self.steps >= 0, "steps", self.steps, "at least 0")
        check(0 <= self.seed < 2**63, "seed", self.seed, "at least 0, in 64 bits")
        check(self.workers >= 0, "workers", self.workers, "at least 0")
        check(self.save_minutes > 0, "save_minutes", self.save_minutes, "a positive number")
        parts = self.accumulation * self.devices
        check(self.batch_size % parts == 0, "batch_size", self.batch_size, f"a multiple of {parts} parts")
        check(self.target is None or self.target >= 0, "target", self.target, "at least 0")
        if self.loss == "window":
            check(self.loss_window is not None, "loss_window", None, "a number of loops with loss='window'")
        else:
            forbid_unused(self, f"loss={self.loss!r}", "loss_window")
        if self.loss == "halting":
            check(self.ponder_cost >= 0, "ponder_cost", self.ponder_cost, "at least 0")
            check(0 < self.ponder_prior < 1, "ponder_prior", self.ponder_prior, "a number strictly between 0 and 1")
        else:
            forbid_unused(self, f"loss={self.loss!r}", "ponder_cost", "ponder_prior")


@frozen
class Start:
    """Trained weights from which a training starts, instead of random ones."""

    run: str
    """Their run folder."""
    step: int
    sha256: str
    """Hash of the file of the weights."""


@frozen
class RunConfig:
    """All settings that determine a training run."""

    recipe: str = "custom"
    """Name of the recipe that made this configuration."""
    note: str = ""
    """The publication that the recipe reproduces, and its differences from it."""
    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig
    """The settings of any registered task (see `looped.tasks`)."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    start: Start | None = None
    """The initial weights (`looped train --from`); None draws them."""

    def __post_init__(self) -> None:
        if self.train.segments > 1:
            self._check_segments()
        most = self.most_loops
        window = self.schedule.num_grad_loops
        check(window is None or window <= most, "schedule.num_grad_loops", window, f"at most {most} loops")
        if self.train.loss == "window":
            reach = min(window or most, self.schedule.min_loops or most)
            loss_window = self.train.loss_window or 0
            check(loss_window <= reach, "train.loss_window", loss_window, f"at most the {reach} loops with gradient")
        if self.train.loss in ("all", "halting"):
            check(window is None, "schedule.num_grad_loops", window, f"None when train.loss={self.train.loss!r}")
        halting, learned_halting = self.model.halting, self.train.loss == "halting"
        needs = "'halting', which trains" if halting != "none" else "'last', 'all' or 'window' with"
        check(
            learned_halting == (halting != "none"), "train.loss", self.train.loss, f"{needs} model.halting={halting!r}"
        )
        if halting == "act":
            forbid_unused(self.train, "model.halting='act'", "ponder_prior", "recompute")
        if self.model.max_loops is not None:
            check(
                most <= self.model.max_loops, "schedule.max_loops", most, f"<= model.max_loops={self.model.max_loops}"
            )
        check(
            self.optim.warmup_steps <= self.train.steps or self.train.steps == 0,
            "optim.warmup_steps", self.optim.warmup_steps, f"at most train.steps={self.train.steps}",
        )  # fmt: skip

    @property
    def most_loops(self) -> int:
        """The largest number of loops in a training step."""
        return (self.schedule.max_loops or self.model.num_loops) // self.train.segments

    def _check_segments(self) -> None:
        """Segments cut the loops of a problem into equal parts, whose loops must all be alike."""
        segments, model, words = self.train.segments, self.model, f"with train.segments={self.train.segments}"
        loss = self.train.loss
        check(loss in ("last", "all", "window"), "train.loss", loss, f"last, all or window {words}")
        for name in ("devices", "accumulation"):
            check(getattr(self.train, name) == 1, f"train.{name}", getattr(self.train, name), f"1 {words}")
        check(self.schedule.kind == "fixed", "schedule.kind", self.schedule.kind, f"fixed {words}")
        check(model.num_loops % segments == 0, "model.num_loops", model.num_loops, f"a multiple of {segments} {words}")
        alike = f"none or rezero {words}, because loops are counted anew in each segment"
        check(model.modulation in ("none", "rezero"), "model.modulation", model.modulation, alike)
        check(model.cache == "all", "model.cache", model.cache, f"all {words}")
