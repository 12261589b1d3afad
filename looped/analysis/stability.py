"""Stability of the loop: the Jacobian of one loop, and the effect of another initial state."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from looped.analysis.states import cosine

ITERATIONS = 60


class Spectrum(NamedTuple):
    """Spectral radius and norm of the Jacobian of one loop, for each example."""

    radius: Float[Tensor, " batch"]
    """Spectral radius, the largest absolute eigenvalue. Below 1, a small disturbance vanishes after enough loops."""
    norm: Float[Tensor, " batch"]
    """Spectral norm, the largest singular value: the largest factor by which one loop magnifies a disturbance.
    The estimate is a lower bound."""


def jacobian_spectrum(
    step: Callable[[Tensor], Tensor],
    state: Float[Tensor, "batch seq d_model"],
    attention_mask: Bool[Tensor, "batch seq"],
    generator: torch.Generator,
    iterations: int = ITERATIONS,
) -> Spectrum:
    """Spectral radius and norm of the derivative of `step` at `state`, by power iteration on J and on J'J.

    The Jacobian of an example covers its attended positions. It is a square matrix of size attended * d_model, and only
    its products with vectors are computed. If the dominant eigenvalues are a complex pair, the norms of the iterates
    oscillate for ever. The radius is therefore the geometric mean of their growth over the second half of the
    iterations. Its error is proportional to 1 / iterations. The radius may still be a few percent off if the two
    largest absolute eigenvalues are close. The same holds for causal models, because their Jacobian is far from normal.

    Args:
        step: one loop, as `lambda h: loop.step(h, t)`. It maps (batch, seq, d_model) to the same shape.
        state: the state before that loop, at which the loop is linearised.
        attention_mask: True at real positions.
        generator: draws the initial vectors, on the cpu.
        iterations: number of iterations for each of the two results; at least 2.

    Returns:
        Two tensors of shape (batch,).
    """
    real = attention_mask[..., None].to(state.dtype)
    start = torch.randn(state.shape, generator=generator, dtype=state.dtype).to(state.device) * real

    def restricted(h: Tensor) -> Tensor:
        return step(h) * real

    def growth(apply: Callable[[Tensor], Tensor]) -> Float[Tensor, "iterations batch"]:
        """Growth of a vector's norm in each of `iterations` applications of a linear map."""
        v, factors = start / _norm(start), []
        for _ in range(iterations):
            v = apply(v)
            factors.append(_norm(v))
            v = v / factors[-1].clamp_min(torch.finfo(v.dtype).tiny)
        return torch.stack(factors).flatten(1)

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # the faster kernels have no second derivative
        transposed = vjp(restricted, state)[1]
        # J'u is linear in u, and the transpose of that map is J. This is 5x faster than jvp on CPUs.
        product = vjp(lambda u: transposed(u)[0], torch.zeros_like(state))[1]
        radius = growth(lambda v: product(v * real)[0])[iterations // 2 :].log().mean(0).exp()
        norm = growth(lambda v: transposed(product(v * real)[0])[0] * real)[-1].sqrt()
    return Spectrum(radius, norm)


def _norm(v: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch 1 1"]:
    return v.flatten(1).norm(dim=1)[:, None, None]


class Alignment(NamedTuple):
    """Two trajectories of the same input, compared before the first loop and after each loop."""

    distance: Float[Tensor, "states batch"]
    """|h' - h| / |h|; infinite if h is zero."""
    cosine: Float[Tensor, "states batch"]
    """Cosine between h' and h; NaN if one of them is zero."""


def alignment(
    usual: Float[Tensor, "states batch seq d_model"],
    other: Float[Tensor, "states batch seq d_model"],
    attention_mask: Bool[Tensor, "batch seq"],
) -> Alignment:
    """Compare the trajectory from another initial state (`other`) with the model's own (`usual`), both from `states`.

    If the initial states are last states of other inputs, the last cosine is the asymptotic alignment of Anil et al.
    (Path Independent Equilibrium Models Can Better Exploit Test-Time Computation, NeurIPS 2022).
    """
    a, b = ((s * attention_mask[..., None]).flatten(2) for s in (usual, other))
    return Alignment((b - a).norm(dim=-1) / a.norm(dim=-1), cosine(a, b))


def gaussian_start(
    last: Float[Tensor, "batch seq d_model"], generator: torch.Generator
) -> Float[Tensor, "batch seq d_model"]:
    """A Gaussian state with the root mean square (over the batch) of the states after the last loop."""
    noise = torch.randn(last.shape, generator=generator, dtype=last.dtype).to(last.device)
    return noise * last.square().mean().sqrt()


def disturbed_start(
    start: Float[Tensor, "batch seq d_model"], size: float, generator: torch.Generator
) -> Float[Tensor, "batch seq d_model"]:
    """`start` plus noise in a random direction; its norm at each position is `size` times the norm of `start` there."""
    noise = torch.randn(start.shape, generator=generator, dtype=start.dtype).to(start.device)
    return start + size * noise / noise.norm(dim=-1, keepdim=True) * start.norm(dim=-1, keepdim=True)
