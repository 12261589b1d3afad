"""From a function to labels: one label for each pair (multiset of cells, own cell).

The function is f: [0, 1]^(N x d) -> R^(N x d), permutation-equivariant. Cut every axis into n cells; a token is
then one of T = n^d, a token ID. What f does to a token depends on the token and on the multiset of all tokens,
so that a table with one entry for each such pair is f at the resolution of the cells. Xu & Sato (ICML 2025)
put this table on a line, whose neighbours must have similar labels if the loop is to follow them with bounded
steps. `gap=True` is that line; `gap=False` is the shorter one that radix and modulated memories can use.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Shaped

from looped.theory.circuit import ONE, Array, Form
from looped.theory.contextual_mapping import sequence_id
from looped.theory.quantization import cell_of

Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Cells:
    """n cells on each axis of N tokens in d dimensions, and the line on which contextual IDs lie."""

    dim: int
    seq: int
    cells: int
    gap: bool = True

    def __post_init__(self) -> None:
        for name, least in (("dim", 1), ("seq", 1), ("cells", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}: expected a whole number, at least {least}")

    @property
    def tokens(self) -> int:
        """T = n^d."""
        return self.cells**self.dim

    @property
    def count(self) -> int:
        """K, the number of contextual IDs: 2 n^((N+1)d) - n with gaps, n^((N+1)d) without."""
        full = self.tokens ** (self.seq + 1)
        return 2 * full - self.cells if self.gap else full

    @property
    def stride(self) -> int:
        """Distance of two neighbouring sequence IDs on the line."""
        return self.tokens * (2 if self.gap else 1)

    def token_form(self) -> Form:
        """Token ID z = sum_i beta_i n^(d-i) as a form over the registers beta_i."""
        return {f"beta{i}": self.cells ** (self.dim - 1 - i) for i in range(self.dim)}

    def own_form(self) -> Form:
        """The token's place among its sequence's IDs: z, or with gaps the ID whose last digit has base 2 n.

        A carry into a higher digit then passes at least n + 1 IDs, enough for n - 1 small moves of all tokens.
        """
        if not self.gap:
            return self.token_form()
        higher = {f"beta{i}": 2 * self.cells ** (self.dim - 1 - i) for i in range(self.dim - 1)}
        return {**higher, f"beta{self.dim - 1}": 1}

    def contextual_id(self, beta: Shaped[Array, "batch seq dim"]) -> Shaped[Array, "batch seq"]:
        """k (batch, seq) of cells beta (batch, seq, dim): where the pair (sequence, own token) lies on the line."""
        z, own = self._ids(beta, self.token_form()), self._ids(beta, self.own_form())
        return self.stride * sequence_id(z, self.tokens)[..., None] + own

    def sequences(self, chunk: int = 65536) -> Iterator[Array]:
        """All multisets of tokens as cells beta (chunk, seq, dim), tokens in descending order."""
        multisets = itertools.combinations_with_replacement(range(self.tokens - 1, -1, -1), self.seq)
        powers = self.cells ** np.arange(self.dim - 1, -1, -1)
        while some := list(itertools.islice(multisets, chunk)):
            yield np.array(some)[..., None] // powers % self.cells

    def labels(self, f: Function) -> Shaped[Array, "labels dim"]:
        """(K, dim) the values of f at the cells' centres; between two IDs that are used, interpolated linearly."""
        ids, values = [], []
        for beta in self.sequences():
            ids.append(self.contextual_id(beta).ravel())
            values.append(evaluate(f, (beta + 0.5) / self.cells).reshape(-1, self.dim))
        used, first = np.unique(np.concatenate(ids), return_index=True)
        table = np.concatenate(values)[first]
        return np.stack([np.interp(np.arange(self.count), used, column) for column in table.T], axis=1)

    def weights(self) -> Shaped[Array, " labels"]:
        """(K,) in how many ways, over all orders and tokens of all sequences of cells, each ID occurs."""
        total = np.zeros(self.count)
        for beta in self.sequences():
            tokens = self._ids(beta, self.token_form())
            orders = np.full(len(tokens), float(math.factorial(self.seq)))
            copies = np.ones(len(tokens))
            for j in range(1, self.seq):  # copies of a token are neighbours: divides by (number of copies)!
                copies = np.where(tokens[:, j] == tokens[:, j - 1], copies + 1, 1)
                orders /= copies
            np.add.at(total, self.contextual_id(beta), orders[:, None])
        return total

    def lookup(self, x: Shaped[Array, "batch seq dim"]) -> Shaped[Array, "batch seq"]:
        """k (batch, seq) of real tokens x (batch, seq, dim): quantised, then mapped. The semantics of the block."""
        return self.contextual_id(cell_of(x, self.cells))

    def _ids(self, beta: Array, weights: Form) -> Array:
        return np.asarray(beta) @ np.array([weights[f"beta{i}"] for i in range(self.dim)])

    def context_form(self) -> Form:
        """The stride times the sequence ID, as a form over acc; see `contextual_parts`."""
        return {"acc": -self.stride, ONE: self.stride * sum(self.tokens**j for j in range(1, self.seq + 1))}


