"""Who is still in the loop: the bookkeeping of the rows and tokens that an exit rule lets go."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looped.models.exit_rules import ExitRule, Observation
from looped.models.kv_cache import Store


class Exits:
    """Who is still in the loop, and with what everyone else left."""

    def __init__(
        self,
        rule: ExitRule,
        state: Float[Tensor, "batch seq d_model"],
        *,
        exit_mask: Bool[Tensor, "batch seq"] | None,
        read: Callable[[Tensor, int], Tensor],
        halting: Callable[[Tensor, Tensor], Tensor],
        stop: Callable[[Tensor, int], None] = lambda tokens, ran: None,
        store: Store | None = None,
    ) -> None:
        """Nobody has left.

        Args:
            exit_mask: the positions that the rule looks at; None is all.
            read: logits of a state of those in the loop, after loop number n.
            halting: probability of leaving, from such a state and the positions that are looked at.
            stop: told which tokens of those in the loop leave, and after how many loops.
            store: of keys and values, told who goes on.
        """
        batch, seq = state.shape[:2]
        self.rule, self.read, self.halting, self.stop, self.store = rule, read, halting, stop, store
        self.rows: Tensor | None = None
        """Numbers of the examples in the loop; None is all."""
        self.exit_mask = (
            torch.ones(batch, seq, dtype=torch.bool, device=state.device) if exit_mask is None else exit_mask
        )
        self.settled = torch.zeros_like(self.exit_mask)
        """Tokens of those examples that have left the loop."""
        self.memory: Tensor | None = None
        """The rule's, of the examples in the loop."""
        self.logits: Tensor | None = None
        """This loop's, of the examples in the loop."""
        self.loops = torch.zeros(batch, seq, dtype=torch.long, device=state.device)
        """Loops that each token took part in."""
        self._final: dict[str, Tensor] = {}
        """What the examples that have left the loop left with; the rows of the others mean nothing."""

    def leave(self, before: Tensor, after: Tensor, loop: int) -> Float[Tensor, "active seq d_model"]:
        """The states after a loop of the examples that go on; with none left, they have no rows."""
        rule, rows = self.rule, self._rows()
        per_token = rule.per == "token"
        if per_token:
            after = torch.where(self.settled[..., None], before, after)
        logits = self.read(after, loop) if rule.sees == "logits" else None
        halting = self.halting(after, self.exit_mask) if rule.sees == "halting" else None
        done, memory = rule(Observation(loop, before, after, logits, halting, self.memory))
        if per_token and loop > 1:  # tokens that have left say no more
            stay = ~self.settled[..., None]
            logits = None if logits is None or self.logits is None else torch.where(stay, logits, self.logits)
            memory = None if memory is None or self.memory is None else torch.where(stay, memory, self.memory)
        self.loops[rows] += ~self.settled
        if loop < rule.min_loops:
            done = torch.zeros_like(done)
        finished = (self.settled | done | ~self.exit_mask).all(1)
        leaving = finished[:, None] | (done & self.exit_mask) if per_token else finished[:, None].expand_as(done)
        leaving = leaving & ~self.settled
        self.logits, self.memory = logits, memory
        if not bool(leaving.any()):
            return after
        self.stop(leaving, loop)
        self.settled = self.settled | leaving
        if bool(finished.any()):
            for name, value in {"state": rule.output(after, memory), "logits": logits, "memory": memory}.items():
                if value is not None:
                    if name not in self._final:
                        self._final[name] = value.new_zeros(len(self.loops), *value.shape[1:])
                    self._final[name] = self._final[name].index_copy(0, rows[finished], value[finished])
            stay = ~finished
            after, self.exit_mask, self.settled = after[stay], self.exit_mask[stay], self.settled[stay]
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

    def outputs(self, state: Float[Tensor, "active seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        """What to read out of all examples if the loop ended here: of the others, what they left with."""
        return self._whole("state", self.rule.output(state, self.memory))

    def whole_logits(self) -> Float[Tensor, "batch seq output"] | None:
        """Readouts of the last loop that each took part in, if the rule saw loop_logits."""
        return None if self.logits is None else self._whole("logits", self.logits)

    def ponder(self) -> Float[Tensor, "batch seq"] | None:
        """With `Act`, the ponder cost N + R of each token: its loops, and what was left for the last of them."""
        if self.rule.trained != "act" or self.memory is None:
            return None
        return self.loops + self._whole("memory", self.memory)[..., -1]

    def _whole(self, name: str, value: Tensor) -> Tensor:
        return value if self.rows is None else self._final[name].index_copy(0, self.rows, value)

    def _rows(self) -> Int[Tensor, " active"]:
        return torch.arange(len(self.exit_mask), device=self.exit_mask.device) if self.rows is None else self.rows
