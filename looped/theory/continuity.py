"""Moduli of continuity of sequence-to-sequence functions: how much f can change when its input changes by delta.

These are the three moduli of Xu & Sato (ICML 2025), section 3, for f on [0, 1]^(N x d). Input changes are measured
in the Frobenius norm, output changes in the p-norm:

- sequence: the whole input changes by at most delta; the change of the whole output is measured;
- contextual: the other tokens change by at most delta together; the change of this token's output is measured;
- token: only this token changes, by at most delta; the change of this token's output is measured.

A supremum over a continuum cannot be computed. Every `Modulus` is therefore a bound that names its side.
"""

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from looped.strict import at_least

Function = Callable[[Tensor], Tensor]
Change = Callable[[Tensor, Tensor], Tensor]
Project = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Kind = Literal["sequence", "contextual", "token"]
KINDS: tuple[Kind, ...] = ("sequence", "contextual", "token")
Tokens = Float[Tensor, "batch seq dim"]
ROUNDS = 20
"""The most repetitions of `search`."""
MOST_COORDINATES = 2**14
"""The most coordinates N d for `search`. Each of some tensors then takes half a gigabyte."""


class Modulus(NamedTuple):
    """A bound on a modulus, its side, and the pair of inputs (seq, dim) that attains it, if known."""

    value: float
    side: Literal["lower bound", "exact on the grid", "exact on the samples", "upper bound"]
    pair: tuple[Tensor, Tensor] | None = None


