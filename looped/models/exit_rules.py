"""When inference stops looping: exit rules, and their names in text, such as `kl:0.01` or `unchanged:2/token`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looped.config import ModelConfig
from looped.strict import nearest


class Observation(NamedTuple):
    """What an exit rule sees after a loop, of the examples that are still in it."""

    loop: int
    """Number of the loop, from 1."""
    before: Float[Tensor, "active seq d_model"]
    after: Float[Tensor, "active seq d_model"]
    logits: Float[Tensor, "active seq output"] | None
    """Readout of this loop, for rules with sees="logits"."""
    halting: Float[Tensor, "active seq"] | None
    """The learned probability of leaving now, for rules with sees="halting"."""
    memory: Float[Tensor, "active seq size"] | Int[Tensor, "active seq size"] | None
    """What the rule returned after the loop before, for the same examples; None after the first loop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExitRule(ABC):
    """Tells after each loop which positions are done.

    A sequence is done when all its positions are (of those that are looked at: no padding, and only answers where
    the caller says so). A token that leaves keeps its state, and the others see the keys of its last loop.
    """

    per: Literal["sequence", "token"] = "sequence"
    """Whether a sequence leaves as a whole, or each of its tokens for itself."""
    min_loops: int = 1
    """Nobody leaves before so many loops."""
    sees: ClassVar[Literal["states", "logits", "halting"]] = "states"
    trained: ClassVar[Literal["none", "gate", "act"]] = "none"
    """The learned halting (`ModelConfig.halting`) that the rule needs."""

    def __post_init__(self) -> None:
        if self.per not in ("sequence", "token"):
            raise ValueError(f"per={self.per!r}: expected 'sequence' or 'token'")
        if self.min_loops < 1:
            raise ValueError(f"min_loops={self.min_loops}: expected at least 1")

    def check(self, config: ModelConfig) -> None:
        """Raises ValueError where a model has not learned what the rule needs."""
        learned = "token" if config.causal else "sequence"
        wanted = None
        if self.trained not in ("none", config.halting):
            wanted = f"a model with model.halting={self.trained!r}; this has {config.halting!r}"
        elif config.halting == "act" and self.trained != "act":
            wanted = "act: the model has learned to answer with that mean of its states"
        elif self.trained != "none" and self.per != learned:
            wanted = f"per={learned!r}, as this model has learned to halt"
        elif self.sees == "logits" and config.output_size == 1:
            wanted = "a rule that looks at no classes; this model answers with a number"
        if wanted:
            raise ValueError(f"exit_rule={self}: expected {wanted}")

    def __str__(self) -> str:
        """The text that `parse_rule` reads."""
        name, field = next((name, field) for name, (kind, field) in RULES.items() if kind is type(self))
        value = f":{getattr(self, field)}" if field else ""
        least = f"/min:{self.min_loops}" if self.min_loops > 1 else ""
        return f"{name}{value}{'/token' if self.per == 'token' else ''}{least}"

    @abstractmethod
    def __call__(self, look: Observation) -> tuple[Bool[Tensor, "active seq"], Tensor | None]:
        """Which positions are done, and the memory for the next look, or None."""

    def output(self, state: Float[Tensor, "_ seq d_model"], memory: Tensor | None) -> Float[Tensor, "_ seq d_model"]:
        """What is read out if the loop ends with this state: the state itself, unless states are mixed."""
        return state


@dataclass(frozen=True, kw_only=True, slots=True)
class Fixed(ExitRule):
    """Done after so many loops."""

    loops: int

    def __post_init__(self) -> None:
        ExitRule.__post_init__(self)
        _positive(self, "loops")

    def __call__(self, look: Observation) -> tuple[Tensor, None]:
        done = look.loop >= self.loops
        return torch.full(look.after.shape[:2], done, device=look.after.device), None


@dataclass(frozen=True, kw_only=True, slots=True)
class StateChange(ExitRule):
    """Done when ||h_{t+1} - h_t|| <= threshold * ||h_t|| at a position."""

    threshold: float

    def __post_init__(self) -> None:
        ExitRule.__post_init__(self)
        _positive(self, "threshold")

    def __call__(self, look: Observation) -> tuple[Tensor, None]:
        change = (look.after - look.before).norm(dim=-1)
        return change <= self.threshold * look.before.norm(dim=-1), None


@dataclass(frozen=True, kw_only=True, slots=True)
class KLDivergence(ExitRule):
    """Done when the Kullback-Leibler divergence of a readout from the one before is at most `threshold` nats."""

    threshold: float
    sees: ClassVar[Literal["logits"]] = "logits"

    def __post_init__(self) -> None:
        ExitRule.__post_init__(self)
        _positive(self, "threshold")

    def __call__(self, look: Observation) -> tuple[Tensor, Tensor]:
        assert look.logits is not None
        now = look.logits.log_softmax(-1)
        if look.memory is None:
            return torch.zeros(now.shape[:2], dtype=torch.bool, device=now.device), now
        return (now.exp() * (now - look.memory)).sum(-1) <= self.threshold, now


