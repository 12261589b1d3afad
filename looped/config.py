"""The configuration of a run: frozen, keyword-only dataclasses that check their values.

`strict.to_dict` and `strict.from_dict` convert them to plain data and back. A setting without effect is an error, so a
run's configuration never claims something that the run did not do.
"""

from dataclasses import field
from typing import Literal

from looped.model_config import ModelConfig as ModelConfig
from looped.model_config import check_fits as check_fits
from looped.model_config import longer_in_evaluation as longer_in_evaluation
from looped.strict import check, forbid_unused, fraction, frozen, ordered, positive
from looped.tasks.registry import TaskConfig

CachePolicy = Literal["all", "first", "last", "ring"]
OutputWeights = Literal["exact", "int8"]
Device = Literal["auto", "cpu", "cuda", "mps"]
OWN_LOOPS = ("task", "steps")
"""The losses with which each example has its own number of loops."""
HOUSEKEEPING = (
    "device", "devices", "strategy", "accumulation", "compile", "recompute", "workers", "log_every", "log_to",
    "save_every", "save_minutes", "keep_last",
)  # fmt: skip
"""The settings in `TrainConfig` that change nothing but rounding. A run may be continued with others, and runs that
differ in them are compared as one variant."""
STEPS = "at least 1 to train; `--from RUN` begins with the weights of a run of 0 steps"


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
    constant_steps: int = 0
    """Number of steps after the warm-up in which the learning rate stays at its largest value."""
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
        check(self.constant_steps >= 0, "constant_steps", self.constant_steps, "at least 0")
        fraction(self, "final_fraction")
        positive(self, "update_every")
        check(self.clip_norm is None or self.clip_norm > 0, "clip_norm", self.clip_norm, "a positive number")
        check(self.ema_decay is None or 0 < self.ema_decay < 1, "ema_decay", self.ema_decay, "strictly between 0 and 1")
        if self.schedule == "constant":
            forbid_unused(self, "schedule='constant'", "final_fraction", "constant_steps")


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
    loss: Literal["last", "all", "window", "task", "steps", "halting"] = "last"
    """The loops whose loop_logits enter the loss. task: for each example the number of loops that the task says it
    needs (Fan et al., 2024). steps: the same, plus the task's targets for the output after each loop (RELAY, Yu et al.,
    2025). halting: the exits of learned halting, plus a cost of the loops."""
    step_weight: float = 1.0
    """Weight of the targets for each loop, beside 1 for the answer (loss=steps)."""
    regularisers: tuple[tuple[str, float], ...] = ()
    """Further terms of the loss, each with its weight, such as `cosine:4 10` (looped/training/regularisers.py)."""
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
    """Number of devices, each with a process of its own. Under torchrun or srun it is the number of their processes."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """ddp: each device has all weights. fsdp: each device keeps a part of the weights, gradients and optimiser's state
    (FSDP2). The core is gathered once a step, not once a loop."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto is bf16 mixed precision if the processor supports it."""
    compile: bool | None = None
    """Whether to use compiled code. None does if a compiler is available: small blocks in C++ on CPUs, torch.compile
    for large models and GPUs. True also uses torch.compile for small cores that have no form in C++."""
    recompute: Literal["none", "loop", "nested"] = "none"
    """Activations kept for the backward pass. none: all are kept. loop: one state for each loop. nested: about
    sqrt(num_loops) states. The others are recomputed."""
    gradient: Literal["unroll", "implicit", "neumann", "phantom"] = "unroll"
    """unroll: through the last num_grad_loops loops. The others need memory for a few loops, however many are run, and
    take the gradient at the last state as if it were a fixed point of the loop. implicit: the exact one (DEQ, 2019),
    or the one-step gradient if it does not converge. neumann: the first `gradient_terms` terms of its series; one term
    is the one-step gradient. phantom: through `gradient_terms` loops with the damping `gradient_damping`."""
    gradient_terms: int | None = None
    gradient_damping: float = 1.0
    workers: int = 1
    """Number of processes that prepare batches; with 0 the batches are prepared between steps."""
    log_every: int = 50
    log_to: Literal["none", "trackio", "wandb", "tensorboard"] = "none"
    """Where else the rows of metrics.jsonl are sent. The run there has the name of the folder, in a project with the
    name of the recipe. tensorboard: event files in the run folder."""
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
        expected = f"a multiple of {parts} (devices times accumulation)"
        check(self.batch_size % parts == 0, "batch_size", self.batch_size, expected)
        if self.devices == 1:
            forbid_unused(self, "devices=1", "strategy")
        check(self.target is None or self.target >= 0, "target", self.target, "at least 0")
        if self.loss == "window":
            check(self.loss_window is not None, "loss_window", None, "a number of loops with loss='window'")
        else:
            forbid_unused(self, f"loss={self.loss!r}", "loss_window")
        if self.loss == "steps":
            check(self.step_weight > 0, "step_weight", self.step_weight, "a positive number")
        else:
            forbid_unused(self, f"loss={self.loss!r}", "step_weight")
        if self.gradient in ("unroll", "implicit"):
            forbid_unused(self, f"gradient={self.gradient!r}", "gradient_terms")
        else:
            terms = self.gradient_terms
            check(terms is not None and terms >= 1, "gradient_terms", terms, f"at least 1 with {self.gradient!r}")
        if self.gradient == "phantom":
            check(0 < self.gradient_damping <= 1, "gradient_damping", self.gradient_damping, "above 0, at most 1")
        else:
            forbid_unused(self, f"gradient={self.gradient!r}", "gradient_damping")
        names = [name for name, _ in self.regularisers]
        check(len({*names}) == len(names), "regularisers", names, "different names")
        if self.loss == "halting":
            forbid_unused(self, "loss='halting'", "regularisers")
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
        if self.train.loss in OWN_LOOPS:
            check(self.schedule.kind == "fixed", "schedule.kind", self.schedule.kind, "'fixed' with train.loss='task'")
            timestep = self.model.timestep
            check(timestep == "index", "model.timestep", timestep, "'index' when examples differ in their loops")
        order = self.model.layer_order
        readable = self.train.loss == "last" and window is None
        check(
            order == "cycle" or readable or (order == "reverse" and self.train.loss not in OWN_LOOPS),
            "model.layer_order", order, "'cycle' unless train.loss='last' without schedule.num_grad_loops",
        )  # fmt: skip
        if self.train.loss in ("all", "halting", *OWN_LOOPS):
            check(window is None, "schedule.num_grad_loops", window, f"None when train.loss={self.train.loss!r}")
        if self.train.gradient != "unroll":
            self._check_fixed_point()
        halting, learned_halting = self.model.halting, self.train.loss == "halting"
        needs = "'halting', which trains" if halting != "none" else "'last', 'all' or 'window' with"
        check(
            learned_halting == (halting != "none"), "train.loss", self.train.loss, f"{needs} model.halting={halting!r}"
        )
        if halting == "act":
            forbid_unused(self.train, "model.halting='act'", "ponder_prior", "recompute")
            words = "'ddp' with model.halting='act' and own weights in each loop, which one device may reach alone"
            shards = self.train.strategy == "fsdp" and self.model.own_weights
            check(not shards, "train.strategy", self.train.strategy, words)
        if (limit := self.model.most_loops) is not None:
            check(most <= limit, "schedule.max_loops", most, f"<= {limit}, for which the model has weights")
        check(
            self.optim.warmup_steps <= self.train.steps or self.train.steps == 0,
            "optim.warmup_steps", self.optim.warmup_steps, f"at most train.steps={self.train.steps}",
        )  # fmt: skip
        rest = self.train.steps - self.optim.warmup_steps
        check(
            self.optim.constant_steps <= rest or self.train.steps == 0,
            "optim.constant_steps", self.optim.constant_steps, f"at most {rest}, the steps after the warm-up",
        )  # fmt: skip

    def _check_fixed_point(self) -> None:
        """Raise ValueError if the loop has no fixed point at which train.gradient could be taken."""
        gradient = f"train.gradient={self.train.gradient!r}"
        self.model.check_equal_loops(f"with {gradient}")
        for condition, name, value, expected in (
            (self.model.input_injection != "none", "model.input_injection", "none", "add or concat"),
            (
                self.train.gradient != "implicit" or self.train.precision == "fp32",
                "train.precision",
                self.train.precision,
                "'fp32', because bf16 does not converge,",
            ),
            (self.train.loss == "last", "train.loss", self.train.loss, "'last'"),
            (self.train.recompute == "none", "train.recompute", self.train.recompute, "'none'"),
            (self.schedule.num_grad_loops is None, "schedule.num_grad_loops", self.schedule.num_grad_loops, "None"),
        ):
            check(condition, name, value, f"{expected} with {gradient}")  # fmt: skip

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
        model.check_equal_loops(f"{words}, because loops are counted anew in each segment")
