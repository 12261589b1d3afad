"""Length generalisation of looped transformers (Fan, Du, Ramchandran & Lee, ICLR 2025)."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.recipes.work import Claim, Row, Work
from looped.tasks.n_rasp_l import NRaspLConfig
from looped.tasks.n_rasp_l.config import PROBLEMS, Problem

PUBLISHED = {
    # layers, heads, longest length in training, steps after which it becomes one longer, length in evaluation
    "parity": (1, 64, 20, 500, 40),
    "copy": (2, 8, 19, 1000, 30),
    "addition": (3, 8, 19, 1600, 30),
    "sum": (2, 16, 19, 500, 24),
    "multiplication": (4, 8, 11, 500, 15),
    "unique_set": (3, 8, 19, 1000, 30),
}


def published(problem: Problem) -> RunConfig:
    """The published settings: a GPT-2 block without positions, and 100,001 steps of 64 new examples."""
    layers, heads, length, every, longer = PUBLISHED[problem]
    return RunConfig(
        note="The published settings. Choices: an embedding instead of one-hot vectors and a linear layer; rows are as "
        "long as the longest problem in the batch needs; inputs are split by their hash.",
        model=ModelConfig(
            causal=True, positions="none", norm="layer", bias=True, activation="gelu_tanh", input_injection="add",
            loop_norm=True, initialisation="in_context", initialisation_depth=layers, core_layers=layers,
            d_model=256, num_heads=heads, num_loops=2 * length if problem == "multiplication" else length,
        ),
        task=NRaspLConfig(
            problem=problem, length=length, eval_lengths=(longer,), start_length=1, length_every=every
        ),
        optim=OptimConfig(
            learning_rate=1e-4, betas=(0.9, 0.999), warmup_steps=0, constant_steps=(length + 1) * every
        ),
        train=TrainConfig(
            steps=100_001, batch_size=64, loss="task", precision="fp32", eval_every=5000, save_every=5000
        ),
    )  # fmt: skip


def small(
    problem: Problem, length: int, longer: tuple[int, ...], every: int, steps: int, layers: int = 1, **model: Any
) -> RunConfig:
    """The published model with 8 heads of width 8, trained with Muon for minutes at most."""
    run = published(problem)
    sizes: dict[str, Any] = {"d_model": 64, "num_heads": 8, "core_layers": layers, "initialisation_depth": layers}
    loops = 2 * length if problem == "multiplication" else length
    return dataclasses.replace(
        run,
        note="Sized for a minute on a CPU. Muon, not AdamW, and averaged weights (not published).",
        model=dataclasses.replace(run.model, num_loops=loops, **sizes | model),
        task=NRaspLConfig(problem=problem, length=length, eval_lengths=longer, start_length=1, length_every=every),
        optim=OptimConfig(optimizer="muon", learning_rate=5e-3, constant_steps=every * length - 100, ema_decay=0.98),
        train=TrainConfig(steps=steps, batch_size=32, loss="task", eval_every=200, eval_examples=256),
    )


def fixed(run: RunConfig) -> RunConfig:
    """The same run with the same number of loops for all lengths (FOP-Loop-Fixed)."""
    return dataclasses.replace(run, train=dataclasses.replace(run.train, loss="last"))


def uninjected(run: RunConfig) -> RunConfig:
    """The same run, but the input is only the initial state (FOP-Loop-Adaptive-WO)."""
    return dataclasses.replace(run, model=dataclasses.replace(run.model, input_injection="none"))


parity = partial(small, "parity", 16, (20, 24, 28, 32), 30, 1200)
RECIPES: dict[str, Callable[[], RunConfig]] = {
    "fan-parity": parity,
    "fan-parity-fixed": lambda: fixed(parity()),
    "fan-parity-uninjected": lambda: uninjected(parity()),
    "fan-copy": partial(small, "copy", 12, (16, 24), 50, 1500, 2),
    "fan-addition": partial(small, "addition", 10, (15,), 50, 1500, 2),
    "fan-sum": partial(small, "sum", 12, (16, 24), 50, 1500, 1),
    "fan-unique-set": partial(small, "unique_set", 10, (15,), 50, 1500, 2),
    "fan-multiplication": partial(small, "multiplication", 6, (9,), 50, 1500, 2),
    **{f"fan-{problem.replace('_', '-')}-published": partial(published, problem) for problem in PROBLEMS},
}

N, FIXED, UNINJECTED = ("fan-parity",), ("fan-parity-fixed",), ("fan-parity-uninjected",)
PAPER = ("fan-parity-published",)
LOOPS = tuple(range(1, 41))


def parity_rows(length: str) -> tuple[Row, ...]:
    row = partial(Row, task=f"Parity, length {length}", groups=(length,), loops=LOOPS)
    return (
        row(model="loops = n", words=N, paper="near 1 (figure)", published=PAPER),
        row(model="16 loops at all lengths", words=FIXED, published=(*PAPER, "--train.loss", "last")),
        row(
            model="loops = n, no input injection",
            words=UNINJECTED,
            published=(*PAPER, "--model.input-injection", "none"),
        ),
    )


def beats(length: str) -> Claim:
    says = f"Loops = n beat 16 loops at length {length}."
    return Claim(task=f"Parity, length {length}", says=says, first=FIXED, second=N, groups=(length,))


WORK = Work(
    title="Length generalisation",
    source="Fan, Du, Ramchandran & Lee, Looped Transformers for Length Generalization (ICLR 2025)",
    rows=tuple(row for length in ("16", "24", "32") for row in parity_rows(length)),
    claims=(beats("24"), beats("32")),
    differs=(
        "The paper trains a model of width 256 on lengths 1 to 20 for 100,001 steps of 64 examples, with AdamW. These "
        "runs have width 64, lengths 1 to 16, 1,200 steps of 32 examples, Muon and averaged weights.",
        "The paper publishes figures, not numbers.",
        "Inputs are split by a hash. The paper draws test inputs without regard to the training inputs.",
    ),
)
