"""The base class of tasks: a distribution of problems, a solver that labels them, and an encoding for a model."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from looped.lazy import torch
from looped.tasks.batch import Batch as Batch
from looped.tasks.continuation import Tokenizer
from looped.tasks.faults import fault_of
from looped.tasks.generating import Generates
from looped.tasks.registry import TaskConfig

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

# The hash of an example's content decides its split, so the splits are disjoint for any number of examples. 1/16 of all
# content is test, 1/16 validation.
BUCKETS = 16


def split_of(key: bytes) -> Split:
    """The only split for an example with the content `key`."""
    return split_of_hash(zlib.crc32(key))


def split_of_hash(crc: int) -> Split:
    """The only split for an example whose content has this CRC-32."""
    bucket = crc % BUCKETS
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """The sizes that a model needs for a task. The names are fields of `ModelConfig`; see `ModelConfig.for_task`."""

    inputs: Literal["tokens", "vectors"] = "tokens"
    vocab_size: int | None = None
    input_dim: int | None = None
    output_size: int
    max_seq_len: int
    causal: bool = False
    """Whether a position must not attend to later positions, because they hold its answer."""


@runtime_checkable
class Predict(Protocol):
    """Function of a batch and ascending loop counts. It returns a model's logits after each of these, on the CPU."""

    def __call__(self, batch: Batch, loops: Sequence[int], /) -> Float[torch.Tensor, "loops batch seq output"]: ...


