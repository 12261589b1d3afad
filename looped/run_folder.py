"""The run folder: the names of its files, the schemas of their rows, reading and writing.

Training, evaluation, calibration and reports exchange data only through these files. Each class is the schema of one
file or of its rows, and reading checks it. Files are written whole or not at all; metrics.jsonl grows by whole lines.
"""

import json
import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from looped.config import HOUSEKEEPING, RunConfig
from looped.files import parse_object, read_lines, read_object, write_atomic
from looped.schemas.content import Content, InFile
from looped.schemas.content import Environment as Environment
from looped.schemas.in_context import AlgorithmRow as AlgorithmRow
from looped.schemas.in_context import InContextRow as InContextRow
from looped.schemas.lm_eval import LMEval as LMEval
from looped.schemas.lm_eval import LMEvalRow as LMEvalRow
from looped.schemas.sweeps import Failure as Failure
from looped.schemas.sweeps import Sweep as Sweep
from looped.schemas.sweeps import SweepRun as SweepRun
from looped.schemas.tables import RunTable as RunTable
from looped.schemas.tables import TableClaim as TableClaim
from looped.schemas.tables import TableRow as TableRow
from looped.schemas.visualisations import Visualisation
from looped.strict import from_dict, frozen, to_dict

CONFIG, CHECKPOINTS, LOG, LM_EVAL = "config.json", "checkpoints", "log.txt", "lm_eval"


T = TypeVar("T")
F = TypeVar("F", bound=InFile)


# --- Schemas -------------------------------------------------------------------------------------------------


class MetricsRow(InFile):
    """A line of metrics.jsonl, which grows during training."""

    __slots__ = ()
    file: ClassVar[str] = "metrics.jsonl"

    @classmethod
    def kind_of(cls, data: dict[str, Any]) -> type[Content]:
        return ValidationRow if data.get("kind") == "validation" else TrainRow


@frozen
class TrainRow(MetricsRow):
    """Means over the training steps since the previous line."""

    kind: Literal["train"]
    step: int
    seconds: float
    """Training time so far, over all continuations of the run."""
    loss: float
    grad_norm: float
    """Norm of the gradient before clipping."""
    learning_rate: float
    num_loops: int
    num_grad_loops: int
    examples_per_s: float
    tokens_per_s: float
    matmul_share: float
    """FLOPs per second of the training, divided by `Environment.matmul_peak`."""
    data_wait: float
    """Share of the time in which the training waited for batches."""
    peak_memory: float
    """Bytes: memory of tensors on a GPU, memory of the process otherwise."""
    accuracy: float | None = None
    """None if the targets are real numbers."""
    mean_loops: float | None = None
    """Only with train.loss="halting"."""
    residual: float | None = None
    """Relative change of the state in the last loop. Only with a gradient at the fixed point (train.gradient)."""
    unconverged: float | None = None
    """Share of the steps whose gradient did not converge. Only there too."""


@frozen
class ValidationRow(MetricsRow):
    """Mean scores over the validation examples."""

    measured: ClassVar[tuple[str, ...]] = ("scores",)
    kind: Literal["validation"]
    step: int
    seconds: float
    num_loops: int
    scores: dict[str, float]
    """Score by metric."""


@frozen
class Best(InFile):
    """The best validation score so far, and the step of its checkpoint."""

    file: ClassVar[str] = "best.json"
    measured: ClassVar[tuple[str, ...]] = ("value",)
    step: int
    metric: str
    value: float


@frozen
class Summary(InFile):
    """The end of a training. A running training has none, or an old one that says "interrupted"."""

    file: ClassVar[str] = "summary.json"
    recipe: str
    metric: str
    lower_is_better: bool
    steps: int
    examples: int
    seconds: float
    finished: Literal["steps", "target", "interrupted"]
    parameters: int
    non_embedding_parameters: int
    effective_depth: int
    flops_per_example: int
    best: Best | None
    signal: int | None = None  # that interrupted the training


