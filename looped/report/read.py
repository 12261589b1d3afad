"""Run folders, read and checked for the report. Nothing is computed here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from looped.config import RunConfig
from looped.run_folder import (
    CONFIG,
    LM_EVAL,
    AlgorithmRow,
    AnswersByLoop,
    Best,
    Environment,
    EvalRow,
    ExitRow,
    InContextRow,
    LMEval,
    MetricsRow,
    PolicyRow,
    Summary,
    TrainRow,
    ValidationRow,
    read_config,
    read_file,
    read_rows,
)


@dataclass(frozen=True)
class Run:
    """One run folder. The summary of an unfinished run is None, or it says `interrupted`."""

    folder: Path
    name: str
    config: RunConfig
    training: tuple[TrainRow, ...]
    validations: tuple[ValidationRow, ...]
    rows: tuple[EvalRow, ...]
    """The rows of eval.jsonl by loop count; empty before the evaluation."""
    exit_rows: tuple[ExitRow, ...]
    """The rows with an exit rule; empty without one."""
    policy_rows: tuple[PolicyRow, ...]
    """The rows at loops that were chosen for each example or group."""
    in_context: tuple[InContextRow, ...]
    """The rows of in_context.jsonl; empty for other tasks."""
    algorithms: tuple[AlgorithmRow, ...]
    """The rows of algorithms.jsonl; empty unless linear functions are learned in context."""
    summary: Summary | None
    best: Best | None
    """The content of best.json. During training this is the best so far."""
    answers: AnswersByLoop | None
    harness: LMEval | None
    """The scores of lm-eval's tasks."""
    environment: Environment | None

    @property
    def seed(self) -> int:
        return self.config.train.seed

    @property
    def learning_rate(self) -> float:
        return self.config.optim.learning_rate

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return self.summary is not None and self.summary.finished != "interrupted"

    @property
    def test_rows(self) -> list[EvalRow]:
        """The rows of eval.jsonl on test examples."""
        return [row for row in self.rows if row.split == "test"]

    @property
    def metric(self) -> str | None:
        """The score that decides which model is better; None if the run has no score yet."""
        known = self.summary or self.best
        return known.metric if known else None

    @property
    def lower_is_better(self) -> bool:
        """Whether the scores are errors."""
        return self.summary is not None and self.summary.lower_is_better

    @property
    def best_validation(self) -> float | None:
        """The best validation score."""
        return self.best.value if self.best else None

    @property
    def stale_steps(self) -> list[int]:
        """The steps of scores that are not of the best checkpoint, because the training went on or chose another."""
        wanted = self.best.step if self.best else self.summary.steps if self.summary else None
        steps = {
            row.step for row in (*self.rows, *self.exit_rows, *self.policy_rows, *self.in_context, *self.algorithms)
        }
        if self.harness and self.harness.step is not None:
            steps.add(self.harness.step)
        return [] if wanted is None else sorted(steps - {wanted})

    @property
    def last_step(self) -> int:
        """The last step in metrics.jsonl; 0 if there is none."""
        return max((row.step for row in (*self.training, *self.validations)), default=0)

    @property
    def trained_loops(self) -> int:
        """Number of loops that the model was trained for."""
        if self.rows:
            return self.rows[0].trained_loops
        return self.config.schedule.max_loops or self.config.model.num_loops


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """Read every run in `folders`. A folder that is not a run is searched one and two levels down.

    Raises:
        ValueError: a folder without runs, or a malformed file; names file and line.
    """
    found: dict[Path, Run] = {}  # by resolved path, so a run that is named twice counts once
    for folder in map(Path, folders):
        for path in _find(folder):
            if path.resolve() not in found:
                name = path.resolve().name if path == folder else path.relative_to(folder).as_posix()
                found[path.resolve()] = read_run(path, name)
    if not found:
        raise ValueError("no run folders given")
    return list(found.values())


def _find(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if (folder / CONFIG).exists():
        return [folder]
    near = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    far = sorted(path.parent for path in folder.glob(f"*/*/{CONFIG}") if path.parent.parent not in near)
    if not near and not far:
        raise ValueError(f"{folder}: not a run folder (no {CONFIG}), and none one or two levels below it")
    return near + far


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read one run folder. Missing files such as eval.jsonl or summary.json give empty tuples or None.

    Raises:
        ValueError: `folder` is not a run folder, or a file in it is malformed; names file and line.
    """
    config = read_config(folder)
    metrics = read_rows(folder, MetricsRow)
    rows = read_rows(folder, EvalRow)
    if not rows and (folder / EvalRow.file).exists():
        raise ValueError(f"{folder / EvalRow.file}:1: the file is empty; evaluate the run again")
    summary = read_file(folder, Summary)
    return Run(
        folder=folder,
        name=name or folder.resolve().name,
        config=config,
        training=tuple(row for row in metrics if isinstance(row, TrainRow)),
        validations=tuple(row for row in metrics if isinstance(row, ValidationRow)),
        rows=tuple(row for row in rows if not isinstance(row, ExitRow | PolicyRow)),
        policy_rows=tuple(row for row in rows if isinstance(row, PolicyRow)),
        exit_rows=tuple(row for row in rows if isinstance(row, ExitRow)),
        in_context=tuple(read_rows(folder, InContextRow)),
        algorithms=tuple(read_rows(folder, AlgorithmRow)),
        summary=summary,
        best=summary.best if summary else read_file(folder, Best),
        answers=read_file(folder, AnswersByLoop),
        harness=read_file(folder / LM_EVAL, LMEval),
        environment=read_file(folder, Environment),
    )
