"""The paper's reasoning tasks: complete runs as functions.

Each `(task, variant)` pair exists as `published` (the public code's settings with its quirks, as far as a file of
settings exists) and as corrected. Where the public record is silent, `note` says what was chosen.
"""

import dataclasses
from typing import Literal

from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.tasks import TaskConfig
from looped.tasks.countdown import CountdownConfig
from looped.tasks.edit_distance import EditDistanceConfig
from looped.tasks.lcs import LCSConfig
from looped.tasks.sudoku import SudokuConfig

Variant = Literal["standard", "looped", "timestep"]

# --- Laptop ----------------------------------------------------------------------------------------------


def demo(variant: Variant, num_loops: int = 4) -> RunConfig:
    """Edit distance of strings of 6 over 3 letters: small enough for a CPU, and out of reach of one layer.

    All variants see the same examples in the same order. The answer is read at <sep> by a bidirectional model.
    Embeddings of unit size learn this task in far fewer steps than the small ones of initialisation=gpt2.
    """
    model = ModelConfig(
        d_model=64, num_heads=4, num_loops=1 if variant == "standard" else num_loops, initialisation="pytorch"
    )
    if variant == "timestep":
        model = dataclasses.replace(model, modulation="scale_gate")
    return RunConfig(
        note="A small edit distance (no published counterpart): what looping, and the timestep, add at equal data.",
        model=model,
        task=EditDistanceConfig(length=6, min_letters=3, max_letters=3, letter_pool=3),
        optim=OptimConfig(learning_rate=2e-3, warmup_steps=100, weight_decay=0.01),
        # One thread and no compiler: models this small gain from neither.
        train=TrainConfig(steps=3000, batch_size=128, compile=False, eval_every=500, save_every=3000),
    )


def sudoku() -> RunConfig:
    """9x9 Sudoku, sized for seven minutes on one GPU; docs/results.md says what it solves.

    Two layers looped 8 times with gains and gates, the loss on all loops. Muon learns this in far fewer steps than
    AdamW (docs/log.md). The learning rate stays, so that training may end at any time; what is evaluated are averaged
    weights. Give it puzzles with --task.files; else it makes its own.
    """
    return RunConfig(
        note="Sized for one GPU and minutes; the published protocol is sudoku-published-*.",
        model=ModelConfig(
            d_model=256, num_heads=8, core_layers=2, num_loops=8, modulation="scale_gate", gate_offset=1,
            norm_gain=False,
        ),
        task=SudokuConfig(pool=20_000),
        optim=OptimConfig(
            optimizer="muon", learning_rate=1e-3, betas=(0.9, 0.98), weight_decay=0.05, warmup_steps=300,
            schedule="constant", ema_decay=0.999,
        ),
        train=TrainConfig(
            steps=12_500, batch_size=256, loss="all", workers=2, eval_every=500, eval_examples=1024, log_every=250
        ),
    )  # fmt: skip


# --- Paper scale -------------------------------------------------------------------------------------------

EPOCH = 1_000_000 // 128  # steps in which the public code sees its million examples once


def strings(task: Literal["edit_distance", "lcs"], variant: Variant, published: bool) -> RunConfig:
    """Edit distance of 60 letters or LCS of 100: one layer looped 100 times, against 12 layers.

    Published: the causal model of the public code, whose three variants also differ in norm, gain and
    activation; the learning rate changes once an epoch, so that the first epoch trains nothing. Corrected:
    one block for all variants, the learning rate follows the step, the gradient is clipped.
    """
    model = ModelConfig(
        causal=True,
        positions="sinusoidal",
        embedding_norm=True,
        final_norm="layer",
        bias=True,
        initialisation="pytorch",
        core_layers=12 if variant == "standard" else 1,
        num_loops=1 if variant == "standard" else 100,
        modulation="scale_gate" if variant == "timestep" else "none",
    )
    if published and variant == "timestep":
        model = dataclasses.replace(model, activation="silu", norm_gain=False)
    elif published:
        model = dataclasses.replace(model, activation="gelu_tanh", norm="layer" if variant == "standard" else "rms")
    data: TaskConfig
    if task == "edit_distance":
        data = EditDistanceConfig(version="published" if published else "corrected")
    else:
        data = LCSConfig(version="published" if published else "corrected")
    optim = OptimConfig(learning_rate=1e-4, betas=(0.9, 0.999), warmup_steps=5 * EPOCH)
    if published:
        optim = dataclasses.replace(optim, decay="all_but_bias", schedule="linear", update_every=EPOCH, clip_norm=None)
    return RunConfig(
        note="The public code saw one million fixed examples 100 times; here every batch is new, and no "
        "example of another split can occur. " + ("With the public quirks." if published else "Without its quirks."),
        model=model,
        task=data,
        optim=optim,
        train=TrainConfig(
            steps=100 * EPOCH,
            batch_size=128,
            eval_every=EPOCH,
            save_every=EPOCH,
            precision="fp32" if published else "auto",
        ),
    )


def puzzles(task: Literal["sudoku", "countdown"], variant: Variant, published: bool) -> RunConfig:
    """Sudoku and Countdown: one layer looped 32 times, against 6 layers; the loss on all loops.

    Published: sinusoids of position and timestep added before every loop, 50,304 classes, 12 layers or (for
    Countdown) 50 loops as in the only public code; its timestep-modulated model never was public, so that this
    one is the published block of the other tasks in the same frame.
    """
    loops = 50 if published and task == "countdown" else 32
    model = ModelConfig(core_layers=12 if published else 6) if variant == "standard" else ModelConfig(num_loops=loops)
    if variant == "timestep":
        model = dataclasses.replace(model, modulation="scale_gate")
    if published:
        model = dataclasses.replace(
            model,
            vocab_size=50_304,
            output_size=50_304,
            norm="layer",
            positions="sinusoidal",
            positions_every_loop=True,
            modulation=model.modulation if variant == "timestep" else "additive",
            initialisation_depth=model.core_layers,
        )
    data: TaskConfig = CountdownConfig()
    steps, batch_size, rest = 500 * 500_000 // 128, 128, "500,000 fixed examples 500 times"
    if task == "sudoku":
        data = SudokuConfig(pool=100_000, loss="all", augment=False) if published else SudokuConfig(pool=100_000)
        steps, batch_size, rest = 200 * 100_000 // 24, 24, "100,000 fixed boards rated 3.0 and more 200 times"
    return RunConfig(
        note=f"The public code saw {rest}; for Sudoku give the file with --task.files and --task.min-rating 3."
        + (" With the public quirks." if published else " Without its quirks."),
        model=model,
        task=data,
        optim=OptimConfig(
            learning_rate=1e-4,
            betas=(0.9, 0.999),
            warmup_steps=10_000,
            clip_norm=None if published else 1.0,
        ),
        train=TrainConfig(
            steps=steps,
            batch_size=batch_size,
            loss="all",
            eval_every=5000,
            save_every=5000,
            precision="fp32" if published else "auto",
        ),
    )


def halting(kind: Literal["gate", "act"]) -> RunConfig:
    """Sudoku by a looped model that learns when to stop: by an exit gate, or by adaptive computation time."""
    run = puzzles("sudoku", "looped", published=False)
    return dataclasses.replace(
        run,
        note="sudoku-looped, with learned halting: no published counterpart. The price of loops is not tuned.",
        model=dataclasses.replace(run.model, halting=kind),
        train=dataclasses.replace(run.train, loss="halting"),
    )
