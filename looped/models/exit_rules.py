"""Exit rules: when inference stops looping. Their names in text are such as `kl:0.01` or `unchanged:2/token`."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from looped.strict import at_least, check, is_number, nearest

EPSILON = 0.01
"""Act stops at a sum of 1 - EPSILON. One loop can then be enough, although no probability reaches 1."""
FLOAT32 = torch.finfo(torch.float32)


@runtime_checkable
class Halting(Protocol):
    """The facts that a rule needs of a model or of its configuration."""

    @property
    def causal(self) -> bool: ...
    @property
    def halting(self) -> Literal["none", "gate", "act"]: ...
    @property
    def output_size(self) -> int | None: ...
    @property
    def layer_order(self) -> Literal["cycle", "sequence", "reverse"]: ...


class Observation(NamedTuple):
    """The input of an exit rule after a loop: the examples that are still in the loop."""

    loop: int
    """Number of the loop, from 1."""
    before: Float[Tensor, "active seq d_model"]
    after: Float[Tensor, "active seq d_model"]
    logits: Float[Tensor, "active seq output"] | None
    """Logits of this loop, for rules with needs="logits"."""
    halting: Float[Tensor, "active seq"] | None
    """The learned probability of halting now, for rules with needs="halting"."""
    carry: Any
    """The carry that the rule returned after the previous loop, for the same examples; None after the first loop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExitRule(ABC):
    """Decides after each loop which positions are done.

    An example exits when all its positions are done. Only positions in the exit mask count. With per="token" each
    token exits by itself: it keeps its state, and other tokens attend to the keys and values of its last loop. A rule
    does not handle padding, caches or batches; the model does.
    """

    per: Literal["sequence", "token"] = "sequence"
    """Whether an example exits as a whole, or token by token."""
    min_loops: int = 1
    """No exit before this many loops."""
    needs: ClassVar[Literal["states", "logits", "halting"]] = "states"
    learned: ClassVar[Literal["none", "gate", "act"]] = "none"
    """The learned halting (`ModelConfig.halting`) that the rule needs."""
    name: ClassVar[str] = ""
    """Its name in text."""
    argument: ClassVar[str | None] = None
    """The field, a positive number, that follows the colon in text."""

    def __post_init__(self) -> None:
        if self.per not in ("sequence", "token"):
            raise ValueError(f"per={self.per!r}: expected 'sequence' or 'token'")
        at_least(1, min_loops=self.min_loops)
        if self.argument == "loops":
            at_least(1, loops=getattr(self, self.argument))
        elif self.argument:
            value = getattr(self, self.argument)
            usable = is_number(value) and FLOAT32.tiny <= value <= FLOAT32.max
            check(usable, self.argument, value, "a positive number, finite in float32")

    def check(self, model: Halting) -> None:
        """Raises ValueError if the model has not learned what the rule needs."""
        trained_for = "token" if model.causal else "sequence"
        wanted = None
        if model.layer_order == "sequence":
            wanted = "no rule with layer_order='sequence', whose state is readable after the last loop only"
        elif self.learned not in ("none", model.halting):
            wanted = f"a model with model.halting={self.learned!r}; this has {model.halting!r}"
        elif model.halting == "act" and self.learned != "act":
            wanted = "act, because the model has learned to answer with a mean of its states"
        elif self.learned != "none" and self.per != trained_for:
            wanted = f"per={trained_for!r}, as this model has learned to halt"
        elif self.needs == "logits" and model.output_size == 1:
            wanted = "a rule that needs no classes; this model answers with a number"
        if wanted:
            raise ValueError(f"exit_rule={self}: expected {wanted}")

    def __str__(self) -> str:
        """The text that `parse_rule` reads; for a rule without a name, its `repr`."""
        if not self.name:
            return repr(self)
        value = f":{getattr(self, self.argument)}" if self.argument else ""
        least = f"/min:{self.min_loops}" if self.min_loops > 1 else ""
        return f"{self.name}{value}{'/token' if self.per == 'token' else ''}{least}"

    @abstractmethod
    def __call__(self, observation: Observation) -> tuple[Bool[Tensor, "active seq"], Any]:
        """The positions that are done, and the carry: a tensor (active, seq, ...), a tuple of such, or None."""

    def output(self, state: Float[Tensor, "batch seq d_model"], carry: Any) -> Float[Tensor, "batch seq d_model"]:
        """The state that is decoded if the loop ends here: the state itself, unless a rule mixes states."""
        return state


