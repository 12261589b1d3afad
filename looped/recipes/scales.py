"""The paper's recipes at sizes that a machine can bear: `NAME@SCALE`, for example `sudoku-looped@cpu`.

A scale changes sizes alone: the width, the depths, the length of the training and the hardness of the problems. What
makes a recipe published or corrected (norms, activation, order of the schedule, quirks of the data) stays as it is,
and all variants of one task share one learning rate, one batch size and one number of steps.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from looped.config import RunConfig

Scale = Literal["demo", "cpu", "gpu", "paper"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a scale makes of one task's recipes."""

    task: dict[str, Any]
    """Settings of the task."""
    d_model: int
    num_heads: int
    loops: tuple[int, ...]
    """Loop counts that the looped models are trained at; the last one is the table's r."""
    layers: int
    """Layers of the standard transformer."""
    steps: int
    batch_size: int
    learning_rate: float

    @property
    def num_loops(self) -> int:
        return self.loops[-1]


LETTERS = {"min_letters": 3, "max_letters": 3, "letter_pool": 3}


def _small(task: dict[str, Any], steps: int) -> Size:
    return Size(
        task=task, d_model=64, num_heads=4, loops=(2, 4), layers=4, steps=steps, batch_size=128, learning_rate=2e-3
    )


def cpu(steps: int = 2500) -> dict[str, Size]:
    """Two cores, 45 minutes for the four tasks of Table 2 with two seeds.

    Width 64 and 4 loops against 4 layers: one run takes a minute or two on one core, and 64 of them fit. The problems
    are the smallest on which one layer fails and four loops do not: strings of 6 to 8 over 3 letters, 4x4 Sudoku,
    Countdown with three numbers. Embeddings of these widths want a learning rate 20 times the published one.
    """
    return {
        "sudoku": _small({"box": 2, "pool": 20_000}, steps),
        "countdown": _small({"numbers": 3, "max_number": 12, "max_target": 30}, steps),
        "lcs": _small({"length": 8, **LETTERS}, steps),
        "edit_distance": _small({"length": 6, **LETTERS}, steps),
    }


def demo() -> dict[str, Size]:
    """Minutes: the problems of `cpu` with a tenth of its steps. It shows that all of it runs; it decides nothing."""
    return cpu(250)


def gpu() -> dict[str, Size]:
    """One GPU of Hopper's size, 30 minutes a table with one seed and eight runs at a time.

    Width 128 and 16 loops against 12 layers (Sudoku, Countdown: 6, as in the paper), on problems half way to the
    paper's. At these sizes a GPU is busy with starting kernels, so that runs side by side cost little.
    """
    strings = {"loops": (4, 8, 16), "d_model": 128, "num_heads": 4, "batch_size": 256, "learning_rate": 1e-3}
    boards = {"loops": (4, 8, 16), "d_model": 128, "num_heads": 8, "batch_size": 256, "learning_rate": 1e-3}
    return {
        "sudoku": Size(task={"pool": 20_000, "min_clues": 30, "max_clues": 40}, layers=6, steps=5000, **boards),
        "countdown": Size(task={}, layers=6, steps=5000, **boards),
        "lcs": Size(task={"length": 20, **LETTERS}, layers=12, steps=5000, **strings),
        "edit_distance": Size(task={"length": 12, **LETTERS}, layers=12, steps=5000, **strings),
    }


SIZES = {"demo": demo, "cpu": cpu, "gpu": gpu}


def at_scale(run: RunConfig, scale: str) -> RunConfig:
    """The run at a scale; `paper` leaves it as it is.

    Raises:
        ValueError: for an unknown scale, or one that has no size for the task.
    """
    if scale == "paper":
        return run
    if scale not in SIZES:
        raise ValueError(f"scale {scale!r}: expected one of {', '.join(SIZES)}, paper")
    size = SIZES[scale]().get(run.task.name)
    if size is None:
        raise ValueError(f"recipe {run.recipe!r}: the scale {scale} has no size for the task {run.task.name}")
    standard = run.model.num_loops == 1
    share = size.steps / run.train.steps
    layers = size.layers if standard else run.model.core_layers
    constant_depth = run.model.initialisation_depth is not None
    return dataclasses.replace(
        run,
        model=dataclasses.replace(
            run.model,
            d_model=size.d_model,
            num_heads=size.num_heads,
            core_layers=layers,
            num_loops=1 if standard else size.num_loops,
            initialisation_depth=layers if constant_depth else None,
            vocab_size=None,  # the 50,304 classes of a public script would cost more than all the rest
            output_size=None,
        ),
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
            eval_every=max(1, size.steps // 5),
            save_every=size.steps,
            compile=None if scale == "gpu" else False,  # on CPUs, models this small do not earn back its start
        ),
    )
