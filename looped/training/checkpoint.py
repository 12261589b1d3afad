"""Checkpoints: folders that are written whole or not at all, and the models in them.

A model needs only model.safetensors, or average.safetensors if its weights are averaged. These files contain no code.
trainer.pt holds the rest of the state and is read only when a run continues.
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
    """Write the checkpoint of a step, whole or not at all.

    Args:
        folder: the run folder.
        average: averaged weights, if any.
        state: tensors and plain values, as `torch.load(weights_only=True)` reads them.

    Raises:
        OSError: the checkpoint cannot be written; earlier checkpoints are intact.
    """
    final = _path(folder, step)
    if final.exists():  # the checkpoint of the same step of the same run has the same content
        return
    temporary = final.with_suffix(".tmp")
    try:
        temporary.mkdir(parents=True)
        save_model(model, str(temporary / WEIGHTS))
        if average is not None:
            save_file(average, str(temporary / AVERAGE))
        buffer = io.BytesIO()  # torch hides the reason of a failure when it writes a file itself
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
    """Remove all checkpoints except the last `keep_last` and that of step `best`."""
    for step in saved_steps(folder)[:-keep_last]:
        if step != best:
            shutil.rmtree(_path(folder, step))


def saved_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a run folder, ascending."""
    matches = (re.fullmatch(r"step_(\d+)", path.name) for path in (folder / CHECKPOINTS).glob("step_*"))
    return sorted(int(match[1]) for match in matches if match)


def load(folder: Path, step: int, model: LoopedTransformer, *, averaged: bool) -> dict[str, Any]:
    """Load the weights of a checkpoint into `model` (on cpu), and return the state that was saved with them (on cpu).

    With `averaged`, the state has the additional key `average`: the averaged weights by name.

    Raises:
        ValueError: the checkpoint is missing, cut short, or has another architecture.
    """
    path = _path(folder, step)
    with _readable(path, WEIGHTS, STATE, *([AVERAGE] if averaged else [])):
        load_weights(model, path / WEIGHTS)
        with warnings.catch_warnings():  # torch warns about some damage before it fails
            warnings.simplefilter("ignore")
            state = torch.load(path / STATE, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not {"optimizers", "progress"} <= state.keys():
            raise RuntimeError(f"{STATE} holds something else")
        return state | ({"average": load_file(path / AVERAGE)} if averaged else {})


@contextmanager
def _readable(path: Path, *names: str) -> Iterator[None]:
    """Turn errors of reading a checkpoint into a ValueError of one line; the same for a missing file."""
    for name in names:
        if not (path / name).exists():
            raise ValueError(f"{path / name}: no such file")
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # a damaged file makes torch raise almost any exception
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: the checkpoint is cut short or damaged ({reason})") from None


def load_run(
    folder: Path, checkpoint: Literal["best", "last"] | int = "best"
) -> tuple[RunConfig, LoopedTransformer, int]:
    """The configuration of a run folder, its trained model on cpu, and the step of the checkpoint.

    Args:
        checkpoint: the best by validation (the last if there was no validation), the last, or a step. If weights are
            averaged (optim.ema_decay), the model gets the averaged weights.

    Raises:
        ValueError: `folder` is not a run folder, or the checkpoint is missing, damaged, or has another architecture.
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