def search(
    f: Function,
    kind: Kind,
    delta: float,
    *,
    seq: int,
    dim: int,
    p: float = 2.0,
    token: int = 0,
    samples: int = 4096,
    steps: int = 200,
    seed: int = 0,
) -> Modulus:
    """A lower bound by search: random pairs, then gradient ascent and random moves from the best pairs.

    The search is repeated with other random pairs until a repetition raises the bound by less than 0.1%, at most
    `ROUNDS` times. Pairs at a smaller distance than delta are searched too, because a function need not grow with it.

    Args:
        f: (batch, seq, dim) to (batch, seq, any), float64. Without a gradient, only random moves are made.
        kind: sequence, contextual or token.
        delta: the largest input change.
        seq: N.
        dim: d.
        p: the norm of output changes.
        token: the token of the contextual and token moduli. If f is permutation-equivariant, all are equivalent.
        samples: number of random pairs.
        steps: number of ascent steps, and of random moves.
        seed: of the search.

    Raises:
        ValueError: kind, delta or p is out of range, there are too many coordinates, or values of f are not finite.
    """
    _check(kind, delta, p)
    if seq * dim > MOST_COORDINATES:
        raise ValueError(f"N={seq}, d={dim}: expected at most {MOST_COORDINATES:,} coordinates, not {seq * dim:,}")
    generator = torch.Generator().manual_seed(seed)
    free = _free(kind, seq, dim, token)
    delta = min(delta, float(free.sum()) ** 0.5)  # the cube has no larger distance

    def change(x: Tensor, v: Tensor) -> Tensor:
        return _size(f(x + v) - f(x), kind, token, p)

    def project(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest allowed pair: only free coordinates change, by at most delta, and both ends are in the cube."""
        x, v = x.clamp(0, 1), v * free
        v = v * (delta / v.flatten(1).norm(dim=1).clamp_min(1e-300)).clamp(max=1)[:, None, None]
        return x, (x + v).clamp(0, 1) - x

    def climb() -> Modulus:
        x = torch.rand(samples, seq, dim, generator=generator, dtype=torch.float64)
        corners = torch.rand(x.shape, generator=generator, dtype=torch.float64) < 0.5
        corners[samples // 4 :] = False
        length = 2 * torch.rand(samples, 1, 1, generator=generator, dtype=torch.float64)  # half of them delta, or less
        v = _unit(_directions(x, generator) * free) * delta * length.clamp(max=1)
        x, v = project(x.round().where(corners, x), v)
        with torch.no_grad():
            best = change(x, v).topk(min(64, samples)).indices
        x, v = _ascend(change, project, x[best], v[best], delta, steps)
        x, v = _wander(change, project, x, v, delta, steps, generator)
        with torch.no_grad():
            value, i = change(x, v).max(0)
        if not value.isfinite():
            raise ValueError(f"f: expected finite values, got others near {x[i].tolist()}")
        return Modulus(float(value), "lower bound", (x[i], (x + v)[i]))

    found = climb()
    for _ in range(ROUNDS - 1):
        last, found = found, max(found, climb(), key=lambda modulus: modulus.value)
        if not found.value > last.value * 1.001:
            break
    return found


def on_grid(
    f: Function, kind: Kind, delta: float, *, seq: int, dim: int, grid: int, p: float = 2.0, token: int = 0
) -> Modulus:
    """The exact modulus among inputs whose coordinates are multiples of 1/grid: a lower bound of the true modulus.

    Raises:
        ValueError: the grid has more than 2^24 points, kind, delta, p or grid is out of range, or values of f are not
            finite.
    """
    _check(kind, delta, p)
    at_least(1, grid=grid)
    axes = seq * dim
    if (grid + 1) ** axes > 2**24:
        raise ValueError(f"grid={grid}: expected at most 2^24 points, not {grid + 1}^{axes}")
    ticks = torch.arange(grid + 1, dtype=torch.float64) / grid
    points = torch.cartesian_prod(*[ticks] * axes).reshape(-1, seq, dim)
    with torch.no_grad():
        y = torch.cat([f(part) for part in points.split(2**16)])
    if not y.isfinite().all():
        raise ValueError(f"f: expected finite values on the grid, got others in {(~y.isfinite()).sum()} places")
    values = y.reshape(*[grid + 1] * axes, seq, -1).numpy()
    values = values if kind == "sequence" else values[..., token : token + 1, :]
    reach = int(min(delta, 1) * grid + 1e-9)
    free = _free(kind, seq, dim, token).flatten().tolist()
    best = 0.0
    for shift in itertools.product(*[range(-reach, reach + 1) if may else (0,) for may in free]):
        length = sum(s * s for s in shift) ** 0.5
        if shift > (0,) * axes and length <= delta * grid * (1 + 1e-12):
            here = tuple(slice(max(s, 0), grid + 1 + min(s, 0)) for s in shift)
            there = tuple(slice(max(-s, 0), grid + 1 + min(-s, 0)) for s in shift)
            change = (values[here] - values[there]).reshape(-1, np.prod(values.shape[-2:]))
            best = max(best, float(np.linalg.norm(change, ord=p, axis=1).max(initial=0)))
    return Modulus(best, "exact on the grid")


def between_grid(lower: Callable[[float], float], delta: float, lipschitz: float, *, axes: int, grid: int) -> Modulus:
    """An upper bound from the modulus on a grid and a Lipschitz constant L of f.

    Rounding an input to the grid moves it by at most m = sqrt(axes) / (2 grid). Both inputs of a pair are rounded, so
    omega(delta) <= omega_grid(delta + 2 m) + 2 L m.

    Args:
        lower: omega_grid, the modulus on the grid as a function of delta.
        delta: the largest input change.
        lipschitz: L.
        axes: N d.
        grid: the grid's coordinates are multiples of 1/grid.
    """
    move = axes**0.5 / (2 * grid)
    return Modulus(lower(delta + 2 * move) + 2 * lipschitz * move, "upper bound")


def of_samples(
    x: Float[Tensor, "samples seq dim"],
    y: Float[Tensor, "samples seq out"],
    kind: Kind,
    delta: float,
    *,
    p: float = 2.0,
    token: int = 0,
) -> Modulus:
    """The exact modulus among given inputs x with outputs y, for functions known only by examples (such as a task).

    Raises:
        ValueError: kind, delta or p is out of range.
    """
    _check(kind, delta, p)
    free = _free(kind, x.shape[1], x.shape[2], token)
    best = Modulus(0.0, "exact on the samples")
    for i in range(len(x) - 1):
        moved = x[i + 1 :] - x[i]
        near = (moved.flatten(1).norm(dim=1) <= delta * (1 + 1e-12)) & (moved * (1 - free) == 0).flatten(1).all(1)
        change = _size(y[i + 1 :] - y[i], kind, token, p).where(near, torch.zeros(()))
        if change.max() > best.value:
            best = Modulus(float(change.max()), best.side, (x[i], x[i + 1 + int(change.argmax())]))
    return best


def lipschitz_upper(network: nn.Sequential) -> float:
    """An upper bound of a token-wise network's Lipschitz constant: the product of its layers' spectral norms.

    Layers are linear or activations of slope at most 1 (ReLU, tanh, identity).

    Raises:
        ValueError: the network has any other layer.
    """
    product = 1.0
    for layer in network:
        if isinstance(layer, nn.Linear):
            product *= float(torch.linalg.matrix_norm(layer.weight.detach(), 2))
        elif not isinstance(layer, nn.ReLU | nn.Tanh | nn.Identity):
            raise ValueError(f"layer {type(layer).__name__}: expected Linear, ReLU, Tanh or Identity")
    return product


def local_lipschitz(f: Function, kind: Kind, x: Tokens, *, token: int = 0) -> Modulus:
    """A lower bound of the Lipschitz constant: the largest spectral norm of a block of the Jacobian at inputs `x`.

    The block holds the outputs and inputs of the modulus `kind`. sequence: all outputs, all inputs. contextual: the
    token's outputs, the other tokens' inputs. token: the token's outputs and inputs.

    Args:
        f: (batch, seq, dim) to (batch, seq, any).
        kind: sequence, contextual or token.
        x: (batch, seq, dim).
        token: the token of the contextual and token blocks.
    """
    free = _free(kind, x.shape[1], x.shape[2], token).flatten().bool()
    norms = []
    for point in x:
        jacobian = torch.autograd.functional.jacobian(lambda z: f(z[None])[0], point)
        assert isinstance(jacobian, Tensor)
        block = jacobian if kind == "sequence" else jacobian[token : token + 1]
        norms.append(torch.linalg.matrix_norm(block.reshape(-1, free.numel())[:, free], 2))
    return Modulus(float(torch.stack(norms).max()), "lower bound")


def _check(kind: str, delta: float, p: float) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected one of {KINDS}")
    if not 0 < delta < float("inf"):
        raise ValueError(f"delta={delta}: expected a positive number")
    if not (1 <= p <= 32 or p == float("inf")):  # a high power of a small change is 0 in float64
        raise ValueError(f"p={p}: expected 1 to 32, or inf")


def _free(kind: Kind, seq: int, dim: int, token: int) -> Tensor:
    """(seq, dim), 1 for coordinates of the input that may change, else 0."""
    this = torch.zeros(seq, dim, dtype=torch.float64)
    this[token] = 1
    return {"sequence": torch.ones_like(this), "contextual": 1 - this, "token": this}[kind]


def _directions(x: Tensor, generator: torch.Generator) -> Tensor:
    """Sparse, sign and normal directions. Many functions change most along axes and diagonals."""
    normal = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    third = len(x) // 3
    few = torch.rand(x[:third].shape, generator=generator, dtype=x.dtype) < 0.3
    return torch.cat([normal[:third] * (few + 1e-9), normal[third : 2 * third].sign(), normal[2 * third :]])


def _size(change: Tensor, kind: Kind, token: int, p: float) -> Tensor:
    return torch.linalg.vector_norm((change if kind == "sequence" else change[:, token]).flatten(1), ord=p, dim=1)


def _ascend(change: Change, project: Project, x: Tensor, v: Tensor, delta: float, steps: int) -> tuple[Tensor, Tensor]:
    """Shrinking, normalised gradient steps on both ends. Each pair keeps its best position."""
    with torch.no_grad():
        best = change(x, v)
    kept_x, kept_v = x, v
    for step in range(steps):
        x, v = x.detach().requires_grad_(), v.detach().requires_grad_()
        size = change(x, v)
        if not size.requires_grad:
            break
        dx, dv = torch.autograd.grad(size.sum(), (x, v), allow_unused=True, materialize_grads=True)
        rate = 0.1 * (1 - step / steps) ** 2
        with torch.no_grad():
            x, v = project(x + rate * _unit(dx), v + 5 * rate * delta * _unit(dv))
            best, kept_x, kept_v = _better(change(x, v), x, v, best, kept_x, kept_v)
    return kept_x.detach(), kept_v.detach()


@torch.no_grad()
def _wander(
    change: Change, project: Project, x: Tensor, v: Tensor, delta: float, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random moves, kept if they increase the change. Their size falls from 0.1 to 1e-5."""
    best = change(x, v)
    for step in range(steps):
        size = 10 ** (-1 - 4 * step / steps)
        noise = size * torch.randn(2, *x.shape, generator=generator, dtype=x.dtype)
        moved_x, moved_v = project(x + noise[0], v + 5 * delta * noise[1])
        best, x, v = _better(change(moved_x, moved_v), moved_x, moved_v, best, x, v)
    return x, v


def _better(now: Tensor, x: Tensor, v: Tensor, best: Tensor, kept_x: Tensor, kept_v: Tensor) -> tuple[Tensor, ...]:
    """The better of the new and the kept position, for each pair."""
    wins = (now > best)[:, None, None]
    return best.maximum(now), x.where(wins, kept_x), v.where(wins, kept_v)


def _unit(gradient: Tensor) -> Tensor:
    return gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-300)[:, None, None]