@frozen
class EvalRow(InFile):
    """A score on one group with a loop count."""

    file: ClassVar[str] = "eval.jsonl"
    measured: ClassVar[tuple[str, ...]] = ("value", "low", "high")
    positive: ClassVar[tuple[str, ...]] = ("num_loops", "n", "trained_loops")
    group: str
    num_loops: int
    metric: str
    value: float
    low: float
    high: float
    """`low` and `high` are the ends of the 95% interval over examples."""
    n: int
    """Number of examples; for text, number of windows."""
    split: str
    trained_loops: int
    step: int
    flops_per_example: int

    @classmethod
    def kind_of(cls, data: dict[str, Any]) -> type[Content]:
        return ExitRow if "exit_rule" in data else PolicyRow if "policy" in data else EvalRow


@frozen
class ExitRow(EvalRow):
    """A score with an exit rule; `num_loops` is the largest number of loops."""

    exit_rule: str
    mean_loops: float
    """Mean over examples of the loops taken."""


Policy = Literal["task", "confidence", "confidence-example"]


@frozen
class PolicyRow(EvalRow):
    """A score at loops that were chosen for each example or group; `num_loops` is the largest number of loops."""

    policy: Policy
    """task: the loops that the task says an example needs. confidence: the loop count whose answers are most confident
    over the group, or in confidence-example over each example."""
    mean_loops: float
    """Mean over examples of the chosen loops."""


@frozen
class AnswersByLoop(InFile):
    """Answers to some test examples after each loop."""

    file: ClassVar[str] = "answers_by_loop.json"
    trained_loops: int
    examples: tuple[Visualisation, ...]


@frozen
class CalibrationRow(Content):
    """The score with one loop count or exit rule, with its 95% interval."""

    measured: ClassVar[tuple[str, ...]] = ("value", "low", "high")
    positive: ClassVar[tuple[str, ...]] = ("num_loops",)
    exit_rule: str | None
    num_loops: int
    mean_loops: float
    value: float
    low: float
    high: float


@frozen
class Recommendation(CalibrationRow):
    """The recommended row, with its measured wall time."""

    seconds: float
    """Measured wall time for all examples with this setting."""
    seconds_of_best: float
    """Measured wall time for all examples with the best loop count."""


@frozen
class Calibration(InFile):
    """Scores by loop count and exit rule, and the cheapest setting close to the best score."""

    file: ClassVar[str] = "calibration.json"
    metric: str
    lower_is_better: bool
    split: str
    examples: int
    tolerance: float
    trained_loops: int
    rows: tuple[CalibrationRow, ...]
    best: CalibrationRow
    """The best row without an exit rule."""
    recommendation: Recommendation
    warning: str | None
    step: int
    """The step of the checkpoint that was calibrated."""
    device: str
    threads: int


# --- Reading and writing -------------------------------------------------------------------------------------


def read_file(folder: Path, kind: type[F]) -> F | None:
    """The content of the file of class `kind` in a folder; None if there is no such file.

    Raises:
        ValueError: the file is malformed; names file, line and field.
    """
    path = folder / kind.file
    return _checked(kind, read_object(path), f"{path}:1") if path.exists() else None


def read_rows(folder: Path, kind: type[F]) -> list[F]:
    """The rows of the file of class `kind` in a folder; empty if there is no such file. Raises as `read_file`."""
    path = folder / kind.file
    lines = read_lines(path) if path.exists() else []
    objects = ((parse_object(line, path, number), number) for number, line in enumerate(lines, 1))
    return [_checked(kind, row, f"{path}:{number}") for row, number in objects]


def write_file(folder: Path, kind: type[InFile], content: dict[str, Any], *, indent: int | None = 2) -> None:
    """Write the file of class `kind`, whole or not at all.

    Args:
        indent: None writes one line.

    Raises:
        ValueError: `read_file` would refuse the content.
        OSError: the file cannot be written; its old content is intact.
    """
    check_content(folder, kind, content)
    write_atomic(folder / kind.file, json.dumps(content, indent=indent) + "\n")


def check_content(folder: Path, kind: type[InFile], content: dict[str, Any]) -> None:
    """Raise ValueError if `read_file` would refuse the content in the file of class `kind`."""
    _checked(kind, json.loads(json.dumps(content, default=_unwritable)), str(folder / kind.file))


def _unwritable(value: object) -> None:
    raise ValueError(f"{type(value).__name__} {value!r:.100}: expected a plain value of JSON")