@dataclass(frozen=True, kw_only=True, slots=True)
class Fixed(ExitRule):
    """Done after a number of loops."""

    loops: int
    name: ClassVar[str] = "fixed"
    argument: ClassVar[str | None] = "loops"

    def __call__(self, observation: Observation) -> tuple[Tensor, None]:
        after = observation.after
        return torch.full(after.shape[:2], observation.loop >= self.loops, device=after.device), None


@dataclass(frozen=True, kw_only=True, slots=True)
class StateChange(ExitRule):
    """Done when ||h_{t+1} - h_t|| <= threshold * ||h_t|| at a position."""

    threshold: float
    name: ClassVar[str] = "change"
    argument: ClassVar[str | None] = "threshold"

    def __call__(self, observation: Observation) -> tuple[Tensor, None]:
        change = (observation.after - observation.before).norm(dim=-1)
        return change <= self.threshold * observation.before.norm(dim=-1), None


@dataclass(frozen=True, kw_only=True, slots=True)
class KLDivergence(ExitRule):
    """Done when KL(this loop's distribution || the previous loop's) is at most `threshold` nats."""

    threshold: float
    needs: ClassVar[Literal["logits"]] = "logits"
    name: ClassVar[str] = "kl"
    argument: ClassVar[str | None] = "threshold"

    def __call__(self, observation: Observation) -> tuple[Tensor, Tensor]:
        assert observation.logits is not None
        now = observation.logits.log_softmax(-1)
        if observation.carry is None:
            return torch.zeros(now.shape[:2], dtype=torch.bool, device=now.device), now
        terms = now.exp() * (now - observation.carry)
        return torch.where(now.isneginf(), 0.0, terms).sum(-1) <= self.threshold, now  # impossible classes add nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Entropy(ExitRule):
    """Done when the entropy of the output distribution is at most `threshold` nats."""

    threshold: float
    needs: ClassVar[Literal["logits"]] = "logits"
    name: ClassVar[str] = "entropy"
    argument: ClassVar[str | None] = "threshold"

    def __call__(self, observation: Observation) -> tuple[Tensor, None]:
        assert observation.logits is not None
        log = observation.logits.log_softmax(-1)
        return -torch.where(log.isneginf(), 0.0, log.exp() * log).sum(-1) <= self.threshold, None


