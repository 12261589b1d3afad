"""The error as a function of the number of loops: measured, bounded by Theorem 3.6, and bounded by our construction.

The source is Theorem 3.6 of Xu & Sato (ICML 2025). Errors are L^p errors over uniform inputs,
(E sum |out - f|^p)^(1/p), with the sum over tokens and coordinates.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from looped.models import LoopedTransformer
from looped.strict import check
from looped.tasks import Task
from looped.theory import continuity
from looped.theory.arithmetic import Array
from looped.theory.cells import Cells, Function, evaluate
from looped.theory.construction import cells_for, construct, loops_of, memorised
from looped.theory.functions import plateaus
from looped.theory.memorization import Lattice, quantise_labels

Row = dict[str, Any]


class Moduli(NamedTuple):
    """The moduli at the distances that the bounds need for one cell size. All are lower bounds, found by search."""

    token: float
    """omega_tok(delta sqrt(d))"""
    contextual: float
    """omega_cont(delta sqrt(N d))"""
    contextual_others: float
    """omega_cont(delta sqrt((N - 1) d)): all other tokens move by one cell"""
    sequence: float
    """omega_f(delta sqrt(N d))"""
    half_cell: float
    """omega_f(delta sqrt(N d) / 2)"""


def moduli(f: Function, cells: Cells, *, p: float = 2.0, steps: int = 120) -> Moduli:
    """The moduli that the bounds need for these cells, with delta = 1/n."""
    d, seq, delta = cells.d, cells.seq, 1 / cells.n

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
    """The cell size delta of Theorem 3.6 for r loops: ((r - N) / 2)^(-1 / ((N + 1) d + 1))."""
    return ((loops - cells.seq) / 2) ** (-1 / ((cells.seq + 1) * cells.d + 1))


def theorem_bound(at: Moduli, cells: Cells, *, p: float = 2.0, factor_on_sequence: bool = False) -> float:
    """The terms of Theorem 3.6 with moduli, for delta = 1/n. Its O(.) terms are omitted; their constants are not given.

    Versions of the theorem differ in whether the factor (N d)^(1/p) also multiplies omega_f; `factor_on_sequence`
    chooses. The factor is unnecessary if omega_f uses the norm of the whole matrix.
    """
    factor = (cells.seq * cells.d) ** (1 / p)
    return factor * (at.token + at.contextual) + (factor if factor_on_sequence else 1) * at.sequence


def our_bound(
    at: Moduli, cells: Cells, *, spread: float, eps: float | None = None, slope: int = 2**20, p: float = 2.0
) -> float:
    """(N d)^(1/p) eps / 2 + omega_f(delta sqrt(N d) / 2) + spread * (N d)^(1/p) * (measure of the ramps)^(1/p).

    The first term bounds the error of a recalled label. The second bounds the change of f between an input and the
    centre of its cell. The third covers the ramps, whose measure is at most N d (n - 1) / (n M); outputs there stay
    within the range of the labels. Duplicate tokens need no term.

    Args:
        at: the moduli for these cells.
        cells: n cells on each axis.
        spread: the range of the labels.
        eps: the largest jump of the labels. None takes its bound omega_tok + omega_cont (the adjacency lemma).
        slope: M.
        p: of the L^p error.
    """
    n, axes = cells.n, cells.seq * cells.d
    ramps = (axes * (n - 1) / (n * slope)) ** (1 / p)
    eps = at.token + at.contextual_others if eps is None else eps
    return axes ** (1 / p) * (eps / 2 + spread * ramps) + at.half_cell


def lp_error(out: Shaped[Array, "batch seq dim"], wanted: Shaped[Array, "batch seq dim"], p: float = 2.0) -> float:
    """(E sum |out - wanted|^p)^(1/p): the mean over the batch, the sum over tokens and coordinates.

    For p=inf it is the largest difference.
    """
    if p == float("inf"):
        return float(np.abs(out - wanted).max())
    return float((np.abs(out - wanted) ** p).sum((1, 2)).mean() ** (1 / p))


def measure(
    f: Function, cells: Cells, *, kinds: Sequence[str] = ("plain", "tuned", "radix", "modulated"), p: float = 2.0,
    samples: int = 100_000, radix_bits: int = 6, seed: int = 0, bounds: bool = True,
) -> list[Row]:  # fmt: skip
    """One row for each kind: loops, measured error, both bounds, and both sides of the adjacency lemma.

    The error is that of the construction's semantics. Tests show that the real model equals them.
    """
    x = np.random.default_rng(seed).random((samples, cells.seq, cells.d))
    wanted = evaluate(f, x)
    at = moduli(f, cells, p=p) if bounds else None
    rows = []
    for kind in kinds:
        kind_cells = cells_for(cells.d, cells.seq, cells.n, kind)
        labels = kind_cells.labels(f)
        answers = labels if kind == "modulated" else memorised(kind_cells, labels, kind, radix_bits).values
        row: Row = {"cells": cells.n, "kind": kind, "loops": loops_of(kind_cells, kind, radix_bits)}
        row["error"] = lp_error(answers[kind_cells.lookup(x)], wanted, p)
        if kind_cells.gap:
            row["eps"] = float(np.abs(np.diff(labels, axis=0)).max())
        if at is not None:
            row |= {"moduli": at._asdict(), "theorem": theorem_bound(at, cells, p=p)}
            row["theorem_factor_on_all"] = theorem_bound(at, cells, p=p, factor_on_sequence=True)
            row["bound_by_moduli"] = our_bound(at, cells, spread=float(np.ptp(labels)), p=p)
            if kind_cells.gap:
                row["bound"] = our_bound(at, cells, spread=float(np.ptp(labels)), eps=row["eps"], p=p)
                row["adjacency"] = row["eps"] / max(at.token + at.contextual_others, 1e-300)
        rows.append(row)
    return rows


class Resolution(NamedTuple):
    """Cells and bits of a label with which the error is at most a given one."""

    cells: Cells
    labels: Lattice
    bits: int
    error: float


def resolution(
    f: Function, eps: float, *, dim: int, seq: int, most: int, samples: int = 20_000, seed: int = 0
) -> Resolution:
    """The cells (without gaps) and the bits B of a label that reach an L2 error of eps with the fewest bits, K B.

    Args:
        f: (batch, seq, dim) to the same shape.
        eps: the error, measured on random sequences.
        dim: d.
        seq: N.
        most: the most loops of the memory with one code, K B + 1.
        samples: number of sequences.
        seed: of the sequences.

    Raises:
        ValueError: eps is out of range, or needs more loops; names the smallest error within them.
    """
    check(eps > 0, "eps", eps, "a positive number")
    x = np.random.default_rng(seed).random((samples, seq, dim))
    wanted, found, errors, budget = evaluate(f, x), None, [], most
    for n in itertools.count(2):
        cells = Cells(dim, seq, n, gap=False)
        if cells.count >= most:
            break
        labels, ids = cells.labels(f), cells.lookup(x)
        for bits in range(1, min((most - 1) // cells.count, 24) + 1):
            level = quantise_labels(labels, bits)
            errors.append(lp_error(level.values[ids], wanted))
            if errors[-1] <= eps:
                found, most = Resolution(cells, level, bits, errors[-1]), cells.count * bits
                break
    if found is None:
        within = f"the smallest error within it is {min(errors):.3g}" if errors else "no n is within it"
        raise ValueError(f"eps={eps:g}: needs more than {budget:,} loops, the budget; {within} (d={dim}, N={seq})")
    return found


def slope(rows: Sequence[Row], kind: str = "plain", last: int = 3) -> float:
    """The slope of log error against log loops, fitted to the `last` sizes; smooth f tend to -1 / ((N + 1) d).

    Raises:
        ValueError: there are fewer than two rows of this kind.
    """
    pairs = [(np.log(row["loops"]), np.log(row["error"])) for row in rows if row["kind"] == kind][-last:]
    if len(pairs) < 2:
        raise ValueError(f"rows of kind {kind!r}: expected at least two to fit a slope, got {len(pairs)}")
    loops, errors = np.array(pairs).T
    return float(np.polyfit(loops, errors, 1)[0])


def roughness(
    values: Sequence[float] = (0.0, 0.25, 0.5, 1.0), *, n: int = 8, samples: int = 1000, seed: int = 0
) -> list[Row]:
    """Errors of the real model on functions with growing jumps, for which plain looping stalls.

    See section 7 of docs/theory.md. Sequences have two tokens of dimension 1. The functions are `plateaus` on the cells
    of the construction, so that all error except the memory's lies on narrow ramps.
    """
    x = np.random.default_rng(seed).random((samples, 2, 1))
    rows = []
    for value in values:
        f = plateaus(value, n=n)
        wanted = evaluate(f, x)
        at = moduli(f, Cells(1, 2, n))
        row: Row = {"roughness": value, "token": at.token, "contextual": at.contextual_others}
        for kind in ("plain", "tuned", "radix", "modulated"):
            built = construct(f, cells_for(1, 2, n, kind), kind)
            row[kind] = lp_error(built(x), wanted)
            if kind == "plain":
                row["eps"] = float(built.program.output_map[0]["a0"])
        rows.append(row)
    return rows


def function_of(model: LoopedTransformer, num_loops: int | None = None) -> Callable[[Tensor], Tensor]:
    """A trained model as a function of real vectors (batch, seq, dim), for its moduli of continuity.

    A model of vectors is used unchanged. A model of tokens is extended to mixtures of tokens: each position holds
    weights over the vocabulary (one-hot for a token), and its embedding is the weighted sum.
    """
    config = model.config
    if config.inputs == "vectors":
        relaxed = model
    else:
        vectors = {"inputs": "vectors", "input_dim": config.vocab_size, "vocab_size": None, "tie_embeddings": False}
        relaxed = LoopedTransformer(dataclasses.replace(config, **vectors)).double()
        weights = dict(model.state_dict())
        weights["embed.weight"] = weights["embed.weight"].T
        if config.bias:
            weights["embed.bias"] = torch.zeros(config.d_model)
        relaxed.load_state_dict(weights)
    relaxed = relaxed.double().requires_grad_(False)
    return lambda x: relaxed(x, num_loops=num_loops).logits


def task_samples(
    task: Task, size: int, *, seed: int = 0
) -> tuple[Float[Tensor, "size seq dim"], Float[Tensor, "size seq 1"]]:
    """A task's inputs and targets on sampled problems, for `continuity.of_samples`.

    Returns:
        The inputs: one-hot tokens (size, seq, vocab), where replacing a token is a change of sqrt(2), or the vectors
        of a task of vectors. The targets (size, seq, 1), zero at positions without a loss.
    """
    batch = task.batch("train", 0, size, seed=seed)
    inputs = batch.inputs
    if not inputs.is_floating_point():
        inputs = torch.nn.functional.one_hot(inputs, task.spec.vocab_size or -1)
    return inputs.double(), (batch.targets * batch.mask)[..., None].double()
