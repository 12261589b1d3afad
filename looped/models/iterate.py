"""The one place where a core is applied repeatedly.

The gradient window, recomputation, exits and the states that are kept all live here, so that there is one
loop to understand and to test.
"""

import math
from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from looped.models.early_exit import Exits

State = Float[Tensor, "_ seq d_model"]
"""Of the examples that are in the loop, which may leave it."""
Recompute = Literal["none", "loop", "nested"]


class Iterated(NamedTuple):
    """What looping gave."""

    state: State
    """After the last loop, of those that left early after theirs."""
    num_loops: int
    """Loops that were run: fewer than asked for if every example left early."""
    kept: dict[int, State]
    """The state after each loop that was asked for, by loop number 1 .. num_loops."""
    exits: Int[Tensor, "batch seq"] | None = None
    """Loops that each token took part in, with exits."""
    logits: Float[Tensor, "batch seq output"] | None = None
    """Readouts of the last loop that each took part in, where the exits read them anyway."""
    ponder: Float[Tensor, "batch seq"] | None = None
    """Each token's ponder cost, with adaptive computation time."""


def iterate(
    step: Callable[[State, int], State],
    state: State,
    num_loops: int,
    *,
    num_grad_loops: int | None = None,
    recompute: Recompute = "none",
    keep: Collection[int] = (),
    exits: Exits | None = None,
) -> Iterated:
    """Apply `step(state, t)` for t = 0 .. num_loops-1.

    Args:
        step: one application of the core, to the examples that are still in the loop.
        state: (batch, seq, d_model).
        num_loops: at least 1.
        num_grad_loops: trailing loops that carry gradient; None is all.
        recompute: what is kept for the backward pass: all activations (none), the state before each loop
            (loop), or about 2 sqrt(num_loops) of those states (nested).
        keep: loop numbers, from 1, whose states are returned.
        exits: lets examples leave the loop, and tokens stand still.

    Raises:
        ValueError: for counts out of range, or exits together with a gradient window or recomputation.
    """
    window = num_loops if num_grad_loops is None else num_grad_loops
    if num_loops < 1:
        raise ValueError(f"num_loops={num_loops}: expected at least 1")
    if not 1 <= window <= num_loops:
        raise ValueError(f"num_grad_loops={window}: expected 1 to num_loops={num_loops}")
    if exits is not None and (window < num_loops or recompute != "none"):
        raise ValueError("exit_rule: expected neither num_grad_loops nor recompute beside it")
    kept: list[State] = []
    loops = num_loops

    def run(state: State, first: int, last: int, one: Callable[[State, int], State]) -> tuple[State, ...]:
        nonlocal loops
        outputs = []
        for t in range(first, last):
            before, state = state, one(state, t)
            if exits is not None:
                state = exits.leave(before, state, t + 1)
            if t + 1 in keep:
                outputs.append(state if exits is None else exits.outputs(state))
            if exits is not None and exits.all_left:
                loops = t + 1
                break
        return (state, *outputs)

    def advance(outputs: tuple[State, ...]) -> State:
        kept.extend(outputs[1:])
        return outputs[0]

    start = num_loops - window
    if start:
        with torch.no_grad():
            state = advance(run(state, 0, start, step))
        # Autocast caches weights that it cast without gradient; the window must not meet them.
        torch.clear_autocast_cache()
    if recompute == "none" or not torch.is_grad_enabled():
        state = advance(run(state, start, num_loops, step))
    else:
        segment = 1 if recompute == "loop" else math.isqrt(window - 1) + 1
        one = step if segment == 1 else lambda state, t: _recomputed(step, state, t)
        for first in range(start, num_loops, segment):
            state = advance(_recomputed(run, state, first, min(first + segment, num_loops), one))
    numbers = sorted(n for n in keep if n <= loops)
    by_number = dict(zip(numbers, kept, strict=True))
    if exits is None:
        return Iterated(state, loops, by_number)
    return Iterated(exits.outputs(state), loops, by_number, exits.loops, exits.whole_logits(), exits.ponder())


def _recomputed(function: Callable[..., Any], *args: Any) -> Any:
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