def write_rows(folder: Path, kind: type[InFile], rows: Iterable[dict[str, Any]]) -> None:
    """Write the rows into the file of class `kind`, whole or not at all. Raises as `write_file`."""
    rows = list(rows)
    for number, row in enumerate(rows, 1):
        _checked(kind, row, f"{folder / kind.file}:{number}")
    write_lines(folder / kind.file, rows)


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write the rows of `Task.extra_evaluation`, which have no schema here, whole or not at all."""
    write_atomic(path, "".join(json.dumps(row, default=_unwritable) + "\n" for row in rows))


def check_run_folder(folder: Path) -> None:
    """Raise ValueError unless `folder` is a run folder of files and folders, without links that lead out of it."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder}: not a run folder (no {CONFIG})")
    check_files(folder)


def check_files(folder: Path) -> None:
    """Raise ValueError if there is a link in `folder` that leads out of it, or a pipe or device."""
    inside = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent) / name for name in folders + files):
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise ValueError(f"{path}: a link out of the run folder; expected a file or folder in its place")
            if path.is_fifo() or path.is_socket() or path.is_char_device() or path.is_block_device():
                raise ValueError(f"{path}: a pipe, socket or device; expected a file or folder in its place")


def saved_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a run folder, ascending."""
    numbers = (path.name.removeprefix("step_") for path in (folder / CHECKPOINTS).glob("step_*"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def read_config(folder: Path) -> RunConfig:
    """The configuration in a run folder.

    Raises:
        ValueError: `folder` is not a run folder, its config.json is malformed, or it has a link that leads out of it.
    """
    check_run_folder(folder)
    data = read_object(folder / CONFIG)
    if unknown := data.keys() - {"looped", "run"}:
        raise ValueError(f"{folder / CONFIG}: {min(unknown)}: unknown key; expected looped and run")
    run = _checked(RunConfig, data.get("run"), str(folder / CONFIG), "run")
    if missing := _missing({"run": to_dict(run)}, data):
        raise ValueError(f"{folder / CONFIG}: missing {missing}; expected every setting of the run")
    return run


def write_config(run: RunConfig, folder: Path) -> None:
    """Make `folder` a run folder, or write the settings with which its run is continued."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).exists() or read_config(folder) != run:
        content = {"looped": version("looped"), "run": to_dict(run)}
        write_atomic(folder / CONFIG, json.dumps(content, indent=2) + "\n")


def open_run(run: RunConfig, folder: Path, resume: bool) -> Summary | None:
    """Check that `folder` can take this run. Returns its summary if the training is finished, else None.

    Raises:
        ValueError: resume=False and the folder already holds a run; resume=True and it holds no run or another one.
            The settings `HOUSEKEEPING` may differ.
    """
    if not resume:
        for name in (CONFIG, MetricsRow.file, Summary.file, CHECKPOINTS):
            if (folder / name).exists():
                raise ValueError(f"{folder}: already holds a run ({name}); resume it or choose another folder")
        return None
    stored, requested = to_dict(read_config(folder)), to_dict(run)
    for name in HOUSEKEEPING:
        del stored["train"][name], requested["train"][name]
    if difference := _difference(stored, requested):
        raise ValueError(f"{folder}: cannot be resumed with another configuration: {difference}")
    summary = read_file(folder, Summary)
    return summary if summary and summary.finished != "interrupted" else None


def _missing(complete: dict[str, Any], data: dict[str, Any], path: str = "") -> str:
    """The first key of `complete` that `data` lacks, or ''."""
    for key, value in complete.items():
        if key not in data:
            return path + key
        if isinstance(value, dict) and (inner := _missing(value, data[key], f"{path}{key}.")):
            return inner
    return ""


def _difference(stored: Any, requested: Any, path: str = "") -> str:
    """'field=requested, but the folder has stored' for the first field that differs, or ''."""
    if isinstance(stored, dict) and isinstance(requested, dict):
        keys = sorted(stored | requested, key="model".__eq__)  # last, because its sizes follow from the task's settings
        inner = (_difference(stored.get(key), requested.get(key), f"{path}.{key}".lstrip(".")) for key in keys)
        return next(filter(None, inner), "")
    return "" if stored == requested else f"{path}={requested!r}, but the folder has {stored!r}"


def _checked(kind: type[T], data: Any, place: str, name: str = "row") -> T:
    try:
        return from_dict(kind, data, name)
    except ValueError as error:
        raise ValueError(f"{place}: {str(error).removeprefix('row.').removeprefix('row: ')}") from None