class Task(Generates, ABC):
    """A distribution of problems with their answers, and their encoding for a model.

    A task needs settings (`Config`), a `spec`, `sample` and `encode`. Everything else has defaults: classes count as
    correct if the most probable class is right, and real numbers are scored by their squared error. Problems may be
    objects of any type. `looped.tasks.SequenceTask` needs even less.

    A complete task. Its problems are the numbers below 1000, and their answers are the last bits:

        @frozen
        class LastBitConfig(TaskConfig):
            pass

        @register("last_bit")
        class LastBit(Task):
            Config = LastBitConfig
            spec = TaskSpec(vocab_size=1000, output_size=2, max_seq_len=1)

            def sample(self, split, size, rng, group=None):
                numbers = [n for n in range(1000) if split_of(str(n).encode()) == split]
                return rng.choice(numbers, size).tolist()

            def encode(self, problems):
                inputs = torch.tensor(problems)[:, None]
                real = torch.ones_like(inputs, dtype=torch.bool)
                return Batch(inputs, inputs % 2, mask=real, attention_mask=real)
    """

    name: ClassVar[str]
    """The task's name, set by `register`."""
    title: str
    """Heading of the task in reports. By default `register` derives it from the name."""
    Config: ClassVar[type[TaskConfig]]
    """The class of the settings. The constructor takes an object of it."""
    presentation: ClassVar[frozenset[str]] = frozenset()
    """Settings of the encoding, not of the problems. They may differ between models that a report compares."""

    metric: str = "accuracy"
    """The score that decides which model is better: a key of what `score`, `score_generated` or `reported` returns."""
    lower_is_better: bool = False
    """Whether `metric` and all other scores are errors: at least 0, without an upper bound."""
    groups: tuple[str, ...] = ("all",)
    """The groups of problems for evaluation, such as lengths or difficulties. With group=None `sample` draws from the
    training distribution."""
    whole_groups: tuple[str, ...] = ()
    """Groups that are always evaluated on all their examples."""
    tokenizer: Tokenizer | None = None
    """The tokenizer, for tasks whose models continue text from a `prompt`."""
    trained_seq_len: int | None = None
    """The longest sequence in training, if evaluation also has longer ones. Learned positions are then refused."""
    graphs: Mapping[str, Float[torch.Tensor, "seq seq"]] = {}
    """Matrices of the structure that all problems share, by name, for `ModelConfig.graph_heads`. Row i holds the
    factors of the positions that position i sums."""
    spec: TaskSpec

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def example_config(cls, folder: Path) -> TaskConfig:
        """Settings of a small example for `looped tasks`. The method may write files into `folder`."""
        return cls.Config()

    @classmethod
    def example_configs(cls, folder: Path) -> Sequence[TaskConfig]:
        """Settings of the examples for `looped tasks`, if there is more than one."""
        return [cls.example_config(folder)]

    # Data and files

    def sources(self) -> dict[str, str]:
        """The sha256 of each file or data set that the problems come from, by its name. By default there is none.

        A run folder keeps them. A run is only continued, evaluated or inspected on the data that it was trained on.
        """
        return {}

    def save(self, folder: Path) -> None:
        """Write the files without which a model cannot answer, such as a tokenizer. By default there is none.

        Args:
            folder: an existing, empty folder.
        """

    @classmethod
    def answering(cls, config: Any) -> Task:
        """A task like that of `load`, of which nothing is saved yet."""
        return cls(config)

    @classmethod
    def load(cls, config: Any, folder: Path) -> Task:
        """A task that answers: everything works except `sample`, `available` and `sources`, which need the data.

        Args:
            config: the task's settings.
            folder: what `save` wrote, or an empty folder.
        """
        return cls(config)

    # Problems

    @abstractmethod
    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> Sequence[Any]:
        """Draw `size` problems with their answers from a split and a group.

        Args:
            split: train, validation or test. The same problem must not occur in two splits (see `split_of`).
            rng: the only source of randomness, so equal generators give equal problems.
            group: one of `groups`; None is the training distribution.

        Returns:
            Problems of the task's own type, which `encode` and `to_text` accept.

        Raises:
            ValueError: the group is unknown.
        """

    @abstractmethod
    def encode(self, problems: Sequence[Any]) -> Batch:
        """Encode problems as one batch of (batch, seq) tensors, on the CPU.

        inputs: int64 token ids (batch, seq), or float vectors (batch, seq, input_dim). targets: int64 classes or real
        numbers (batch, seq); all zero for a problem without an answer. mask: True at supervised positions.
        attention_mask: True at real positions, False at padding. seq is at most `spec.max_seq_len`.
        """

    def loops_for(self, problem: Any) -> int | None:
        """The number of loops T(n) that a problem of this size needs; None if the task does not say.

        train.loss=task reads the answer to each problem after so many loops (Fan et al., 2024).
        """
        return None

    def with_loops(self, batch: Batch, problems: Sequence[Any]) -> Batch:
        """The batch of the problems with its `loops`, if the task gives them (`loops_for`)."""
        loops = [self.loops_for(problem) for problem in problems]
        return batch if None in loops else batch._replace(loops=torch.tensor(loops))

    def sample_step(self, step: int, size: int, rng: np.random.Generator) -> Sequence[Any]:
        """The problems of a training step. A task may let them grow; by default all steps are alike."""
        return self.sample("train", size, rng)

    def available(self, split: Split, group: str | None = None) -> int | None:
        """Number of different problems in a split and group; None if there is no limit."""
        return None

    def score(
        self, batch: Batch, logits: Float[torch.Tensor, "batch seq output"]
    ) -> dict[str, Float[torch.Tensor, " batch"]]:
        """Score each example: a tensor of shape (batch,) for each metric, with values in [0, 1] unless they are errors.

        The main metric is `self.metric`. It is a key of this result, or `reported` derives it from the means. For
        classes the default is accuracy (1 if the most probable class is right at every supervised position) and
        token_accuracy (the share of supervised positions with the right class). If answers are generated, this
        accuracy is named teacher_forced, because the model sees the right answer up to each position. For real targets
        the default is squared_error, the mean over supervised positions.

        Args:
            batch: from `encode`, on the device of the logits.
            logits: the model's output (batch, seq, output).
        """
        if batch.targets.is_floating_point():
            return {"squared_error": _mean((logits[..., 0] - batch.targets) ** 2, batch.mask)}
        right = logits.argmax(-1) == batch.targets
        return {
            "accuracy" if self.generation is None else "teacher_forced": (right | ~batch.mask).all(1).float(),
            "token_accuracy": _mean(right.float(), batch.mask),
        }

    def weights(self, batch: Batch) -> Float[torch.Tensor, " batch"]:
        """Weight of each example in a mean, of shape (batch,) and type float64. By default all weights are 1."""
        return torch.ones(len(batch.inputs), dtype=torch.double, device=batch.inputs.device)

    def reported(self, metric: str, mean: float, split: Split, group: str | None = None) -> dict[str, float]:
        """Convert the mean of a score into reported values, by name. By default this is the mean itself.

        The ends of a confidence interval are converted by the same function, so values must increase with the mean.
        """
        return {metric: mean}

    def extra_evaluation(
        self, predict: Predict, *, loops: Sequence[int], split: Split, group: str, seed: int
    ) -> dict[str, Iterable[dict[str, Any]]]:
        """Further results of an evaluation: names of .jsonl files in the run folder, each with its rows of plain
        values.

        Args:
            predict: the model's logits for a batch after some loop counts.
            loops: loop counts, ascending.
        """
        return {}

    def answer(self, problem: Any, logits: Float[torch.Tensor, "seq output"]) -> dict[str, Any]:
        """The model's answer to a problem, as plain values with the keys answer, valid and confidence.

        `valid` says whether the answer obeys the rules of the task, or is None if the task has no rules. `confidence`
        is from 0 to 1, or None for real numbers.
        """
        words, confidence = self._predicted_words(problem, logits)
        probability = None if confidence is None else float(confidence.prod())
        return {"answer": " ".join(words), "valid": None, "confidence": probability}

    def to_text(self, problem: Any) -> dict[str, str]:
        """The problem as text: its `input`, and the `expected` answer ('' if it is unknown)."""
        batch = self.encode([problem])
        shown = batch.inputs[0][batch.attention_mask[0]].tolist()
        return {"input": " ".join(map(str, shown)), "expected": " ".join(self._expected_words(batch))}

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[Sequence[Any], int]:
        """Read a user's problems. Returns them with the number of skipped rows.

        Args:
            lines: the lines of the file.
            source: name of the file, for error messages.
            on_bad_row: stop at a bad row, or skip and count it.

        Raises:
            ValueError: a bad row (on_bad_row=stop), named by `source`, line and reason; or no row. The default raises
                it for every file.
        """
        raise ValueError(f"{source}: the task {self.name} reads no files (its class has no method `read`)")

    def prompt(self, text: str) -> Int[np.ndarray, " seq"]:
        """The tokens (seq,) of the beginning of a text that a model is to continue.

        Raises:
            ValueError: the text cannot be continued. The default raises it for every text.
        """
        raise ValueError(f"the task {self.name} continues no text (its class has no method `prompt`)")

    def describe(self, problem: Any, logits: Float[torch.Tensor, "seq output"] | None = None) -> str:
        """Input, answer and (if logits are given) prediction, as text to print."""
        text = self.to_text(problem)
        lines = [f"{self.title.lower()}: {text['input']}", f"answer: {text['expected'] or 'unknown'}"]
        if logits is not None:
            answer = self.answer(problem, logits)
            confidence = "" if answer["confidence"] is None else f" ({answer['confidence']:.0%})"
            lines.append(f"prediction: {answer['answer']}{confidence}")
        return "\n".join(lines)

    def visualise(self, problem: Any, logits: Float[torch.Tensor, "loops seq output"]) -> dict[str, Any]:
        """The model's answer after each loop, as plain values for the report (see docs/design.md).

        By default the classes at supervised positions are shown as slots, and real values as points.
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

    def _predicted_words(
        self, problem: Any, logits: Float[torch.Tensor, "seq output"]
    ) -> tuple[list[str], Float[torch.Tensor, " masked"] | None]:
        """The answer at each supervised position, and for classes its probability."""
        batch = self.encode([problem])
        masked = logits.double().cpu()[: batch.mask.shape[1]][batch.mask[0]]
        if batch.targets.is_floating_point():
            return [f"{value:.4g}" for value in masked[:, 0].tolist()], None
        confidence, predicted = masked.softmax(-1).max(-1)
        return list(map(self.word, predicted.tolist())), confidence

    def _expected_words(self, batch: Batch) -> list[str]:
        """The right answer at each supervised position of one example."""
        values = batch.targets[batch.mask].tolist()
        return [f"{v:.4g}" if isinstance(v, float) else self.word(v) for v in values]

    def batch(
        self,
        split: Split,
        step: int,
        size: int,
        *,
        seed: int,
        group: str | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> Batch:
        """The batch of a step. Equal arguments give equal batches.

        Args:
            part: which of how many equal parts of the batch, such as the rank of a process and the number of processes.

        Raises:
            ValueError: `encode` gave tensors that do not fit `spec`.
        """
        rng = self.rng(split, step, seed, group)
        training = split == "train" and group is None
        problems = self.sample_step(step, size, rng) if training else self.sample(split, size, rng, group)
        batch = self.encode(problems)  # of all problems, because padding and targets may depend on the longest one
        if isinstance(batch, Batch):  # if not, `fault_of` says so
            batch = self.with_loops(batch, problems)
        if fault := fault_of(batch, self.spec, len(problems)):
            raise ValueError(f"task {self.name}: encode({len(problems)} problems) gave {fault}")
        rows = rows_of_part(size, part)
        return batch.map(lambda tensor: tensor[rows])

    @staticmethod
    def rng(split: Split, step: int, seed: int, group: str | None = None) -> np.random.Generator:
        """The random generator of a step's batch. Equal arguments give equal streams on every machine."""
        return np.random.default_rng([seed, SPLITS.index(split), step, zlib.crc32((group or "").encode())])


def rows_of_part(size: int, part: tuple[int, int]) -> slice:
    """The rows of one of several equal parts of a batch; `part` as in `Task.batch`."""
    number, parts = part
    return slice(number * size // parts, (number + 1) * size // parts)


def means(scores: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The mean of each metric over a batch."""
    return {name: values.double().mean().item() for name, values in scores.items()}


def _mean(
    values: Float[torch.Tensor, "batch seq"], mask: Bool[torch.Tensor, "batch seq"]
) -> Float[torch.Tensor, " batch"]:
    """The mean over the supervised positions of each example."""
    return (values * mask).sum(1) / mask.sum(1).clamp(min=1)
