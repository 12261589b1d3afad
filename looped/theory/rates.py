"""How fast the error falls with the number of loops: measured, and bounded by Theorem 3.6 and by our construction.

Xu & Sato (ICML 2025), Theorem 3.6. Errors are L^p errors over uniform inputs: (E sum_{n,i} |out - f|^p)^(1/p).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from looped.models import LoopedTransformer
from looped.tasks import Task
from looped.theory import continuity
from looped.theory.cells import Cells, Function, evaluate
from looped.theory.circuit import Array
from looped.theory.construction import cells_for, construct, loops_of, memorised
from looped.theory.functions import plateaus

Row = dict[str, Any]


class Moduli(NamedTuple):
    """The three moduli at the distances that one cell size needs; lower bounds by search."""

    token: float
    """omega_tok(delta sqrt(d))"""
    contextual: float
    """omega_cont(delta sqrt(N d))"""
    contextual_others: float
    """omega_cont(delta sqrt((N - 1) d)): all that the other tokens can do"""
    sequence: float
    """omega_f(delta sqrt(N d))"""
    half_cell: float
    """omega_f(delta sqrt(N d) / 2)"""


def moduli(f: Function, cells: Cells, *, p: float = 2.0, steps: int = 120) -> Moduli:
    """The moduli that the bounds need for these cells, delta = 1/n."""
    d, seq, delta = cells.dim, cells.seq, 1 / cells.cells

    def found(kind: continuity.Kind, distance: float) -> float:
        if distance == 0:
            return 0.0
        return continuity.search(f, kind, distance, seq=seq, dim=d, p=p, steps=steps, samples=2048).value

    whole = delta * (seq * d) ** 0.5
    return Moduli(
        found("token", delta * d**0.5),
        found("contextual", whole if seq > 1 else 0.0),
        found("contextual", delta * ((seq - 1) * d) ** 0.5),
        found("sequence", whole),
        found("sequence", whole / 2),
    )


def delta_of(loops: int, cells: Cells) -> float:
    """The cell size that Theorem 3.6 allots to r loops: ((r - N) / 2)^(-1 / ((N + 1) d + 1))."""
    return ((loops - cells.seq) / 2) ** (-1 / ((cells.seq + 1) * cells.dim + 1))


def theorem_bound(at: Moduli, cells: Cells, *, p: float = 2.0, factor_on_sequence: bool = False) -> float:
    """The terms of Theorem 3.6 that hold the moduli, for delta = 1/n; its O(.) terms, without constants, are left out.

    Statements of the theorem differ in whether the factor (N d)^(1/p) also stands before omega_f: choose by
    `factor_on_sequence`. With omega_f in the norm of the whole matrix it need not.
    """
    factor = (cells.seq * cells.dim) ** (1 / p)
    return factor * (at.token + at.contextual) + (factor if factor_on_sequence else 1) * at.sequence


def our_bound(
    at: Moduli, cells: Cells, *, spread: float, eps: float | None = None, slope: int = 2**20, p: float = 2.0
) -> float:
    """(N d)^(1/p) eps / 2 + omega_f(delta sqrt(N d) / 2) + spread * (N d)^(1/p) * (measure of the ramps)^(1/p).

    eps is the largest jump of the labels, or None, at most omega_tok + omega_cont (the adjacency lemma); a label is
    met within eps / 2; a point is half a cell from its cell's centre; on the ramps, of measure at most
    N d (n - 1) / (n M), the output is still one of the labels' range, `spread`. No term for duplicate tokens.
    """
    n, axes = cells.cells, cells.seq * cells.dim
    ramps = (axes * (n - 1) / (n * slope)) ** (1 / p)
    eps = at.token + at.contextual_others if eps is None else eps
    return axes ** (1 / p) * (eps / 2 + spread * ramps) + at.half_cell


def lp_error(out: Shaped[Array, "batch seq dim"], wanted: Shaped[Array, "batch seq dim"], p: float = 2.0) -> float:
    """(E sum_{n,i} |out - wanted|^p)^(1/p) over a batch (batch, seq, dim)."""
    return float((np.abs(out - wanted) ** p).sum((1, 2)).mean() ** (1 / p))


def measure(
    f: Function, cells: Cells, *, kinds: Sequence[str] = ("plain", "tuned", "radix", "modulated"), p: float = 2.0,
    samples: int = 100_000, radix_bits: int = 6, seed: int = 0, bounds: bool = True,
) -> list[Row]:  # fmt: skip
    """One row for each kind: loops, measured error, both bounds, and the adjacency lemma's two sides.

    The error is that of the construction's semantics, which the real loop is tested to equal.
    """
    x = np.random.default_rng(seed).random((samples, cells.seq, cells.dim))
    wanted = evaluate(f, x)
    at = moduli(f, cells, p=p) if bounds else None
    rows = []
    for kind in kinds:
        line = cells_for(cells.dim, cells.seq, cells.cells, kind)
        labels = line.labels(f)
        answers = labels if kind == "modulated" else memorised(line, labels, kind, radix_bits).values
        row: Row = {"cells": cells.cells, "kind": kind, "loops": loops_of(line, kind, radix_bits)}
        row["error"] = lp_error(answers[line.lookup(x)], wanted, p)
        if line.gap:
            row["eps"] = float(np.abs(np.diff(labels, axis=0)).max())
        if at is not None:
            row |= {"moduli": at._asdict(), "theorem": theorem_bound(at, cells, p=p)}
            row["theorem_factor_on_all"] = theorem_bound(at, cells, p=p, factor_on_sequence=True)
            row["bound_by_moduli"] = our_bound(at, cells, spread=float(np.ptp(labels)), p=p)
            if line.gap:
                row["bound"] = our_bound(at, cells, spread=float(np.ptp(labels)), eps=row["eps"], p=p)
                row["adjacency"] = row["eps"] / max(at.token + at.contextual_others, 1e-300)
        rows.append(row)
    return rows


def slope(rows: Sequence[Row], kind: str = "plain", last: int = 3) -> float:
    """The slope of log error against log loops, fitted to the last sizes; -1 / ((N + 1) d) is what smooth f tend to."""
    points = [(np.log(row["loops"]), np.log(row["error"])) for row in rows if row["kind"] == kind][-last:]
    if len(points) < 2:
        raise ValueError(f"rows of kind {kind!r}: expected at least two to fit a slope, got {len(points)}")
    loops, errors = np.array(points).T
    return float(np.polyfit(loops, errors, 1)[0])


def roughness(
    values: Sequence[float] = (0.0, 0.25, 0.5, 1.0), *, cells: int = 8, samples: int = 1000, seed: int = 0
) -> list[Row]:
    """Where plain looping stalls and modulation and radix do not: functions of growing jumps, through the real loop.

    Section 7 of docs/theory.md: two tokens, `plateaus` on the construction's own cells, so that all error but
    that of the memory lies on narrow ramps.
    """
    x = np.random.default_rng(seed).random((samples, 2, 1))
    rows = []
    for value in values:
        f = plateaus(value, cells=cells)
        wanted = evaluate(f, x)
        at = moduli(f, Cells(1, 2, cells))
        row: Row = {"roughness": value, "token": at.token, "contextual": at.contextual_others}
        for kind in ("plain", "tuned", "radix", "modulated"):
            built = construct(f, cells_for(1, 2, cells, kind), kind)
            row[kind] = lp_error(built(x), wanted)
            if kind == "plain":
                row["eps"] = float(built.program.last[0]["a0"])
        rows.append(row)
    return rows


def function_of(model: LoopedTransformer, num_loops: int | None = None) -> Callable[[Tensor], Tensor]:
    """What a trained model computes, as a function of real vectors (batch, seq, dim), for its moduli of continuity.

    A model of vectors is taken as it is. One of tokens is extended to mixtures of tokens: a position holds
    weights of the vocabulary, one-hot for a token, and the embedding is the weighted mean.
    """
    config = model.config
    if config.inputs == "vectors":
        relaxed = model
    else:
        vectors = {"inputs": "vectors", "input_dim": config.vocab_size, "vocab_size": None, "tie_embeddings": False}
        relaxed = LoopedTransformer(dataclasses.replace(config, **vectors)).double()
        weights = dict(model.state_dict())
        weights["embedding.weight"] = weights["embedding.weight"].T
        if config.bias:
            weights["embedding.bias"] = torch.zeros(config.d_model)
        relaxed.load_state_dict(weights)
    relaxed = relaxed.double().requires_grad_(False)
    return lambda x: relaxed(x, num_loops=num_loops).logits


def task_samples(
    task: Task, size: int, *, seed: int = 0
) -> tuple[Float[Tensor, "size seq dim"], Float[Tensor, "size seq 1"]]:
    """A task's target function on sampled problems, for `continuity.of_samples`.

    Returns one-hot tokens (size, seq, vocab), where one other token is a change of sqrt(2), or the vectors of a
    task of vectors; and the targets that count, (size, seq, 1), zero elsewhere.
    """
    batch = task.batch("train", 0, size, seed=seed)
    inputs = batch.inputs
    if not inputs.is_floating_point():
        inputs = torch.nn.functional.one_hot(inputs, task.spec.vocab_size or -1)
    return inputs.double(), (batch.targets * batch.mask)[..., None].double()
