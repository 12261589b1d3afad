"""From a function to labels: one label for each pair (multiset of cells, cell of the token).

The function f: [0, 1]^(N x d) -> R^(N x d) is permutation-equivariant. Every axis is cut into n cells, so a token has
one of T = n^d token IDs. The output for a token depends only on that token and on the multiset of all tokens. A
table with one entry for each such pair is therefore f at the resolution of the cells. Xu & Sato (ICML 2025) number
the entries by contextual IDs. A loop that follows the labels in bounded steps needs similar labels at neighbouring
IDs. `gap=True` ensures this by gaps between IDs. Memories that do not follow the labels (radix, modulated) use
`gap=False`.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Shaped

from looped.theory.arithmetic import Array
from looped.theory.circuit import ONE, Form
from looped.theory.contextual_mapping import sequence_id
from looped.theory.quantization import cell_of

Function = Callable[[torch.Tensor], torch.Tensor]
LARGEST = 1e100  # the errors of larger values are not finite in float64


@dataclass(frozen=True)
class Cells:
    """n cells on each axis for sequences of N tokens in d dimensions, and the numbering of contextual IDs.

    Raises:
        ValueError: d or N is below 1, or n below 2, or there are more than 2^200 contextual IDs.
    """

    d: int
    seq: int
    """N."""
    n: int
    gap: bool = True
    """Whether IDs have gaps, which make the labels of neighbouring IDs similar."""

    def __post_init__(self) -> None:
        for name, value, least in (("d", self.d, 1), ("N", self.seq, 1), ("n", self.n, 2)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}: expected a whole number, at least {least}")
        if (self.seq + 1) * self.d * math.log2(self.n) > 200:  # the exact number would take long to compute
            raise ValueError(f"d={self.d}, N={self.seq}, n={self.n}: expected n^((N+1)d) to be at most 2^200")

    @property
    def tokens(self) -> int:
        """T = n^d, the number of token IDs."""
        return self.n**self.d

    @property
    def count(self) -> int:
        """K, the number of contextual IDs: 2 n^((N+1)d) - n with gaps, n^((N+1)d) without."""
        full = self.tokens ** (self.seq + 1)
        return 2 * full - self.n if self.gap else full

    @property
    def stride(self) -> int:
        """How far the contextual IDs of neighbouring sequence IDs lie apart: 2 T with gaps, T without."""
        return self.tokens * (2 if self.gap else 1)

    def token_form(self) -> Form:
        """The token ID z = sum_i beta_i n^(d-i), as a form over the registers beta_i."""
        return {f"beta{i}": self.n ** (self.d - 1 - i) for i in range(self.d)}

    def offset_form(self) -> Form:
        """A token's offset among the contextual IDs of its sequence, as a form over the registers beta_i.

        Without gaps this is z. With gaps the last digit has base 2 n, so a carry into a higher digit skips at least
        n + 1 IDs, enough for n - 1 joint moves of all tokens by one cell.
        """
        if not self.gap:
            return self.token_form()
        higher = {f"beta{i}": 2 * self.n ** (self.d - 1 - i) for i in range(self.d - 1)}
        return {**higher, f"beta{self.d - 1}": 1}

    def contextual_id(self, beta: Shaped[Array, "batch seq dim"]) -> Shaped[Array, "batch seq"]:
        """The contextual IDs k (batch, seq) of cells beta (batch, seq, d)."""
        z, offset = self._ids(beta, self.token_form()), self._ids(beta, self.offset_form())
        return self.stride * sequence_id(z, self.tokens)[..., None] + offset

    def sequences(self, chunk: int = 65536) -> Iterator[Array]:
        """All multisets of tokens as cells beta (chunk, seq, d), with tokens in descending order."""
        multisets = itertools.combinations_with_replacement(range(self.tokens - 1, -1, -1), self.seq)
        powers = self.n ** np.arange(self.d - 1, -1, -1)
        while some := list(itertools.islice(multisets, chunk)):
            yield np.array(some)[..., None] // powers % self.n

    def labels(self, f: Function) -> Shaped[Array, "labels dim"]:
        """(K, d) f at the centres of the cells. IDs in gaps get linearly interpolated labels."""
        ids, values = [], []
        for beta in self.sequences():
            ids.append(self.contextual_id(beta).ravel())
            values.append(evaluate(f, (beta + 0.5) / self.n).reshape(-1, self.d))
        used, first = np.unique(np.concatenate(ids), return_index=True)
        table = np.concatenate(values)[first]
        return np.stack([np.interp(np.arange(self.count), used, column) for column in table.T], axis=1)

    def weights(self) -> Shaped[Array, " labels"]:
        """(K,) how often each ID occurs among all tokens of all n^(N d) sequences of cells."""
        total = np.zeros(self.count)
        for beta in self.sequences():
            tokens = self._ids(beta, self.token_form())
            orders = np.full(len(tokens), float(math.factorial(self.seq)))
            copies = np.ones(len(tokens))
            for j in range(1, self.seq):  # copies of a token are adjacent: divides by (number of copies)!
                copies = np.where(tokens[:, j] == tokens[:, j - 1], copies + 1, 1)
                orders /= copies
            np.add.at(total, self.contextual_id(beta), orders[:, None])
        return total

    def lookup(self, x: Shaped[Array, "batch seq dim"]) -> Shaped[Array, "batch seq"]:
        """The contextual IDs k (batch, seq) of real tokens x (batch, seq, d), which are quantised first."""
        return self.contextual_id(cell_of(x, self.n))

    def _ids(self, beta: Array, weights: Form) -> Array:
        return np.asarray(beta) @ np.array([weights[f"beta{i}"] for i in range(self.d)])

    def context_form(self) -> Form:
        """The stride times the sequence ID, as a form over the register acc; see `contextual_parts`."""
        return {"acc": -self.stride, ONE: self.stride * sum(self.tokens**j for j in range(1, self.seq + 1))}


def multisets(cells: Cells) -> int:
    """The number of multisets of tokens, at which f is evaluated."""
    return math.comb(cells.tokens + cells.seq - 1, cells.seq)


def evaluate(f: Function, x: Shaped[Array, "batch seq dim"]) -> Shaped[Array, "batch seq dim"]:
    """f at inputs x (batch, seq, d), with checks of the result.

    Raises:
        ValueError: f raises an error, or its values have the wrong shape or are not finite.
    """
    try:
        raw = torch.as_tensor(f(torch.tensor(x, dtype=torch.float64)))
        if raw.is_complex():
            raise TypeError("complex values")
        value = raw.double().detach().numpy()
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        raise ValueError(f"f: {type(error).__name__} at an input of shape {x.shape}: {error}") from None
    if value.shape != x.shape:
        raise ValueError(f"f: expected values of shape {x.shape} (batch, N, d), got {value.shape}")
    if not np.isfinite(value).all():
        position = x[np.argwhere(~np.isfinite(value))[0][0]]
        raise ValueError(f"f: expected finite values, got others at {np.round(position, 6).tolist()}")
    return value


def check_function(f: Function, dim: int, seq: int, *, samples: int = 256, seed: int = 0) -> None:
    """Check on samples that f satisfies the theorem's assumptions.

    Args:
        f: (batch, seq, dim) to the same shape, on [0, 1].
        dim: d.
        seq: N.
        samples: number of random inputs, some of them corners of the cube.
        seed: of the inputs.

    Raises:
        ValueError: values have the wrong shape, are not finite, above 1e100, or are not permutation-equivariant; names
            the input.
    Warns:
        UserWarning: f seems discontinuous, so no bound holds.
    """
    rng = np.random.default_rng(seed)
    x = rng.random((samples, seq, dim))
    x[: samples // 4] = rng.integers(0, 2, (samples // 4, seq, dim))
    value = evaluate(f, x)
    if (largest := np.abs(value).max()) > LARGEST:
        raise ValueError(f"f: expected values up to {LARGEST:g}, got {largest:g}")
    order = np.stack([rng.permutation(seq) for _ in range(samples)])
    permuted = evaluate(f, np.take_along_axis(x, order[..., None], 1))
    difference = np.abs(permuted - np.take_along_axis(value, order[..., None], 1)).reshape(samples, -1).max(1)
    worst = int(difference.argmax())
    if difference[worst] > 1e-9 * (1 + np.abs(value).max()):
        raise ValueError(
            f"f: expected a permutation-equivariant function, but permuting the tokens "
            f"{np.round(x[worst], 4).tolist()} by {order[worst].tolist()} changes an output by {difference[worst]:.3g}"
        )
    if (jump := largest_jump(f, x)) is not None:
        where, size = jump
        warnings.warn(
            f"f seems to jump by {size:.3g} near {np.round(where, 4).tolist()}: no bound holds for it", stacklevel=2
        )


def largest_jump(f: Function, x: Shaped[Array, "batch seq dim"]) -> tuple[Array, float] | None:
    """Search for a discontinuity by halving the segments between successive inputs of `x` (batch, seq, d).

    Each halving keeps the half on which f changes more. If f is continuous, the remaining change tends to zero.

    Returns:
        The input (seq, d) at the largest jump and the size of the jump, or None.
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
