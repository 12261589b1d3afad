"""Checkpoints: whole folders that appear at once, and the models in them.

model.safetensors and, where weights are averaged, average.safetensors are all that using a model needs; nothing in
them is code. trainer.pt is for continuing one's own run.
"""

import io
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor

from looped.config import RunConfig
from looped.files import sync
from looped.models.transformer import LoopedTransformer
from looped.models.weights import WEIGHTS, load_weights
from looped.run_folder import CHECKPOINTS, Best, read_config, read_file

AVERAGE, STATE = "average.safetensors", "trainer.pt"


def save(
    folder: Path, step: int, model: LoopedTransformer, average: dict[str, Tensor] | None, state: dict[str, Any]
) -> None:
    """Write the checkpoint of a step: complete under its name, or not there at all.

    Args:
        folder: the run folder.
        average: averaged weights, if any.
        state: tensors and plain values, as `torch.load(weights_only=True)` reads them.

    Raises:
        OSError: where it cannot be written; the earlier checkpoints are then as they were.
    """
    final = _path(folder, step)
    if final.exists():  # of the same step of the same run, so with the same content
        return
    temporary = final.with_suffix(".tmp")
    try:
        temporary.mkdir(parents=True)
        save_model(model, str(temporary / WEIGHTS))
        if average is not None:
            save_file(average, str(temporary / AVERAGE))
        buffer = io.BytesIO()  # torch's own writing to a file hides the reason of a failure
        torch.save(state, buffer)
        (temporary / STATE).write_bytes(buffer.getbuffer())
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        temporary.rename(final)
        sync(final.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"{final}: cannot write this checkpoint, earlier ones are intact ({error})") from error


def prune(folder: Path, keep_last: int, best: int | None) -> None:
    """Remove all checkpoints but the last ones and that of step `best`."""
    for step in saved_steps(folder)[:-keep_last]:
        if step != best:
            shutil.rmtree(_path(folder, step))


def saved_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a run folder, ascending."""
    matches = (re.fullmatch(r"step_(\d+)", path.name) for path in (folder / CHECKPOINTS).glob("step_*"))
    return sorted(int(match[1]) for match in matches if match)


def load(folder: Path, step: int, model: LoopedTransformer, *, averaged: bool) -> dict[str, Any]:
    """Fill `model` (on cpu) with the weights of a checkpoint, and return the state saved beside them (on cpu).

    Where weights are `averaged`, the state has, besides what was saved as such, `average`: those weights by name.

    Raises:
        ValueError: where the checkpoint is missing, cut short, or of another architecture.
    """
    path = _path(folder, step)
    with _readable(path, WEIGHTS, STATE, *([AVERAGE] if averaged else [])):
        load_weights(model, path / WEIGHTS)
        with warnings.catch_warnings():  # torch remarks on some damage before it fails
            warnings.simplefilter("ignore")
            state = torch.load(path / STATE, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not {"optimizers", "progress"} <= state.keys():
            raise RuntimeError(f"{STATE} holds something else")
        return state | ({"average": load_file(path / AVERAGE)} if averaged else {})


@contextmanager
def _readable(path: Path, *names: str) -> Iterator[None]:
    """Raises ValueError, in one line, where a file in the checkpoint is missing or reading it fails."""
    for name in names:
        if not (path / name).exists():
            raise ValueError(f"{path / name}: no such file")
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # damage makes torch's reader raise almost anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: the checkpoint is cut short or damaged ({reason})") from None


def load_run(
    folder: Path, checkpoint: Literal["best", "last"] | int = "best"
) -> tuple[RunConfig, LoopedTransformer, int]:
    """The trained model of a run folder, on cpu, with its configuration and its step.

    Args:
        checkpoint: the best one by validation (the last where there was no validation yet), the last, or that
            of a step. Averaged weights (optim.ema_decay) take the place of the last ones.

    Raises:
        ValueError: one line, where there is no run folder, no such checkpoint, or a damaged or foreign one.
    """
    run = read_config(folder)
    steps = saved_steps(folder)
    if not steps:
        raise ValueError(f"{folder}: no checkpoint yet")
    step = steps[-1] if isinstance(checkpoint, str) else checkpoint
    if checkpoint == "best" and (best := read_file(folder, Best)):
        step = best.step
    if step not in steps:
        raise ValueError(f"{folder}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
    model = LoopedTransformer(run.model)
    name = AVERAGE if run.optim.ema_decay else WEIGHTS
    with _readable(_path(folder, step), name):
        load_weights(model, _path(folder, step) / name)
    return run, model.eval(), step


def _path(folder: Path, step: int) -> Path:
    return folder / CHECKPOINTS / f"step_{step:06d}"
