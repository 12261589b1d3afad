"""The one place where a core is applied repeatedly: gradient window, recomputation, kept states, early end."""

import math
from collections.abc import Callable, Collection
from typing import Any, Generic, Literal, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from looped.strict import at_least

State = TypeVar("State")
"""Tensors of any shape, alone or in tuples."""
Recompute = Literal["none", "loop", "nested"]


class Iterated(Generic[State]):
    """The result of `iterate`."""

    def __init__(self, state: State, num_loops: int, kept: dict[int, State]) -> None:
        self.state = state
        """After the last loop."""
        self.num_loops = num_loops
        """Loops that were run; fewer than asked for if `until` ended the loop."""
        self.kept = kept
        """The state after each loop in `keep`, by loop number 1 .. num_loops."""


def iterate(
    step: Callable[[State, int], State],
    state: State,
    num_loops: int,
    *,
    num_grad_loops: int | None = None,
    recompute: Recompute = "none",
    keep: Collection[int] = (),
    until: Callable[[], bool] | None = None,
) -> Iterated[State]:
    """Apply `step(state, t)` for t = 0 .. num_loops-1.

    Example: gradient descent on x^2 from x = 1, `iterate(lambda x, t: x - 0.1 * 2 * x, torch.ones(()), 50).state`.

    Args:
        step: one loop. It may be random (dropout): recomputation repeats the same draws.
        state: a tensor of any shape, or tuples of tensors.
        num_loops: at least 1.
        num_grad_loops: trailing loops that carry gradient; None is all.
        recompute: what is kept for the backward pass: all activations (none), the state before each loop (loop), or
            about 2 sqrt(num_loops) of those states (nested).
        keep: loop numbers, from 1, whose states are returned.
        until: asked after each loop; True ends the loop early.

    Raises:
        ValueError: for counts out of range, or `until` together with a gradient window or recomputation.
    """
    window = num_loops if num_grad_loops is None else num_grad_loops
    at_least(1, num_loops=num_loops, num_grad_loops=num_grad_loops)
    if not 1 <= window <= num_loops:
        raise ValueError(f"num_grad_loops={window}: expected 1 to num_loops={num_loops}")
    if recompute not in ("none", "loop", "nested"):
        raise ValueError(f"recompute={recompute!r}: expected none, loop or nested")
    if any(not 1 <= n <= num_loops for n in keep):
        raise ValueError(f"keep={list(keep)}: expected loop numbers from 1 to num_loops={num_loops}")
    if until is not None and (window < num_loops or recompute != "none"):
        raise ValueError("until: expected neither num_grad_loops nor recompute beside it")
    kept: list[State] = []
    loops = num_loops

    def run(state: State, first: int, last: int, one: Callable[[State, int], State]) -> tuple[State, ...]:
        nonlocal loops
        outputs = []
        for t in range(first, last):
            state = one(state, t)
            if t + 1 in keep:
                outputs.append(state)
            if until is not None and until():
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
    numbers = sorted(n for n in set(keep) if n <= loops)
    return Iterated(state, loops, dict(zip(numbers, kept, strict=True)))


def _recomputed(function: Callable[..., Any], *args: Any) -> Any:
    return checkpoint(function, *args, use_reentrant=False)
