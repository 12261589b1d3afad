"""Early exit: which examples and tokens are still in the loop, and one loop followed by an exit rule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looped.models.exit_rules import ExitRule, Observation


class Active:
    """The examples and tokens that are still in the loop. Only `halt` removes any; everything else reads."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """The loop is over: the whole batch again."""
        self.rows: Int[Tensor, " active"] | None = None
        """Indices of the examples in the loop; None means all."""
        self.halted: Bool[Tensor, "active seq"] | None = None
        """Tokens of these examples that have exited, while their example goes on; None means no token."""

    def take(self, whole: Any, dim: int = 0) -> Any:
        """The rows in the loop, along axis `dim` of a tensor, or of each tensor in a tuple."""
        return whole if self.rows is None else _map(lambda x: x.index_select(dim, self.rows), whole)

    def put(self, whole: Any, part: Any, dim: int = 0) -> Any:
        """`whole` with the rows in the loop replaced by `part`; the inverse of `take`."""
        return part if self.rows is None else _map(lambda x, y: x.index_copy(dim, self.rows, y), whole, part)

    def halt(self, examples: Bool[Tensor, " active"], tokens: Bool[Tensor, "active seq"] | None = None) -> None:
        """These examples exit, and these tokens; both are counted among the rows in the loop."""
        if tokens is not None:
            self.halted = tokens if self.halted is None else self.halted | tokens
        if bool(examples.any()):
            rows = torch.arange(len(examples), device=examples.device) if self.rows is None else self.rows
            self.rows = rows[~examples]
            self.halted = None if self.halted is None else self.halted[~examples]

    def empty(self) -> bool:
        """Whether every example has exited."""
        return self.rows is not None and not len(self.rows)


class ExitState(NamedTuple):
    """The state of a loop with an exit rule, for the whole batch. Rows that have exited keep their last values."""

    hidden: Float[Tensor, "batch seq d_model"]
    carry: Any = None
    """The memory of the rule: a tensor, a tuple of tensors, or None."""
    logits: Float[Tensor, "batch seq output"] | None = None
    """Logits of the last loop of each token, for rules that need logits."""


class EarlyExit:
    """One loop followed by an exit rule: a step for `iterate` on an `ExitState`. Exited examples are not computed."""

    def __init__(
        self,
        rule: ExitRule,
        active: Active,
        exit_mask: Bool[Tensor, "batch seq"],
        *,
        step: Callable[[Tensor, int], Tensor],
        decode: Callable[[Tensor, int], Tensor],
        halting: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """All examples are in the loop.

        Args:
            exit_mask: the positions that the rule looks at.
            step: one loop on the hidden states of the active rows.
            decode: logits of the active rows from their state after loop t.
            halting: probability of halting of the active rows, from their state and their exit mask.
        """
        self.rule, self.active, self.exit_mask = rule, active, exit_mask
        self.step, self.decode, self.halting = step, decode, halting
        self.loops_taken = torch.zeros_like(exit_mask, dtype=torch.long)
        """(batch, seq) loops that each token took part in."""

    def __call__(self, state: ExitState, t: int) -> ExitState:
        rule, active = self.rule, self.active
        rows, halted, mask = active.rows, active.halted, active.take(self.exit_mask)
        old: ExitState = ExitState(*(active.take(part) for part in state))
        new = self.step(old.hidden, t)
        if halted is not None:
            new = torch.where(halted[..., None], old.hidden, new)
        logits = self.decode(new, t) if rule.needs == "logits" else None
        halting = self.halting(new, mask) if rule.needs == "halting" else None
        done, carry = rule(Observation(t + 1, old.hidden, new, logits, halting, old.carry))
        if not isinstance(done, Tensor) or done.shape != mask.shape:
            found = tuple(done.shape) if isinstance(done, Tensor) else type(done).__name__
            raise ValueError(f"exit_rule={rule}: returned {found}; expected booleans of shape {tuple(mask.shape)}")
        if t > 0 and (carry is None) != (state.carry is None):
            raise ValueError(f"exit_rule={rule}: its carry is None in some loops only; expected None in all or in none")
        if halted is not None:  # a halted token keeps what it had

            def kept(a: Tensor, b: Tensor) -> Tensor:
                return torch.where(halted.view(*halted.shape, *[1] * (b.ndim - 2)), a, b)

            carry, logits = _map(kept, old.carry, carry), _map(kept, old.logits, logits)
        looped = torch.ones_like(mask) if halted is None else ~halted
        self.loops_taken[slice(None) if rows is None else rows] += looped
        result = ExitState(*map(active.put, state, (new, carry, logits)))
        if t + 1 >= rule.min_loops:
            done = done | ~mask if halted is None else done | ~mask | halted
            finished = done.all(1)
            tokens = (done & mask) | finished[:, None] if rule.per == "token" else None
            active.halt(finished, tokens)
        return result


def _map(function: Callable[..., Tensor], first: Any, *others: Any) -> Any:
    """Apply a function to tensors, or to the tensors of equal tuples; None stays None."""
    if first is None:
        return None
    if isinstance(first, tuple):
        parts = [_map(function, *those) for those in zip(first, *others, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)  # a NamedTuple stays one
    return function(first, *others)