@dataclass(frozen=True, kw_only=True, slots=True)
class Entropy(ExitRule):
    """Done when the entropy of the readout is at most `threshold` nats."""

    threshold: float
    sees: ClassVar[Literal["logits"]] = "logits"

    def __post_init__(self) -> None:
        ExitRule.__post_init__(self)
        _positive(self, "threshold")

    def __call__(self, look: Observation) -> tuple[Tensor, None]:
        assert look.logits is not None
        log = look.logits.log_softmax(-1)
        return -(log.exp() * log).sum(-1) <= self.threshold, None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unchanged(ExitRule):
    """Done when the most probable output has stayed the same for `loops` loops."""

    loops: int = 1
    sees: ClassVar[Literal["logits"]] = "logits"

    def __post_init__(self) -> None:
        ExitRule.__post_init__(self)
        _positive(self, "loops")

    def __call__(self, look: Observation) -> tuple[Tensor, Tensor]:
        assert look.logits is not None
        answer = look.logits.argmax(-1)
        if look.memory is None:
            return torch.zeros_like(answer, dtype=torch.bool), torch.stack([answer, torch.zeros_like(answer)], -1)
        same, times = look.memory.unbind(-1)
        times = torch.where(same == answer, times + 1, 0)
        return times >= self.loops, torch.stack([answer, times], -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate(ExitRule):
    """Done when the learned probability of having left by now is at least `threshold`: 1 - prod_{j<=t} (1 - lambda_j).

    For models with halting="gate" (PonderNet, Banino et al. 2021, which draws the exit instead). Sequences read out
    exactly what training scored; single tokens see keys of others that have left, which training did not.
    """

    threshold: float = 0.5
    sees: ClassVar[Literal["halting"]] = "halting"
    trained: ClassVar[Literal["gate"]] = "gate"

    def __post_init__(self) -> None:
        ExitRule.__post_init__(self)
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold={self.threshold!r}: expected a probability between 0 and 1")

    def __call__(self, look: Observation) -> tuple[Tensor, Tensor]:
        assert look.halting is not None
        stays = 1 - look.halting[..., None]
        stays = stays if look.memory is None else look.memory * stays
        return 1 - stays[..., 0] >= self.threshold, stays


@dataclass(frozen=True, kw_only=True, slots=True)
class Act(ExitRule):
    """Adaptive computation time (Graves 2016, section 2): done when the halting probabilities sum to 1 - EPSILON.

    The output is the mean of the states after all loops, weighted by these probabilities; the last loop takes what is
    left. With M and c, the weighted sum of the states and the sum of the weights so far, that is M + (1 - c) * state,
    wherever the loop ends. Models with halting="act" are trained with this very rule, so that nothing differs later.
    """

    sees: ClassVar[Literal["halting"]] = "halting"
    trained: ClassVar[Literal["act"]] = "act"

    def __post_init__(self) -> None:
        ExitRule.__post_init__(self)
        if self.min_loops > 1:
            raise ValueError(f"min_loops={self.min_loops}: expected 1 with act, whose weights sum to 1 when it is done")

    def __call__(self, look: Observation) -> tuple[Tensor, Tensor]:
        assert look.halting is not None
        weight = look.halting[..., None]
        now = torch.cat([weight * look.after, weight, torch.ones_like(weight)], dim=-1)
        if look.memory is not None:
            now[..., :-1] += look.memory[..., :-1]
            now[..., -1] -= look.memory[..., -2]  # what was left before this loop
        return now[..., -2] >= 1 - EPSILON, now

    def output(self, state: Float[Tensor, "_ seq d_model"], memory: Tensor | None) -> Float[Tensor, "_ seq d_model"]:
        assert memory is not None
        return memory[..., :-2] + (1 - memory[..., -2:-1]) * state


EPSILON = 0.01
"""Of `Act`: lets a first loop be the last one, although no probability reaches 1."""


def _positive(rule: ExitRule, name: str) -> None:
    value = getattr(rule, name)
    if not value > 0:
        raise ValueError(f"{name}={value!r}: expected a positive number")


def learned_rule(config: ModelConfig) -> ExitRule | None:
    """How a model with learned halting leaves the loop by itself: by a gate where it is more likely than not."""
    per = "token" if config.causal else "sequence"
    return {"none": None, "gate": Gate(per=per), "act": Act(per=per)}[config.halting]


RULES: dict[str, tuple[type[ExitRule], str | None]] = {
    "fixed": (Fixed, "loops"),
    "change": (StateChange, "threshold"),
    "kl": (KLDivergence, "threshold"),
    "entropy": (Entropy, "threshold"),
    "unchanged": (Unchanged, "loops"),
    "gate": (Gate, "threshold"),
    "act": (Act, None),
}
"""Each rule's name in text, and the field that follows the colon."""


def parse_rule(text: str) -> ExitRule:
    """`NAME[:VALUE][/token][/min:LOOPS]` as a rule, the inverse of `str`: fixed:8, change:0.05, kl:0.01/token.

    Raises:
        ValueError: one line, for an unknown name or a value that the rule cannot have.
    """
    head, *options = text.split("/")
    name, _, value = head.partition(":")
    if name not in RULES:
        raise ValueError(f"exit rule {text!r}: expected one of {', '.join(RULES)}{nearest(name, RULES)}")
    kind, field = RULES[name]
    given: dict[str, str] = {}
    if value:
        given[field or "value"] = value
    for option in options:
        key, _, number = option.partition(":")
        given |= {"per": option} if option == "token" else {"min_loops" if key == "min" else option: number}
    try:
        numbers = {key: float(word) if key == "threshold" else int(word) for key, word in given.items() if key != "per"}
        return kind(**numbers, **{"per": "token"} if "per" in given else {})  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        usage = f"{name}:{(field or '').upper()}" if field else name
        reason = f" ({error})" if "expected" in str(error) else ""
        raise ValueError(f"exit rule {text!r}: expected {usage}[/token][/min:LOOPS]{reason}") from None