class UnchangedCarry(NamedTuple):
    answer: Tensor
    """(active, seq, 1) the most probable output."""
    loops: Tensor
    """(active, seq, 1) for how many loops it has stayed the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unchanged(ExitRule):
    """Done when the most probable output has stayed the same for `loops` loops."""

    loops: int = 1
    needs: ClassVar[Literal["logits"]] = "logits"
    name: ClassVar[str] = "unchanged"
    argument: ClassVar[str | None] = "loops"

    def __call__(self, observation: Observation) -> tuple[Tensor, UnchangedCarry]:
        assert observation.logits is not None
        answer = observation.logits.argmax(-1, keepdim=True)
        old = observation.carry or UnchangedCarry(torch.full_like(answer, -1), torch.zeros_like(answer))
        loops = torch.where(old.answer == answer, old.loops + 1, 0)
        return loops[..., 0] >= self.loops, UnchangedCarry(answer, loops)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate(ExitRule):
    """Done when the learned probability of having halted, 1 - prod_{j<=t} (1 - lambda_j), is at least `threshold`.

    For models with halting="gate" (PonderNet, Banino et al. 2021, which draws the exit instead). Exits of whole
    examples match training exactly. Exits of tokens are approximate, because no token was halted during training.
    """

    threshold: float = 0.5
    needs: ClassVar[Literal["halting"]] = "halting"
    learned: ClassVar[Literal["gate"]] = "gate"
    name: ClassVar[str] = "gate"
    argument: ClassVar[str | None] = "threshold"

    def __post_init__(self) -> None:
        ExitRule.__post_init__(self)
        if not self.threshold < 1:
            raise ValueError(f"threshold={self.threshold!r}: expected a probability between 0 and 1")

    def __call__(self, observation: Observation) -> tuple[Tensor, Tensor]:
        assert observation.halting is not None
        stays = 1 - observation.halting[..., None]
        stays = stays if observation.carry is None else observation.carry * stays
        return 1 - stays[..., 0] >= self.threshold, stays


class ActCarry(NamedTuple):
    """Sums over the loops so far, with h the halting probability."""

    states: Tensor
    """(active, seq, d_model) sum of h * state."""
    weight: Tensor
    """(active, seq, 1) sum of h."""
    remainder: Tensor
    """(active, seq, 1) 1 - the sum of h before the last loop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Act(ExitRule):
    """Adaptive computation time (Graves 2016, section 2): done when the halting probabilities sum to 1 - EPSILON.

    The output is the mean of the states after all loops, weighted by these probabilities; the last loop takes what is
    left. With M and c, the weighted sum of the states and the sum of the weights so far, that is M + (1 - c) * state,
    after any loop. Models with halting="act" are trained with this rule, so inference matches training exactly.
    """

    needs: ClassVar[Literal["halting"]] = "halting"
    learned: ClassVar[Literal["act"]] = "act"
    name: ClassVar[str] = "act"

    def __post_init__(self) -> None:
        ExitRule.__post_init__(self)
        if self.min_loops > 1:
            raise ValueError(f"min_loops={self.min_loops}: expected 1 with act, whose weights sum to 1 when it is done")

    def __call__(self, observation: Observation) -> tuple[Tensor, ActCarry]:
        assert observation.halting is not None
        weight = observation.halting[..., None]
        now = ActCarry(weight * observation.after, weight, torch.ones_like(weight))
        if (old := observation.carry) is not None:
            now = ActCarry(now.states + old.states, weight + old.weight, 1 - old.weight)
        return now.weight[..., 0] >= 1 - EPSILON, now

    def output(self, state: Float[Tensor, "batch seq d_model"], carry: ActCarry) -> Float[Tensor, "batch seq d_model"]:
        return carry.states + (1 - carry.weight) * state


def learned_rule(model: Halting) -> ExitRule | None:
    """The rule by which a model with learned halting exits: a gate at probability 0.5, or act."""
    per = "token" if model.causal else "sequence"
    return {"none": None, "gate": Gate(per=per), "act": Act(per=per)}[model.halting]


RULES: dict[str, type[ExitRule]] = {
    rule.name: rule for rule in (Fixed, StateChange, KLDivergence, Entropy, Unchanged, Gate, Act)
}
"""Each rule by its name in text. Add your own here to use it on the command line."""


def parse_rule(text: str) -> ExitRule:
    """`NAME[:VALUE][/token][/min:LOOPS]` as a rule, the inverse of `str`: fixed:8, change:0.05, kl:0.01/token.

    Raises:
        ValueError: one line, for an unknown name or a value that the rule cannot have.
    """
    head, *options = text.split("/")
    name, _, value = head.partition(":")
    if name not in RULES:
        raise ValueError(f"exit rule {text[:80]!r}: expected one of {', '.join(RULES)}{nearest(name, RULES)}")
    rule = RULES[name]
    words = [(rule.argument or "value", value)] if value else []
    try:
        for option in options:
            key, _, number = option.partition(":")
            words.append({"token": ("per", number or "token"), "min": ("min_loops", number)}[key])
        given = {key: word if key == "per" else _number(key, word) for key, word in words}
        if len(given) < len(words):
            raise ValueError("expected each option once")
        return rule(**given)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        usage = f"{name}:{rule.argument.upper()}" if rule.argument else name
        reason = f" ({error})" if isinstance(error, ValueError) and "expected" in str(error) else ""
        raise ValueError(f"exit rule {text[:80]!r}: expected {usage}[/token][/min:LOOPS]{reason}") from None


def _number(name: str, word: str) -> int | float:
    """A decimal number in ASCII digits; a whole one for loops."""
    pattern = r"-?\d+" if "loops" in name else r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
    if not re.fullmatch(pattern, word, re.ASCII):
        raise ValueError(word)
    return int(word) if "loops" in name else float(word)
