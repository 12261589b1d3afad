"""Checkpoints: folders that are written whole or not at all, and the models in them.

A model needs only model.safetensors, or average.safetensors if its weights are averaged. The other files are read only
when a run continues. None of them contains code.
"""

import json
import math
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer

from looped.config import RunConfig, Start
from looped.files import new_folder, read_object, sha256, temporary_name
from looped.models.transformer import LoopedTransformer
from looped.models.weights import WEIGHTS, fill, load_weights, opened, tied, write_tensors
from looped.run_folder import CHECKPOINTS, Best, Summary, read_config, read_file, saved_steps
from looped.strict import check, from_dict, to_dict
from looped.training.optim import AdamW, Muon, WeightAverage

AVERAGE, MOMENTS, PROGRESS = "average.safetensors", "optimizer.safetensors", "progress.json"
STATE = "state.safetensors"
KEYS = {AdamW: ("exp_avg", "exp_avg_sq", "step"), Muon: ("momentum_buffer",)}
"""The tensors of each weight in an optimiser's state. `step` is a number; the others have the weight's shape."""


@dataclass
class Progress:
    """The progress of a run: the part of a checkpoint besides weights, averages and the optimiser's state."""

    step: int = 0
    """Number of finished steps, which is also the position in the data."""
    seconds: float = 0.0
    best: Best | None = None
    """The content of best.json."""
    metrics_bytes: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the `Meter`."""
    without_moments: tuple[str, ...] = ()
    """Weights that the optimiser has no state of, because no gradient has reached them yet."""

    def __post_init__(self) -> None:
        for name in ("step", "seconds", "metrics_bytes"):
            check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "a finite number, at least 0")
        for name, value in self.sums.items():
            check(math.isfinite(value), f"sums.{name}", value, "a finite number")
        check(not self.sums or "steps" in self.sums, "sums", self.sums, "a sum named steps")
        if self.best:
            check(self.best.step <= self.step, "best.step", self.best.step, f"at most step={self.step}")


def save(
    folder: Path,
    progress: Progress,
    model: LoopedTransformer,
    optimizers: Sequence[Optimizer],
    average: WeightAverage | None,
    state: Tensor | None = None,
    *,
    writes: bool = True,
) -> None:
    """Write the checkpoint of the step `progress.step` into a run folder, whole or not at all.

    Its files are the same for any number of devices: sharded tensors are gathered, one at a time, and each shared
    weight is written once. All devices must call this.

    Args:
        state: in the middle of a segment, the state from which the next step begins (batch, seq, d_model).
        writes: whether this process writes; the others only take part in gathering.

    Raises:
        OSError: the checkpoint cannot be written; earlier checkpoints are intact.
    """
    final = _path(folder, progress.step)
    writes = writes and not final.exists()  # the checkpoint of the same step of the same run has the same content
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    states = {names[parameter]: state for optimizer in optimizers for parameter, state in optimizer.state.items()}
    moments = {f"{name}/{key}": tensor for name, state in states.items() for key, tensor in state.items()}
    without = tuple(name for name in names.values() if name not in states)
    built = model.state_dict(keep_vars=True)
    shared = {name: first for first, *others in tied(built, built) for name in others}
    try:
        with new_folder(final) if writes else nullcontext() as temporary:
            once = {name: tensor for name, tensor in built.items() if name not in shared}
            write_tensors(temporary and temporary / WEIGHTS, once, {"format": "pt", **shared})
            if average is not None:
                write_tensors(temporary and temporary / AVERAGE, average.state_dict())
            write_tensors(temporary and temporary / MOMENTS, moments)
            if state is not None:
                write_tensors(temporary and temporary / STATE, {"state": state})
            if temporary:
                content = asdict(replace(progress, without_moments=without))
                (temporary / PROGRESS).write_text(json.dumps(content, indent=2))
    except (OSError, SafetensorError) as error:
        raise OSError(f"{final}: cannot write this checkpoint, earlier ones are intact ({error})") from error


def prune(folder: Path, keep_last: int, best: int | None) -> None:
    """Remove all checkpoints except the last `keep_last` and that of step `best`."""
    for step in saved_steps(folder)[:-keep_last]:
        if step != best:
            removed = temporary_name(_path(folder, step))
            _path(folder, step).rename(removed)  # a checkpoint is never half removed
            shutil.rmtree(removed)


def load(
    folder: Path,
    step: int,
    model: LoopedTransformer,
    optimizers: Sequence[Optimizer],
    average: WeightAverage | None,
) -> Progress:
    """Load the checkpoint of a step into the model, its optimisers and its average. Returns the progress.

    Raises:
        ValueError: a file is missing, damaged, or of another model, optimiser or step; names the file and the entry.
    """
    path = _path(folder, step)
    load_weights(model, path / WEIGHTS)
    if average is not None:
        with average.applied():
            load_weights(model, path / AVERAGE)
    try:
        progress = from_dict(Progress, read_object(path / PROGRESS), "progress")
        check(progress.step == step, "progress.step", progress.step, f"{step}, as the folder's name says")
    except ValueError as error:
        raise ValueError(f"{path / PROGRESS}: {str(error).removeprefix(f'{path / PROGRESS}: ')}") from None
    _load_moments(path, progress, model, optimizers)
    return progress


def load_state(folder: Path, step: int, run: RunConfig) -> Tensor:
    """The state from which the step after `step` begins, in the middle of a segment: (batch, seq, d_model).

    Raises:
        ValueError: the file is missing, damaged, or of another batch or model.
    """
    file = _path(folder, step) / STATE
    with opened(file) as found:
        state = found.get_tensor("state") if "state" in found.keys() else None  # noqa: SIM118
    shape = (run.train.batch_size, run.model.max_seq_len, run.model.d_model)
    found = "absent" if state is None else tuple(state.shape)
    if state is None or state.ndim != 3 or (state.shape[0], state.shape[2]) != (shape[0], shape[2]):
        raise ValueError(f"{file}: state is {found}, expected {shape}")
    if not state.isfinite().all():
        raise ValueError(f"{file}: state: expected finite numbers")
    return state


def _load_moments(path: Path, progress: Progress, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Load the optimisers' state, after a comparison of every tensor with the weight that it belongs to."""
    file, names = path / MOMENTS, {parameter: name for name, parameter in model.named_parameters()}
    states = {
        names[parameter]: (optimizer, parameter)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name in progress.without_moments:
        if states.pop(name, None) is None:
            raise ValueError(f"{path / PROGRESS}: progress.without_moments: the model has no weight {name!r}")
    wanted = {
        f"{name}/{key}": (torch.float32, ()) if key == "step" else (parameter.dtype, tuple(parameter.shape))
        for name, (optimizer, parameter) in states.items()
        for key in KEYS[type(optimizer)]
    }
    with opened(file) as found:
        there = {*found.keys()}
        for entry in sorted(wanted.keys() | there):
            tensor = found.get_tensor(entry) if entry in there else None
            here = None if tensor is None else (tensor.dtype, tuple(tensor.shape))
            if tensor is None or here != wanted.get(entry):
                expected = wanted.get(entry, "no such entry")
                raise ValueError(f"{file}: {entry} is {here or 'absent'}, expected {expected}")
            least = {"step": 1, "exp_avg_sq": 0}.get(entry.rpartition("/")[2], -math.inf)
            if not tensor.isfinite().all() or (tensor < least).any():
                raise ValueError(f"{file}: {entry}: expected finite numbers from {least} on")
        for name, (optimizer, parameter) in states.items():
            for key in KEYS[type(optimizer)]:
                moment = torch.zeros((), device=parameter.device) if key == "step" else torch.empty_like(parameter)
                fill(moment, found.get_tensor(f"{name}/{key}"))
                optimizer.state[parameter][key] = moment


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
    run, step, path = _chosen(folder, checkpoint)
    model = LoopedTransformer(run.model)
    try:
        load_weights(model, path)
    except ValueError:
        if isinstance(checkpoint, int) or step in saved_steps(folder):
            raise
        return load_run(folder, checkpoint)  # a training has just removed this checkpoint for a newer one
    return run, model.eval(), step


def start_from(folder: Path) -> Start:
    """The weights that `load_run` would load, as the start of another training. Raises as `load_run`."""
    _, step, path = _chosen(folder, "best")
    return Start(run=str(folder), step=step, sha256=sha256(path))


def load_start(start: Start, model: LoopedTransformer) -> list[str]:
    """Load the weights from which a training starts. Returns the settings in which the models differ.

    Raises:
        ValueError: the weights changed, or have other sizes; names the tensor and the settings that differ.
    """
    run, _, path = _chosen(Path(start.run), start.step)
    if sha256(path) != start.sha256:
        raise ValueError(f"{path}: not the weights from which this training began (sha256 {start.sha256})")
    here, there = to_dict(model.config), to_dict(run.model)
    different = [f"model.{name}={here[name]!r} ({there[name]!r} there)" for name in here if here[name] != there[name]]
    try:
        load_weights(model, path)
    except ValueError as error:
        settings = f"; settings that differ: {', '.join(different)}" if different else ""
        raise ValueError(f"--from {start.run}: {error}{settings}") from None
    return different


def _chosen(folder: Path, checkpoint: Literal["best", "last"] | int) -> tuple[RunConfig, int, Path]:
    """The configuration of a run folder, the step of a checkpoint, and its weights, averaged ones if there are."""
    run = read_config(folder)
    steps = saved_steps(folder)
    if not steps:
        raise ValueError(f"{folder}: no checkpoint yet")
    step = steps[-1] if isinstance(checkpoint, str) else checkpoint
    if checkpoint == "best":
        end = read_file(folder, Summary)
        if best := read_file(folder, Best) or (end and end.best):
            step = best.step
    if step not in steps:
        raise ValueError(f"{folder}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
    return run, step, _path(folder, step) / (AVERAGE if run.optim.ema_decay else WEIGHTS)


def _path(folder: Path, step: int) -> Path:
    return folder / CHECKPOINTS / f"step_{step:06d}"
