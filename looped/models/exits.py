"""When inference stops looping: exit rules, and the bookkeeping of who is still in the loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looped.models.cache import Store


class Look(NamedTuple):
    """What an exit rule sees after a loop, of the examples that are still in it."""

    loop: int
    """Number of the loop, from 1."""
    before: Float[Tensor, "active seq d_model"]
    after: Float[Tensor, "active seq d_model"]
    logits: Float[Tensor, "active seq output"] | None
    """Readout of this loop, for rules with sees="logits"."""
    halting: Float[Tensor, "active seq"] | None
    """The learned probability of leaving now, for rules with sees="halting"."""
    memory: Tensor | None
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

    def __post_init__(self) -> None:
        if self.per not in ("sequence", "token"):
            raise ValueError(f"per={self.per!r}: expected 'sequence' or 'token'")
        if self.min_loops < 1:
            raise ValueError(f"min_loops={self.min_loops}: expected at least 1")

    @abstractmethod
    def __call__(self, look: Look) -> tuple[Bool[Tensor, "active seq"], Tensor | None]:
        """Which positions are done, and the memory for the next look: per example, or None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fixed(ExitRule):
    """Done after so many loops."""

    loops: int

    def __call__(self, look: Look) -> tuple[Tensor, None]:
        done = look.loop >= self.loops
        return torch.full(look.after.shape[:2], done, device=look.after.device), None


@dataclass(frozen=True, kw_only=True, slots=True)
class StateChange(ExitRule):
    """Done when ||h_{t+1} - h_t|| <= threshold * ||h_t|| at a position."""

    threshold: float

    def __post_init__(self) -> None:
        ExitRule.__post_init__(self)
        _positive(self, "threshold")

    def __call__(self, look: Look) -> tuple[Tensor, None]:
        change = (look.after - look.before).norm(dim=-1)
        return change <= self.threshold * look.before.norm(dim=-1), None


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence(ExitRule):
    """Done when the Kullback-Leibler divergence of a readout from the one before is at most `threshold` nats."""

    threshold: float
    sees: ClassVar[Literal["logits"]] = "logits"

    def __post_init__(self) -> None:
        ExitRule.__post_init__(self)
        _positive(self, "threshold")

    def __call__(self, look: Look) -> tuple[Tensor, Tensor]:
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

    def __call__(self, look: Look) -> tuple[Tensor, None]:
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

    def __call__(self, look: Look) -> tuple[Tensor, Tensor]:
        assert look.logits is not None
        answer = look.logits.argmax(-1)
        if look.memory is None:
            return torch.zeros_like(answer, dtype=torch.bool), torch.stack([answer, torch.zeros_like(answer)], -1)
        same, times = look.memory.unbind(-1)
        times = torch.where(same == answer, times + 1, 0)
        return times >= self.loops, torch.stack([answer, times], -1)


def _positive(rule: ExitRule, name: str) -> None:
    value = getattr(rule, name)
    if not value > 0:
        raise ValueError(f"{name}={value!r}: expected a positive number")


class Exits:
    """Who is still in the loop, and with what everyone else left."""

    def __init__(
        self,
        rule: ExitRule,
        state: Float[Tensor, "batch seq d_model"],
        *,
        watch: Bool[Tensor, "batch seq"] | None,
        read: Callable[[Tensor, int], Tensor],
        halting: Callable[[Tensor], Tensor] | None,
        stop: Callable[[Tensor, int], None],
        store: Store | None,
    ) -> None:
        """Nobody has left.

        Args:
            watch: the positions that the rule looks at; None is all.
            read: logits of a state of those in the loop, after loop number n.
            halting: probability of leaving, from such a state.
            stop: told which tokens of those in the loop leave, and after how many loops.
            store: of keys and values, told who goes on.
        """
        batch, seq = state.shape[:2]
        self.rule, self.read, self.halting, self.stop, self.store = rule, read, halting, stop, store
        self.rows: Tensor | None = None
        """Numbers of the examples in the loop; None is all."""
        self.watch = torch.ones(batch, seq, dtype=torch.bool, device=state.device) if watch is None else watch
        self.settled = torch.zeros_like(self.watch)
        """Tokens of those examples that have left the loop."""
        self.memory: Tensor | None = None
        self.loops = torch.zeros(batch, seq, dtype=torch.long, device=state.device)
        """Loops that each token took part in."""
        self.final_state, self.final_logits = torch.empty_like(state), None
        self.logits: Tensor | None = None
        """This loop's, of the examples in the loop."""

    def leave(self, before: Tensor, after: Tensor, loop: int) -> Float[Tensor, "active seq d_model"]:
        """The states after a loop of the examples that go on; with none left, they have no rows."""
        rule, rows = self.rule, self._rows()
        per_token = rule.per == "token"
        if per_token:
            after = torch.where(self.settled[..., None], before, after)
        logits = self.read(after, loop) if rule.sees == "logits" else None
        halting = self.halting(after) if self.halting and rule.sees == "halting" else None
        if per_token and logits is not None and self.logits is not None:
            logits = torch.where(self.settled[..., None], self.logits, logits)
        done, memory = rule(Look(loop, before, after, logits, halting, self.memory))
        self.loops[rows] += ~self.settled
        if loop < rule.min_loops:
            done = torch.zeros_like(done)
        finished = (self.settled | done | ~self.watch).all(1)
        leaving = finished[:, None] | (done & self.watch) if per_token else finished[:, None].expand_as(done)
        leaving = leaving & ~self.settled
        self.logits, self.memory = logits, memory
        if not bool(leaving.any()):
            return after
        self.stop(leaving, loop)
        self.settled = self.settled | leaving
        if bool(finished.any()):
            self._keep_final(rows, after)
            stay = ~finished
            after, self.watch, self.settled = after[stay], self.watch[stay], self.settled[stay]
            self.memory = None if memory is None else memory[stay]
            self.logits = None if logits is None else logits[stay]
            self.rows = rows[stay]
            if self.store is not None:
                self.store.narrow(self.rows, stay)
        if self.store is not None:
            self.store.settled = self.settled if per_token else None
        return after

    @property
    def all_left(self) -> bool:
        return self.rows is not None and not len(self.rows)

    def whole(self, state: Float[Tensor, "active seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        """The states of all examples: of those in the loop, and of the others as they left."""
        if self.rows is None:
            return state
        return self.final_state.index_copy(0, self.rows, state)

    def whole_logits(self) -> Float[Tensor, "batch seq output"] | None:
        """Readouts of the last loop that each took part in, if the rule saw readouts."""
        if self.rows is None or self.logits is None or self.final_logits is None:
            return self.logits
        return self.final_logits.index_copy(0, self.rows, self.logits)

    def _rows(self) -> Int[Tensor, " active"]:
        return torch.arange(len(self.watch), device=self.watch.device) if self.rows is None else self.rows

    def _keep_final(self, rows: Tensor, after: Tensor) -> None:
        """All rows of those in the loop are written; those that go on will write theirs again."""
        self.final_state[rows] = after
        if self.logits is not None:
            if self.final_logits is None:
                self.final_logits = self.logits.new_empty(len(self.final_state), *self.logits.shape[1:])
            self.final_logits[rows] = self.logits
