"""Scores of lm-eval's tasks."""

from typing import ClassVar

from looped.schemas.content import Content, InFile
from looped.strict import frozen


@frozen
class LMEvalRow(Content):
    """A score of a task or group with a loop count, or with an exit rule and its largest loop count."""

    measured: ClassVar[tuple[str, ...]] = ("value", "stderr")
    positive: ClassVar[tuple[str, ...]] = ("num_loops",)
    task: str
    metric: str
    num_loops: int
    exit_rule: str | None
    mean_loops: float | None
    """Mean over requests of the loops of the scored or generated tokens; None for a group."""
    value: float
    stderr: float | None
    """Standard error over documents, if lm-eval has one."""
    n: int
    """Number of documents."""
    num_fewshot: int
    higher_is_better: bool | None


@frozen
class LMEval(InFile):
    """The scores of one call of `looped lm-eval`."""

    file: ClassVar[str] = "results.json"
    trained_loops: int
    step: int | None
    """The step of the checkpoint; None for a model that is no run."""
    limit: float | None
    """Documents of each task at most; below 1 the share of them."""
    lm_eval: str
    """Version of lm-eval."""
    rows: tuple[LMEvalRow, ...]
