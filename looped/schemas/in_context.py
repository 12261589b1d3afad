"""The schemas of the files that only in-context learning writes."""

from typing import ClassVar

from looped.schemas.content import InFile
from looped.strict import frozen


@frozen
class InContextRow(InFile):
    """In-context learning: a score by number of points in context, for the model or a baseline."""

    file: ClassVar[str] = "in_context.jsonl"
    measured: ClassVar[tuple[str, ...]] = ("value", "low", "high")
    positive: ClassVar[tuple[str, ...]] = ("n",)
    group: str
    method: str
    """ "model" or the name of the baseline."""
    num_loops: int | None
    points: int
    metric: str
    value: float
    low: float
    high: float
    n: int
    split: str
    step: int


@frozen
class AlgorithmRow(InFile):
    """In-context learning of linear functions: how far the model is from an algorithm after a number of loops."""

    file: ClassVar[str] = "algorithms.jsonl"
    measured: ClassVar[tuple[str, ...]] = ("prediction_difference", "low", "high", "weight_difference")
    positive: ClassVar[tuple[str, ...]] = ("num_loops", "n")
    group: str
    num_loops: int
    algorithm: str
    steps: int | None
    """None for algorithms without steps."""
    prediction_difference: float
    """Mean squared difference of the predictions, with its 95% interval over prompts."""
    low: float
    high: float
    weight_difference: float
    """Mean squared distance of the weights that fit the model's predictions from those of the algorithm."""
    n: int
    split: str
    step: int
