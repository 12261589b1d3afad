"""What a task is: a distribution of problems, a solver that labels them, and an encoding for a model."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looped.tasks.registry import TaskConfig

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


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. No text is ever encoded as `end`."""

    @property
    def vocab_size(self) -> int:
        """Ids are from 0 to vocab_size - 1."""
        ...

    @property
    def end(self) -> int:
        """The id of the end of a text."""
        ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


Predict = Callable[[Batch, Sequence[int]], Float[Tensor, "loops batch seq output"]]
"""A model's logits for a batch after each of some loop counts (ascending), on the CPU."""


class Task(ABC):
    """A distribution of problems with their answers, and their encoding for a model.

    A task needs settings (`Config`), a `spec`, `sample` and `encode`; the rest has defaults, which take classes as
    answered where the most probable one is right, and real numbers by their squared error. Problems are whatever the
    task likes them to be. `looped.tasks.SequenceTask` asks for even less.
    """

    name: ClassVar[str]
    """Given by `register`."""
    title: ClassVar[str]
    """Heading of the task in reports; `register` makes it of the name unless the class has one."""
    Config: ClassVar[type[TaskConfig]]
    """The class of the settings, of which the task is made."""
    presentation: ClassVar[frozenset[str]] = frozenset()
    """Settings that may differ between models on one problem: how it is shown to them, not what is asked."""

    metric: str = "accuracy"
    """The score that decides which model is better."""
    lower_is_better: bool = False
    """Whether `metric` and all other scores are errors: at least 0, with no upper bound."""
    groups: tuple[str, ...] = ("all",)
    """The axis on which the task is evaluated: lengths, difficulties. `sample` draws problems of the training
    distribution with group=None."""
    whole_groups: tuple[str, ...] = ()
    """Groups that are evaluated on all their examples, however many are asked for."""
    tokenizer: Tokenizer | None = None
    """Of tasks whose models continue text, by `prompt`."""
    spec: TaskSpec

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def example_config(cls, folder: Path) -> TaskConfig:
        """Settings of a small example for `looped tasks`. Files that it needs may be written into `folder`."""
        return cls.Config()

    @abstractmethod
    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> Sequence[Any]:
        """`size` problems with their answers, all of this split and group, decided by `rng` alone.

        Raises:
            ValueError: for an unknown group.
        """

    @abstractmethod
    def encode(self, problems: Sequence[Any]) -> Batch:
        """Problems as tensors. A problem without an answer gives targets that are all zero."""

    def available(self, split: Split, group: str | None = None) -> int | None:
        """How many different problems there are to draw; None where they are made as needed."""
        return None

    def score(self, batch: Batch, logits: Float[Tensor, "batch seq output"]) -> dict[str, Float[Tensor, " batch"]]:
        """One value per example and metric, in [0, 1] unless they are errors.

        `self.metric` is among them, or among what is `reported` of their means. The default for classes is accuracy
        (the most probable class is right at every masked position) and token_accuracy (the share of those positions);
        for real targets squared_error, its mean over those positions.
        """
        if batch.targets.is_floating_point():
            return {"squared_error": _mean((logits[..., 0] - batch.targets) ** 2, batch.mask)}
        right = logits.argmax(-1) == batch.targets
        return {
            "accuracy": (right | ~batch.mask).all(1).float(),
            "token_accuracy": _mean(right.float(), batch.mask),
        }

    def weights(self, batch: Batch) -> Float[Tensor, " batch"]:
        """How much each example counts in a mean: equally, unless they are unequal parts of one whole."""
        return torch.ones(len(batch.inputs), dtype=torch.double, device=batch.inputs.device)

    def reported(self, metric: str, mean: float, split: Split, group: str | None = None) -> dict[str, float]:
        """What is reported of a score's mean: itself, or increasing functions of it, by their names.

        The ends of an interval are reported by the same functions.
        """
        return {metric: mean}

    def extra_evaluation(
        self, predict: Predict, *, loops: Sequence[int], split: Split, group: str, seed: int
    ) -> dict[str, Iterable[dict[str, Any]]]:
        """Further results of an evaluation: rows of plain values, by the name of their .jsonl file in the run folder.

        Args:
            predict: the model.
            loops: loop counts, ascending.
        """
        return {}

    def answer(self, problem: Any, logits: Float[Tensor, "seq output"]) -> dict[str, Any]:
        """What the model says: plain values with the keys answer, valid and confidence.

        `valid` tells whether the answer keeps the rules of the task; None where any answer would.
        `confidence` is from 0 to 1; None where the answer is a number without one.
        """
        words, confidence = self._predicted_words(problem, logits)
        probability = None if confidence is None else float(confidence.prod())
        return {"answer": " ".join(words), "valid": None, "confidence": probability}

    def to_text(self, problem: Any) -> dict[str, str]:
        """The problem as text: its input, and the answer expected ('' where none is known)."""
        batch = self.encode([problem])
        shown = batch.inputs[0][batch.attention_mask[0]].tolist()
        return {"input": " ".join(map(str, shown)), "expected": " ".join(self._expected_words(batch))}

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[Sequence[Any], int]:
        """The user's own problems, and how many rows were skipped.

        Raises:
            ValueError: for a bad row, naming `source`, line and reason (on_bad_row=stop); for no row at all; by
                default for any file.
        """
        raise ValueError(f"{source}: the task {self.name} reads no files (its class has no method `read`)")

    def prompt(self, text: str) -> Int[np.ndarray, " seq"]:
        """The tokens of the beginning of a text that a model is to continue.

        Raises:
            ValueError: for a text that cannot be continued; by default for any.
        """
        raise ValueError(f"the task {self.name} continues no text (its class has no method `prompt`)")

    def describe(self, problem: Any, logits: Float[Tensor, "seq output"] | None = None) -> str:
        """Input, answer and (with logits) prediction, as text for a person."""
        text = self.to_text(problem)
        lines = [f"{self.title.lower()}: {text['input']}", f"answer: {text['expected'] or 'unknown'}"]
        if logits is not None:
            answer = self.answer(problem, logits)
            confidence = "" if answer["confidence"] is None else f" ({answer['confidence']:.0%})"
            lines.append(f"prediction: {answer['answer']}{confidence}")
        return "\n".join(lines)

    def visualise(self, problem: Any, logits: Float[Tensor, "loops seq output"]) -> dict[str, Any]:
        """What the model would answer after each loop, as plain values for the report (see docs/design.md).

        By default the classes at the masked positions as slots, or real values as points.
        """
        batch = self.encode([problem])
        title, loops = self.title.lower(), range(1, len(logits) + 1)
        if batch.targets.is_floating_point():
            truth, mask = batch.targets[batch.mask], batch.mask[0]
            predicted = logits.cpu()[:, mask, 0].double().tolist()
            return {
                "kind": "points",
                "title": title,
                "tolerance": 0.1 * float(truth.std(correction=0)),
                "truth": truth.tolist(),
                "loops": [{"loop": loop, "predictions": row} for loop, row in zip(loops, predicted, strict=True)],
            }
        frames = []
        for loop, row in zip(loops, logits, strict=True):
            words, confidence = self._predicted_words(problem, row)
            assert confidence is not None
            frames.append({"loop": loop, "slots": words, "confidence": confidence.tolist()})
        return {
            "kind": "slots",
            "title": title,
            "input": self.to_text(problem)["input"],
            "answer": self._expected_words(batch),
            "loops": frames,
        }

    def word(self, output: int) -> str:
        """The name of a class of the output, as a person reads it."""
        return str(output)

    def _predicted_words(
        self, problem: Any, logits: Float[Tensor, "seq output"]
    ) -> tuple[list[str], Float[Tensor, " masked"] | None]:
        """The answer at each masked position, and for classes its probability there."""
        batch = self.encode([problem])
        masked = logits.double().cpu()[: batch.mask.shape[1]][batch.mask[0]]
        if batch.targets.is_floating_point():
            return [f"{value:.4g}" for value in masked[:, 0].tolist()], None
        confidence, predicted = masked.softmax(-1).max(-1)
        return list(map(self.word, predicted.tolist())), confidence

    def _expected_words(self, batch: Batch) -> list[str]:
        """The right answer at each masked position of one example."""
        values = batch.targets[batch.mask].tolist()
        return [f"{v:.4g}" if isinstance(v, float) else self.word(v) for v in values]

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


def _mean(values: Float[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"]) -> Float[Tensor, " batch"]:
    """The mean over the masked positions of each example."""
    return (values * mask).sum(1) / mask.sum(1).clamp(min=1)
