"""One table of cases that feeds all levels of the construction, and the inputs that must be refused."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from looped.theory import continuity

SIZES = [(1, 2, 2), (1, 2, 3), (1, 2, 4), (1, 3, 2), (2, 2, 2)]
"""(d, N, n)"""
KINDS = ["plain", "tuned", "radix", "modulated"]


def waves(x: torch.Tensor) -> torch.Tensor:
    """A smooth function of the token and of the mean."""
    return 0.5 * torch.sin(2 * math.pi * x) + 0.5 * torch.cos(math.pi * x.mean(-2, keepdim=True))


def all_cells(d: int, seq: int, n: int) -> np.ndarray:
    """Every sequence of cells, (n^(d seq), seq, d)."""
    return np.array(list(itertools.product(range(n), repeat=seq * d))).reshape(-1, seq, d)


def centres(cells: np.ndarray, n: int) -> np.ndarray:
    """Exact centres of cells, as fractions."""
    return (2 * cells.astype(object) + 1) * Fraction(1, 2 * n)


def shorten_search(monkeypatch: pytest.MonkeyPatch, samples: int, steps: int) -> Callable[..., continuity.Modulus]:
    """The search for moduli, with few pairs and steps from now on, wherever it is called."""
    search = continuity.search

    def short(*arguments: Any, **options: Any) -> continuity.Modulus:
        return search(*arguments, **{**options, "samples": samples, "steps": steps})

    monkeypatch.setattr(continuity, "search", short)
    return short


NOT_SUPPORTED = {
    "order": (
        lambda x: x * torch.arange(1, x.shape[-2] + 1)[:, None],
        "permutation-equivariant function, but permuting",
    ),
    "infinite": (lambda x: 1 / (x - x), "finite values"),
    "shape": (lambda x: x.sum(-1), "shape"),
    "error": (lambda x: x @ torch.ones(7), "RuntimeError"),
}
