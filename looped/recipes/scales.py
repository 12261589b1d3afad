"""The paper's recipes at smaller sizes: `NAME@SCALE`, for example `sudoku-looped@cpu`.

A scale changes only sizes: the width, the depths, the number of training steps and the difficulty of the problems.
Published and corrected recipes keep their differences (norms, activation, schedule, quirks of the data). All variants
of one task share one learning rate, one batch size and one number of steps.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from looped.config import RunConfig

Scale = Literal["demo", "cpu", "gpu", "paper"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """The sizes of one task's recipes at a scale."""

    task: dict[str, Any]
    """Settings of the task."""
    d_model: int
    num_heads: int
    loops: tuple[int, ...]
    """Loop counts of the looped models in training; the last one is r in the table."""
    layers: int
    """Layers of the standard transformer."""
    steps: int
    batch_size: int
    learning_rate: float
    model: dict[str, Any] = field(default_factory=dict)
    """Further settings of the model."""

    @property
    def num_loops(self) -> int:
        return self.loops[-1]


LETTERS = {"min_letters": 3, "max_letters": 3, "letter_pool": 3}


def _vocabulary(size: int, context: int) -> dict[str, int]:
    """Sizes that the task would set after reading the text. Baselines of equal cost need them earlier."""
    return {"vocab_size": size, "output_size": size, "max_seq_len": context}


def cpu(share: float = 1.0) -> dict[str, Size]:
    """Sizes for two cores, meant for 45 minutes per table with two seeds; docs/results.md has the runs.

    Width 64 and 4 loops against 4 layers: a run takes about a minute on one core. The reasoning problems are the
    smallest on which one layer fails and four loops do not: strings of 6 to 8 from 3 letters, 4x4 Sudoku, Countdown
    with three numbers. Trees split on 3 coordinates instead of 20, with 21 points instead of 101, in 2,000 steps. With
    4 coordinates, 31 points and 1,250 steps, most models had not begun to learn them. Text uses a BPE of 2,048
    tokens, because with a larger one most weights would be embeddings; this vocabulary needs width 128. Models this
    narrow need learning rates 10x to 20x the published ones.
    """
    reasoning: dict[str, Any] = {
        "d_model": 64, "num_heads": 4, "loops": (2, 4), "layers": 4, "batch_size": 128, "learning_rate": 2e-3,
    }  # fmt: skip
    steps = round(1250 * share)
    prompt_steps = round(2000 * share)
    every = max(1, prompt_steps // 20)  # all points after 10% of the steps, the last coordinate after 30%
    prompts = {
        "dim": 3, "points": 21, "start_dim": 2, "dim_every": 6 * every, "start_points": 11, "points_step": 5,
        "points_every": every,
    }  # fmt: skip
    return {
        "sudoku": Size(task={"box": 2, "pool": 20_000}, steps=steps, **reasoning),
        "countdown": Size(task={"numbers": 3, "max_number": 15, "max_target": 30}, steps=steps, **reasoning),
        "lcs": Size(task={"length": 8, **LETTERS}, steps=steps, **reasoning),
        "edit_distance": Size(task={"length": 6, **LETTERS}, steps=steps, **reasoning),
        "in_context": Size(task=prompts, steps=prompt_steps, **{**reasoning, "batch_size": 64}),
        "text": Size(
            task={"tokenizer": "bpe", "bpe_size": 2048, "context": 64, "stride": 64}, steps=round(400 * share),
            d_model=128, num_heads=4, loops=(2, 4), layers=4, batch_size=32, learning_rate=2e-3,
            model=_vocabulary(2048, 64),
        ),
    }  # fmt: skip


def demo() -> dict[str, Size]:
    """The sizes of `cpu` with a tenth of its steps. In minutes it shows that everything runs; it ranks no models."""
    return cpu(0.1)


def gpu() -> dict[str, Size]:
    """Sizes for one Hopper GPU, meant for 30 minutes per table with one seed and eight runs at a time; not yet run.

    Width 128 and 16 loops against 12 layers (Sudoku, Countdown: 6, as in the paper), on problems between those of
    `cpu` and the paper. At these sizes kernel launches dominate the time, so runs side by side cost little.
    """
    strings = {"loops": (4, 8, 16), "d_model": 128, "num_heads": 4, "batch_size": 256, "learning_rate": 1e-3}
    boards = {"loops": (4, 8, 16), "d_model": 128, "num_heads": 8, "batch_size": 256, "learning_rate": 1e-3}
    return {
        "sudoku": Size(task={"pool": 20_000, "min_clues": 30, "max_clues": 40}, layers=6, steps=5000, **boards),
        "countdown": Size(task={}, layers=6, steps=5000, **boards),
        "lcs": Size(task={"length": 20, **LETTERS}, layers=12, steps=5000, **strings),
        "edit_distance": Size(task={"length": 12, **LETTERS}, layers=12, steps=5000, **strings),
        "in_context": Size(
            task={"dim_every": 200, "points_every": 200}, d_model=256, num_heads=8, loops=(3, 6, 12), layers=12,
            steps=15_000, batch_size=64, learning_rate=3e-4,
        ),
        "text": Size(
            task={"context": 256}, d_model=384, num_heads=6, loops=(6, 12, 24), layers=12, steps=4000, batch_size=48,
            learning_rate=1e-3, model=_vocabulary(50_257, 256),
        ),
    }  # fmt: skip


SIZES = {"demo": demo, "cpu": cpu, "gpu": gpu}


def at_scale(run: RunConfig, scale: str) -> RunConfig:
    """The run at a scale; `paper` leaves it unchanged.

    Raises:
        ValueError: the scale is unknown or has no size for the task.
    """
    if scale == "paper":
        return run
    if scale not in SIZES:
        raise ValueError(f"scale {scale!r}: expected one of {', '.join(SIZES)}, paper")
    size = SIZES[scale]().get(run.task.name)
    if size is None:
        raise ValueError(f"scale {scale!r}: has no size for the task {run.task.name}")
    standard = run.model.num_loops == 1
    share = size.steps / run.train.steps
    layers = size.layers if standard else run.model.core_layers
    constant_depth = run.model.initialisation_depth is not None
    model: dict[str, Any] = {
        "d_model": size.d_model,
        "num_heads": size.num_heads,
        "core_layers": layers,
        "num_loops": 1 if standard else size.num_loops,
        "initialisation_depth": layers if constant_depth else None,
        "vocab_size": None,  # the 50,304 classes of the public code would cost more than everything else
        "output_size": None,
        "max_seq_len": None,
    }
    return dataclasses.replace(
        run,
        model=dataclasses.replace(run.model, **model | size.model),
        task=dataclasses.replace(run.task, **size.task),
        optim=dataclasses.replace(
            run.optim,
            learning_rate=size.learning_rate,
            warmup_steps=round(run.optim.warmup_steps * share),
            update_every=max(1, round(run.optim.update_every * share)),
        ),
        train=dataclasses.replace(
            run.train,
            steps=size.steps,
            batch_size=size.batch_size,
            eval_every=max(1, size.steps // 2),
            eval_examples=min(run.train.eval_examples, 1024),
            save_every=size.steps,
            precision="auto",  # fp32, which some published runs use, would double the time on a processor with bf16
        ),
    )
