"""Gradients at the fixed point of a loop. Their memory does not grow with the number of loops.

The loop is run without gradient. If its state z no longer changes, z = f(z), the implicit function theorem gives the
gradient of everything that f contains: dL/dw = u df/dw with u = (I - J')^-1 g, where J = df/dz and g = dL/dz (Bai,
Kolter & Koltun, Deep Equilibrium Models, 2019). u is the sum of the series g + J'g + (J')^2 g + ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from looped.models.iteration import iterate

TERMS = 100
"""Terms after which the exact gradient counts as not converged."""
TOLERANCE = 1e-4
"""Size of the last term, relative to the sum, at which the exact gradient counts as converged."""
LARGEST_TERM = 1e3
"""Size of a term, relative to the first one, at which the sum counts as divergent."""


@dataclass(frozen=True)
class FixedPointGradient:
    """A way to compute the gradient at the last state of a loop.

    implicit: the exact one, if the state is a fixed point. If its series does not converge, because J has an eigenvalue
    of about 1 or more, the one-step gradient takes its place, and `FixedPoint.converged` says so. neumann: the first
    `terms` terms u = sum (J')^i g; one term is the one-step gradient (Fung et al., 2022). phantom: through `terms`
    damped loops z <- d f(z) + (1 - d) z from the last state (Geng et al., 2021). phantom with d = 1 is what
    num_grad_loops computes.
    """

    kind: Literal["implicit", "neumann", "phantom"]
    terms: int = TERMS
    damping: float = 1.0


class FixedPoint:
    """Facts of one loop and of its gradient. The last two are known after the backward pass."""

    def __init__(self, residual: Tensor) -> None:
        self.residual = residual
        """Relative change of the state in the last loop, a scalar."""
        self.terms = 0
        """Terms of u that were computed."""
        self.converged = True
        """Whether u converged; True for a gradient with a fixed number of terms."""

    def values(self) -> Tensor:
        """The residual, and 1 if u did not converge, else 0."""
        return torch.stack([self.residual, self.residual.new_tensor(float(not self.converged))])


def fixed_point(
    step: Callable[[Tensor, int], Tensor], state: Tensor, num_loops: int, gradient: FixedPointGradient
) -> tuple[Tensor, FixedPoint]:
    """Apply `step(state, t)` for t = 0 .. num_loops-1 without gradient, then give the result a gradient.

    A weight acts on the result only through `step`, not through the state before the first loop.

    Args:
        step: one loop, which must not depend on t.
        state: a tensor of any shape.
        num_loops: at least 1; one more application carries the gradient.

    Returns:
        The state after num_loops loops and one more (phantom: `terms` more), and the facts.
    """
    with torch.no_grad():
        found = iterate(step, state, num_loops, keep=[num_loops - 1] if num_loops > 1 else ())
        before, state = found.kept.get(num_loops - 1, state), found.state
        residual = (state - before).norm() / state.norm().clamp(min=torch.finfo(state.dtype).tiny)
    torch.clear_autocast_cache()  # weights that were cast without gradient would get none
    facts = FixedPoint(residual)
    if not torch.is_grad_enabled():
        return step(state, num_loops - 1), facts
    if gradient.kind == "phantom":
        facts.terms = gradient.terms
        damping, last = gradient.damping, num_loops - 1
        damped = iterate(lambda z, _: damping * step(z, last) + (1 - damping) * z, state, gradient.terms)
        return damped.state, facts
    result = step(state, num_loops - 1)
    facts.terms = 1
    if result.requires_grad and gradient.terms > 1:
        start = state.detach().requires_grad_()
        again = step(start, num_loops - 1)  # a second graph, because the first one belongs to the backward pass
        result.register_hook(lambda g: _solve(again, start, g, gradient, facts))
    return result, facts


def _solve(again: Tensor, start: Tensor, g: Tensor, gradient: FixedPointGradient, facts: FixedPoint) -> Tensor:
    """u = g + J'g + (J')^2 g + ..., for J = d again / d start; only g if the exact sum does not converge."""
    exact, first = gradient.kind == "implicit", g.norm()
    u, term = g, g
    while facts.terms < gradient.terms:
        (term,) = torch.autograd.grad(again, start, term, retain_graph=True)
        u, facts.terms = u + term, facts.terms + 1
        if type(term) is FakeTensor:  # it has no values that could converge
            return u
        if exact and (term.norm() <= TOLERANCE * u.norm() or not term.norm() < LARGEST_TERM * first):
            break
    facts.converged = not exact or bool(term.norm() <= TOLERANCE * u.norm())
    return u if facts.converged else g
