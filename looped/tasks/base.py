"""What a task is: a distribution of problems, a solver that labels them, and an encoding for a model."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

# An example belongs to the split that the hash of its content says, so that the splits are disjoint by
# construction however many examples are drawn: 1/16 of all content is test, 1/16 validation.
BUCKETS = 16


def split_of(key: bytes) -> Split:
    """The only split in which an example whose content is `key` may occur."""
    bucket = zlib.crc32(key) % BUCKETS
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


class Batch(NamedTuple):
    """Examples as a model takes them."""

    inputs: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq input"]
    targets: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq"]
    """Classes, or real numbers that the first output is to match."""
    mask: Bool[Tensor, "batch seq"]
    """True where the target counts in the loss."""
    attention_mask: Bool[Tensor, "batch seq"]
    """True at real positions, False at padding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """What a model needs to know of a task; the names are fields of `ModelConfig`."""

    inputs: Literal["tokens", "vectors"] = "tokens"
    vocab_size: int | None = None
    input_dim: int | None = None
    output_size: int
    max_seq_len: int
    causal: bool = False
    """Whether a position must not see those after it, because they hold its answer."""


class Task(ABC):
    """A distribution, a solver and an encoding. Problems are whatever the task likes them to be.

    `groups` names the axis on which the task is evaluated (lengths, difficulties); problems of the
    training distribution are drawn with group=None.
    """

    metric: str
    """The score that decides which model is better."""
    lower_is_better: bool = False
    """Whether `metric` and all other scores are errors: at least 0, with no upper bound."""
    groups: tuple[str, ...]
    whole_groups: tuple[str, ...] = ()
    """Groups that are evaluated on all their examples, however many are asked for."""
    spec: TaskSpec

    @abstractmethod
    def __init__(self, config: Any) -> None: ...

    @abstractmethod
    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> Sequence[Any]:
        """`size` problems with their answers, all of this split and group, decided by `rng` alone."""

    def available(self, split: Split, group: str | None = None) -> int | None:
        """How many different problems there are to draw; None where they are made as needed."""
        return None

    @abstractmethod
    def encode(self, problems: Sequence[Any]) -> Batch:
        """Problems as tensors. A problem without an answer gives targets that are all zero."""

    @abstractmethod
    def score(self, batch: Batch, logits: Float[Tensor, "batch seq output"]) -> dict[str, Float[Tensor, " batch"]]:
        """One value per example and metric, in [0, 1] unless they are errors.

        `self.metric` is among them, or among what is `reported` of their means.
        """

    def weights(self, batch: Batch) -> Float[Tensor, " batch"]:
        """How much each example counts in a mean: equally, unless they are unequal parts of one whole."""
        return torch.ones(len(batch.inputs), dtype=torch.double, device=batch.inputs.device)

    def reported(self, metric: str, mean: float, split: Split, group: str | None = None) -> dict[str, float]:
        """What is reported of a score's mean: itself, or increasing functions of it, by their names.

        The ends of an interval are reported by the same functions.
        """
        return {metric: mean}

    @abstractmethod
    def answer(self, problem: Any, logits: Float[Tensor, "seq output"]) -> dict[str, Any]:
        """What the model says: plain values with the keys answer, valid and confidence.

        `valid` tells whether the answer keeps the rules of the task; None where any answer would.
        `confidence` is from 0 to 1; None where the answer is a number without one.
        """

    @abstractmethod
    def to_text(self, problem: Any) -> dict[str, str]:
        """The problem as text: its input, and the answer expected ('' where none is known)."""

    @abstractmethod
    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[Sequence[Any], int]:
        """The user's own problems, and how many rows were skipped.

        Raises:
            ValueError: for a bad row, naming `source`, line and reason (on_bad_row=stop); for no row at all.
        """

    @abstractmethod
    def describe(self, problem: Any, logits: Float[Tensor, "seq output"] | None = None) -> str:
        """Input, answer and (with logits) prediction, as text for a person."""

    @abstractmethod
    def visualise(self, problem: Any, logits: Float[Tensor, "loops seq output"]) -> dict[str, Any]:
        """What the model thinks after each loop, as plain values for the report (see docs/design.md)."""

    def batch(self, split: Split, step: int, size: int, *, seed: int, group: str | None = None) -> Batch:
        """The batch of a step: a pure function of the arguments."""
        return self.encode(self.sample(split, size, self.rng(split, step, seed, group), group))

    @staticmethod
    def rng(split: Split, step: int, seed: int, group: str | None = None) -> np.random.Generator:
        """The generator of a step's batch; equal arguments give equal streams on every machine."""
        return np.random.default_rng([seed, SPLITS.index(split), step, zlib.crc32((group or "").encode())])


def means(scores: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean of each metric over a batch."""
    return {name: values.double().mean().item() for name, values in scores.items()}
