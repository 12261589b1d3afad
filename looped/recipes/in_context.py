"""Recipes for in-context learning of function classes and tables."""

import dataclasses
from typing import Literal

from looped.config import ModelConfig, OptimConfig, RunConfig, ScheduleConfig, TrainConfig
from looped.recipes.reasoning import Variant
from looped.tasks import TaskConfig
from looped.tasks.in_context import InContextConfig
from looped.tasks.tables import TablesConfig

Problem = Literal["tree", "linear", "sparse", "relu", "tables"]

# Loop counts at the start and the end of the curriculum, from the looped-ICL code (Yang et al. 2024). The first is
# also the number of loops with gradient and loss. Trees and tables always use 12, as in the paper's table.
LOOPS: dict[Problem, tuple[int, int]] = {
    "tree": (12, 12), "linear": (15, 30), "sparse": (10, 20), "relu": (5, 12), "tables": (12, 12),
}  # fmt: skip


def in_context(problem: Problem, variant: Variant, published: bool = False) -> RunConfig:
    """One looped layer, which gets the prompt and applies the final LayerNorm in every loop, against 12 layers.

    Prompts grow from 5 to 20 coordinates, and from 26 to 101 points (trees, ReLU) or from 11 to 41 (linear).

    Published: GPT-2's block, but RMSNorm without gain in the modulated model. Looped models are initialised for depth
    1, and there is one position too many. Embedding and output start from the framework's defaults, the timestep
    network from N(0, 0.02). Trees ignore the curriculum of coordinates. The error is divided by the dimension; reports
    here also give the raw error. The paper evaluated the checkpoint after 200,000 of 500,000 steps.

    Corrected: one block (RMSNorm with gain) for all variants, and trees use only the coordinates of the curriculum.

    The loss is that of the last loop for trees and tables, otherwise the mean over the loops with gradient.
    --train.loss window --train.loss-window 12 selects this mean for any problem.
    """
    first, last = LOOPS[problem]
    looped = variant != "standard"
    model = ModelConfig(
        inputs="vectors",
        causal=True,
        num_heads=8,
        bias=True,
        final_norm="layer",
        core_layers=1 if looped else 12,
        num_loops=last if looped else 1,
        input_injection="add" if looped else "none",
        loop_norm=looped,
        modulation="scale_gate" if variant == "timestep" else "none",
    )
    if published:
        model = dataclasses.replace(
            model,
            max_seq_len=2 * 101 + 1,
            activation="gelu_tanh",
            norm="rms" if variant == "timestep" else "layer",
            norm_gain=variant != "timestep",
            initialisation="in_context",
            initialisation_depth=model.core_layers,
        )
    grows = looped and first < last
    schedule = ScheduleConfig()
    if grows:
        schedule = ScheduleConfig(
            kind="curriculum", min_loops=first, max_loops=last, loops_step=2, every=500, num_grad_loops=first
        )
    return RunConfig(
        note="The public code's protocol, with its quirks." if published else NOTES[problem],
        model=model,
        task=_task(problem, published),
        schedule=schedule,
        optim=OptimConfig(
            learning_rate=1e-4,
            betas=(0.9, 0.999),
            weight_decay=0.0,  # AdamW without decay is Adam
            warmup_steps=0,
            schedule="constant",
            clip_norm=5.0,
        ),
        train=TrainConfig(
            steps=200_000,
            batch_size=64,
            loss="window" if grows else "last",
            loss_window=first if grows else None,
            eval_every=5000,
            save_every=5000,
            precision="fp32" if published else "auto",
        ),
    )


NOTES: dict[Problem, str] = {
    "tree": "The public code's protocol for decision trees, without its quirks.",
    "linear": "Loops, window and curricula come from the looped-ICL code. The paper has only trees.",
    "sparse": "Loops, window and curricula come from the looped-ICL code. The paper has only trees.",
    "relu": "Loops, window and curricula come from the looped-ICL code. The paper has only trees.",
    "tables": "The public code tests tables of OpenML. Give files with --task.tables and --task.held-out.",
}


def _task(problem: Problem, published: bool) -> TaskConfig:
    if problem == "tables":
        return TablesConfig()
    full, start, step = (101, 26, 5) if problem in ("tree", "relu") else (41, 11, 2)
    task = InContextConfig(
        points=full, start_dim=5, dim_every=5000, start_points=start, points_step=step, points_every=5000
    )
    if problem == "tree":
        return dataclasses.replace(task, truncation="published" if published else "corrected")
    return dataclasses.replace(task, function="sparse_linear" if problem == "sparse" else problem)
