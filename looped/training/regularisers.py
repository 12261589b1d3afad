"""Further terms of the training loss: functions of the model, its output and the batch."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from looped.config import RunConfig, TrainConfig
from looped.models.looped_model import LoopedModel
from looped.models.outputs import LoopedOutput
from looped.strict import check, nearest
from looped.tasks.base import Batch
from looped.training.layer_cosine import layer_cosine


@runtime_checkable
class Regulariser(Protocol):
    """A term of the loss."""

    def __call__(self, model: LoopedModel, output: LoopedOutput, batch: Batch, argument: str) -> Tensor:
        """A scalar, as a mean over the examples of the batch if it depends on them.

        Args:
            output: the output of a training step, with the logits of the loops that train.loss reads.
            argument: the text after the colon of `name:argument`, or ''.
        """
        ...


REGULARISERS: dict[str, Regulariser] = {}
CHECKS: dict[str, Callable[[RunConfig, str], None]] = {}
"""By name, a function that raises ValueError if a regulariser with this argument has no sense in a run."""


def register_regulariser(name: str) -> Callable[[Regulariser], Regulariser]:
    """The decorator that makes a function known as a term of the loss: `@register_regulariser("cosine")`."""

    def known(function: Regulariser) -> Regulariser:
        REGULARISERS[name] = function
        return function

    return known


def check_regularisers(run: RunConfig) -> None:
    """Check that a run's regularisers exist and fit its model.

    Raises:
        ValueError: one line that names the regulariser.
    """
    for text, _ in run.train.regularisers:
        name, _, argument = text.partition(":")
        if name not in REGULARISERS:
            hint = nearest(name, REGULARISERS)
            raise ValueError(f"train.regularisers={text!r}: unknown{hint}; expected one of {', '.join(REGULARISERS)}")
        if name in CHECKS:
            CHECKS[name](run, argument)


def regularisation(config: TrainConfig, model: nn.Module, output: LoopedOutput, batch: Batch) -> Tensor | float:
    """The weighted sum of the regularisers."""
    assert isinstance(model, LoopedModel)
    total: Tensor | float = 0.0
    for text, weight in config.regularisers:
        name, _, argument = text.partition(":")
        total = total + weight * REGULARISERS[name](model, output, batch, argument)
    return total


@register_regulariser("cosine")
def cosine(model: LoopedModel, output: LoopedOutput, batch: Batch, argument: str) -> Tensor:
    """`cosine:K` is 1 minus the mean cosine of core layers l and l + K (Saunshi et al., 2025, Section 4).

    It makes a model without loops similar to a block of K layers that is looped. The publication prints the cosine with
    a plus sign in the loss, which would push layers apart; its text and results say the opposite.
    """
    return 1 - layer_cosine(model.core, int(argument))


def _check_cosine(run: RunConfig, argument: str) -> None:
    n, k = run.model.core_layers, int(argument) if argument.isdecimal() else 0
    fits = 1 <= k < n and n % k == 0
    check(fits, "train.regularisers", f"cosine:{argument}", f"cosine:K with K below core_layers={n}, a divisor of it")


CHECKS["cosine"] = _check_cosine