def multisets(cells: Cells) -> int:
    """How many sequences f is evaluated at."""
    return math.comb(cells.tokens + cells.seq - 1, cells.seq)


def evaluate(f: Function, x: Shaped[Array, "batch seq dim"]) -> Shaped[Array, "batch seq dim"]:
    """f at points x (batch, seq, dim), checked.

    Raises:
        ValueError: for values of the wrong shape or that are not finite, or an error inside f.
    """
    try:
        raw = f(torch.from_numpy(np.ascontiguousarray(x, dtype=float)))
        value = torch.as_tensor(raw, dtype=torch.float64).detach().numpy()
    except Exception as error:  # whatever a user's function may raise
        raise ValueError(f"f: {type(error).__name__} at an input of shape {x.shape}: {error}") from None
    if value.shape != x.shape:
        raise ValueError(f"f: expected values of shape {x.shape} (batch, tokens, dim), got {value.shape}")
    if not np.isfinite(value).all():
        where = x[np.argwhere(~np.isfinite(value))[0][0]]
        raise ValueError(f"f: expected finite values, not so at {np.round(where, 6).tolist()}")
    return value


def check_function(f: Function, dim: int, seq: int, *, samples: int = 256, seed: int = 0) -> None:
    """Refuse what is no function of the theorem: shapes, finiteness, permutation equivariance, continuity.

    Raises:
        ValueError: of the wrong shape, not finite, or not permutation-equivariant, with the witness.
    Warns:
        UserWarning: where f seems to jump; the bounds then say nothing.
    """
    rng = np.random.default_rng(seed)
    x = rng.random((samples, seq, dim))
    x[: samples // 4] = rng.integers(0, 2, (samples // 4, seq, dim))
    value = evaluate(f, x)
    order = np.stack([rng.permutation(seq) for _ in range(samples)])
    permuted = evaluate(f, np.take_along_axis(x, order[..., None], 1))
    difference = np.abs(permuted - np.take_along_axis(value, order[..., None], 1)).reshape(samples, -1).max(1)
    worst = int(difference.argmax())
    if difference[worst] > 1e-9 * (1 + np.abs(value).max()):
        raise ValueError(
            f"f: expected permutation-equivariant, but permuting the tokens {np.round(x[worst], 4).tolist()} by "
            f"{order[worst].tolist()} changes an output by {difference[worst]:.3g}"
        )
    if (jump := largest_jump(f, x)) is not None:
        where, size = jump
        warnings.warn(
            f"f seems to jump by {size:.3g} near {np.round(where, 4).tolist()}: no bound holds for it", stacklevel=2
        )


def largest_jump(f: Function, x: Shaped[Array, "batch seq dim"]) -> tuple[Array, float] | None:
    """A discontinuity found by halving segments between neighbours of `x`: where, and the jump; or None.

    Each halving keeps the half on which f changes more; of a continuous f, what is left of the change vanishes.
    """
    low, high = x, np.roll(x, 1, axis=0)
    at_low, at_high = evaluate(f, low), evaluate(f, high)
    scale = np.abs(at_high - at_low).max()
    for _ in range(45):
        middle = (low + high) / 2
        at = evaluate(f, middle)
        left = (np.abs(at - at_low).max((1, 2)) >= np.abs(at_high - at).max((1, 2)))[:, None, None]
        low, at_low = np.where(left, low, middle), np.where(left, at_low, at)
        high, at_high = np.where(left, middle, high), np.where(left, at, at_high)
    size = np.abs(at_high - at_low).max((1, 2))
    worst = int(size.argmax())
    return (low[worst], float(size[worst])) if size[worst] > max(1e-3 * scale, 1e-12) else None
