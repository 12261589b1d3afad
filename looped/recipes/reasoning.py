"""Recipes for the paper's reasoning tasks.

Each `(task, variant)` pair exists as published and as corrected. Published means the settings and quirks of the public
code, as far as it has a file of settings. If the public record lacks a setting, `note` gives the choice made here.
"""

import dataclasses
from typing import Literal

from looped.config import ModelConfig, OptimConfig, RunConfig, ScheduleConfig, TrainConfig
from looped.tasks import TaskConfig
from looped.tasks.countdown import CountdownConfig
from looped.tasks.edit_distance import EditDistanceConfig
from looped.tasks.lcs import LCSConfig
from looped.tasks.p_hop import PHopConfig
from looped.tasks.sudoku import SudokuConfig

Variant = Literal["standard", "looped", "timestep"]

# --- Laptop ----------------------------------------------------------------------------------------------


def modulated(model: ModelConfig) -> ModelConfig:
    """The model with scales and gates of the timestep (TMLT). At first it computes the same (gate_offset=1)."""
    return dataclasses.replace(model, modulation="scale_gate", gate_offset=1)


def p_hop(core_layers: int = 1, num_loops: int = 3, timestep: bool = False) -> RunConfig:
    """2-hop induction on 24 letters in seconds on a CPU: one layer looped 3 times, the depth of Sanford et al. (2024).

    The loss is on all positions that have an answer (not published). Rotary positions make the letter before easy to
    find. With AdamW the accuracy stays for 600 steps at that of a guess from the last letter, 50% (docs/log.md).
    """
    model = ModelConfig(
        d_model=48, num_heads=4, core_layers=core_layers, num_loops=num_loops, causal=True, positions="rotary"
    )
    return RunConfig(
        note="A small version of p-hop induction (published: length 256, p=16 and 32, loss at the last letter only).",
        model=modulated(model) if timestep else model,
        task=PHopConfig(hops=2, length=24, loss="dense"),
        optim=OptimConfig(optimizer="muon", learning_rate=1e-2),
        train=TrainConfig(steps=1000, batch_size=32, eval_every=50),
    )


def sudoku_4x4(timestep: bool = False) -> RunConfig:
    """4x4 Sudoku in seconds on a CPU: one layer with one head, looped 4 times, with Muon and a high learning rate.

    No symmetry of Sudoku turns a board of one split into a board of another. The splits share full grids, because
    there are only two up to symmetry.
    """
    model = ModelConfig(d_model=64, num_heads=1, num_loops=4, initialisation="pytorch")
    return RunConfig(
        note="Sized for seconds on a CPU (no published counterpart).",
        model=modulated(model) if timestep else model,
        task=SudokuConfig(box=2, pool=20_000),
        optim=OptimConfig(optimizer="muon", learning_rate=1.5e-2, warmup_steps=20),
        train=TrainConfig(steps=400, batch_size=64, eval_every=50),
    )


def edit_distance_small(timestep: bool = False) -> RunConfig:
    """Edit distance of 6 letters from an alphabet of 3 in a minute on a CPU: one layer looped 4 times.

    The model is bidirectional; its answer is the output at <sep>. Muon, sinusoidal positions and embeddings of unit
    size each cut the number of steps (docs/log.md).
    """
    model = ModelConfig(d_model=64, num_heads=4, num_loops=4, positions="sinusoidal", initialisation="pytorch")
    return RunConfig(
        note="Sized for a minute on a CPU (no published counterpart).",
        model=modulated(model) if timestep else model,
        task=EditDistanceConfig(length=6, min_letters=3, max_letters=3, letter_pool=3),
        optim=OptimConfig(optimizer="muon", learning_rate=5e-3),
        train=TrainConfig(steps=1500, batch_size=128, eval_every=100),
    )


def sudoku() -> RunConfig:
    """9x9 Sudoku, sized for seven minutes on one GPU; docs/results.md has its results.

    Two layers are looped 8 times, with scales and gates and the loss on all loops. Muon learns this in far fewer steps
    than AdamW (docs/log.md). The learning rate is constant, so that training can stop at any time. Averaged weights
    are evaluated. Give puzzles with --task.files; otherwise the task generates them.
    """
    return RunConfig(
        note="Sized for minutes on one GPU. The published protocol is sudoku-published-*.",
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


def sudoku_laptop() -> RunConfig:
    """9x9 Sudoku in an hour on one thread of a CPU; docs/results.md has its results.

    A token is a candidate: a cell and a digit. Graph heads sum over the candidates of one cell, and over those of one
    digit in a row, column or box, so all symmetries of Sudoku are built in and nothing else is. One small layer is
    looped 8 to 32 times, with gradient in the last 8 loops and the loss on the last 4. It is then run for far more
    loops than in training: `looped solve --num-loops 128`. The learning rate is constant, so training can stop at any
    time, and averaged weights are evaluated. docs/log.md has the measurements behind each choice.
    """
    return RunConfig(
        note="Sized for one hour on one thread. The structure of the board is given, by graph heads.",
        model=ModelConfig(
            d_model=32, num_heads=0, d_head=16, graph_heads=("row", "column", "box", "cell"), d_ff=64, num_loops=32,
            activation="swiglu", positions="none", input_injection="add", loop_norm=True, initialisation="pytorch",
        ),
        task=SudokuConfig(tokens="candidates", pool=20_000),
        schedule=ScheduleConfig(kind="random", min_loops=8, max_loops=32, num_grad_loops=8),
        optim=OptimConfig(
            optimizer="muon", learning_rate=5e-3, betas=(0.9, 0.98), warmup_steps=50, schedule="constant",
            ema_decay=0.998,
        ),
        train=TrainConfig(
            steps=30_000, batch_size=8, loss="window", loss_window=4, precision="fp32", compile=False, workers=0,
            eval_every=5000, eval_examples=256, save_every=1000, log_every=250,
        ),
    )  # fmt: skip


# --- Paper scale -------------------------------------------------------------------------------------------

EPOCH = 1_000_000 // 128  # steps of the public code for one pass over its million examples


def strings(task: Literal["edit_distance", "lcs"], variant: Variant, published: bool) -> RunConfig:
    """Edit distance of 60 letters or LCS of 100: one layer looped 100 times, against 12 layers.

    Published: the causal model of the public code. Its three variants also differ in norm, gain and activation. Its
    learning rate changes once per epoch and is zero in the first epoch, which therefore trains nothing. Corrected:
    one block for all variants, a learning rate that changes every step, and gradient clipping.
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
        note="The public code used one million fixed examples 100 times. Here every batch is new, and no example "
        "occurs in two splits. " + ("With the public code's quirks." if published else "Without its quirks."),
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

    Published: sinusoids of position and timestep are added before every loop. There are 50,304 classes, and 12 layers
    or (for Countdown) 50 loops, as in the only public code. The paper's timestep-modulated model for these tasks was
    never public. The one here uses the published block of the other tasks in the same setting.
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
        steps, batch_size, rest = 200 * 100_000 // 24, 24, "100,000 fixed boards rated at least 3.0, 200 times"
    return RunConfig(
        note=f"The public code used {rest}. For Sudoku, give the file with --task.files and --task.min-rating 3."
        + (" With the public code's quirks." if published else " Without its quirks."),
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
        note="sudoku-looped with learned halting; no published counterpart. The ponder cost is not tuned.",
        model=dataclasses.replace(run.model, halting=kind),
        train=dataclasses.replace(run.train, loss="halting"),
    )
