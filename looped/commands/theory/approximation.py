"""Approximation and memorisation: the theory of Xu & Sato, measured (docs/theory.md)."""

from __future__ import annotations

import importlib.util
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from tyro.conf import Positional

from looped.commands.arguments import different
from looped.commands.output import Table, print_table
from looped.commands.theory.results import write_result
from looped.lazy import torch
from looped.strict import at_least, check
from looped.theory import memorization

if TYPE_CHECKING:
    from looped.theory import rates
    from looped.theory.cells import Function

Kind = Literal["plain", "tuned", "radix", "modulated"]
# Options with the names of the paper: d, N, and n for the number of cells.
Dimension = Annotated[int, tyro.conf.arg(name="d")]
Tokens = Annotated[int, tyro.conf.arg(name="N")]
CellCount = Annotated[int, tyro.conf.arg(name="n")]


def approximate(
    function: Positional[str],
    dim: Dimension = 1,
    seq: Tokens = 2,
    cells: CellCount = 4,
    loops: Annotated[Kind, tyro.conf.arg(name="kind")] = "plain",
    samples: int = 1000,
    slope: int = 2**20,
    radix_bits: int = 6,
    paper_size: bool = False,
    max_loops: int = 100_000,
    all_sequences: bool = False,
    out: Path | None = None,
) -> None:
    """Build the one-block looped transformer that approximates a function, and run it.

    Args:
        function: file.py:name, or one of the examples (waves, spread, mixed, rough, steep). The file is run as Python,
            with all rights of the user. The function maps float64 torch tensors (batch, N, d) in [0, 1] to the same
            shape, and is permutation-equivariant.
        dim: dimension of a token.
        seq: number of tokens in a sequence.
        cells: number of cells on each axis; the number of loops grows as n^((N+1)d).
        loops: how labels are recalled: plain, tuned and radix are weight-tied; modulated has factors eta(t).
        samples: number of random sequences for the model.
        slope: steepness M of the quantiser.
        radix_bits: bits of a label (radix).
        paper_size: pad the block to the paper's sizes, 17d+9 and 49d+25.
        max_loops: the largest number of loops allowed.
        all_sequences: also run the weights in exact arithmetic on every sequence of cells.
        out: folder for approximate.json, error.svg and life.svg.
    """
    from looped.theory import rates
    from looped.theory.cells import Cells, evaluate
    from looped.theory.construction import Budget, cells_for, construct, exact_on_all_sequences, life

    at_least(1, samples=samples, max_loops=max_loops)
    line = cells_for(dim, seq, cells, loops)
    if all_sequences and cells ** (seq * dim) > 4096:
        raise ValueError(f"all_sequences: expected at most 4,096 sequences of cells, not {cells ** (seq * dim):,}")
    f = load_checked(function, dim, seq)
    built = construct(
        f, line, loops, slope=slope, radix_bits=radix_bits, paper_size=paper_size, budget=Budget(loops=max_loops)
    )
    circuit, cost = built.program.circuit, built.program.circuit.cost()
    print(
        f"{function}: one block of dimension {cost.registers} and width {cost.units}, "
        f"{cost.non_zeros} nonzero weights, 2 heads of size 1, {built.program.loops:,} loops, {loops}"
    )
    print(f"prediction for pure {built.predicted('float64')}")
    x = np.random.default_rng(0).random((samples, seq, dim))
    wanted, got, alone = evaluate(f, x), built(x), built(x, stream=False)
    meant = built.semantics(x)
    facts: dict[str, Any] = {
        "function": function, "dim": dim, "seq": seq, "cells": cells, "kind": loops, "loops": built.program.loops,
        "d_model": cost.registers, "d_ff": cost.units, "samples": samples,
        "predicted_float64": built.predicted("float64"), "l2_error": rates.lp_error(got, wanted),
        "largest_difference_to_semantics": float(np.abs(got - meant).max()),
        "right_in_float64_alone": float((np.abs(alone - meant) < 1e-9).mean()),
    }  # fmt: skip
    print(f"model, {samples} sequences: L2 error {facts['l2_error']:.4f}")
    print(f"  largest difference from the intended output: {facts['largest_difference_to_semantics']:.1e}")
    print(f"  right in pure float64 (theta not reset in every loop): {facts['right_in_float64_alone']:.1%} of outputs")
    if all_sequences:
        facts |= exact_on_all_sequences(built)
        print(
            f"  exact arithmetic: right on {facts['exact_right']} of all {facts['exact_sequences']} sequences of cells"
        )
    sizes = [n for n in (2, 4, 8, 16, 32, 64) if n < cells] + [cells]
    rows = [row for n in sizes for row in rates.measure(f, Cells(dim, seq, n), kinds=sorted({"plain", loops}),
            samples=20_000, radix_bits=radix_bits)]  # fmt: skip
    print_table(_rate_table(rows))
    token = np.random.default_rng(1).random((seq, dim))
    states, names, wait = life(built, token), circuit.registers, cells - 1 + seq
    shown = [i for i, name in enumerate(names) if not name.startswith("unused")]
    last = len(states) - 1
    times = sorted({0, 1, cells - 1, cells, *range(wait, last, max(1, (last - wait) // 4)), last})
    table = Table("loop", *(names[i] for i in shown), title=f"token 0 of {np.round(token, 3).tolist()}, loop by loop")
    for t in times:
        table.add_row(str(t), *(f"{states[t, i]:.4g}" for i in shown))
    table.caption = f"quantised by loop {cells - 1}, contextual ID complete by loop {wait}, then the label is recalled"
    print_table(table)
    if out:
        from looped.report import theory_figures

        write_result(out, "approximate.json", {**facts, "rows": rows})
        write_result(out, "error.svg", theory_figures.error_by_loops(rows))
        write_result(
            out, "life.svg", theory_figures.life([names[i] for i in shown], states[:, shown], (cells - 1, wait))
        )


def memorise(
    count: int = 26, dim: Dimension = 1, bits: int = 8, digit: int = 4, seed: int = 0, out: Path | None = None
) -> None:
    """Memorise random labels with every variant, in exact and floating-point arithmetic.

    Args:
        count: K, number of labels.
        dim: dimension of a label.
        bits: bits of a label (radix).
        digit: the largest digit (wide digits), and the factor by which interpolation multiplies the loops.
        seed: seed of the normally distributed labels.
        out: folder for memorise.json and precision.svg.
    """
    limits = {"count": (count, 2, 1000), "d": (dim, 1, 100), "bits": (bits, 1, 40), "digit": (digit, 1, 100)}
    for name, (value, least, most) in limits.items():
        check(least <= value <= most, name, value, f"{least} to {most}")
    at_least(0, seed=seed)
    labels = np.random.default_rng(seed).normal(size=(count, dim))
    eps = float(np.abs(np.diff(labels, axis=0)).max(initial=0))
    spread = float(np.ptp(labels, axis=0).max(initial=0))
    variants = {
        "modulated, selecting": (memorization.modulated(labels, "selecting"), 0.0),
        "modulated, telescoping": (memorization.modulated(labels, "telescoping"), 0.0),
        "plain": (memorization.plain(labels), eps / 2),
        "interpolated": (memorization.plain(labels, interpolate=digit), eps / 2 / digit),
        "wide digits": (memorization.plain(labels, digit=digit), eps / 2 / digit),
        "radix": (memorization.radix(labels, bits), spread * 2.0 ** -(bits + 1)),
    }
    table = Table("variant", "dim", "width", "loops", "bound", "exact", "float64", "float32", "prediction",
                  title=f"{count} labels in {dim} dimensions; Lemma 4.1 allows an error of {eps:.4g}")  # fmt: skip
    rows = []
    for name, (memory, bound) in variants.items():
        predictions = [memory.predicted(dtype) for dtype in ("float64", "float32")]
        errors = {dtype: memory.error(dtype) for dtype in ("exact", "float64", "float32")}
        program = memory.program
        cost = program.circuit.cost()
        size = (cost.registers, cost.units, program.loops)
        table.add_row(
            name, *map(str, size), f"{bound:.3g}", *(f"{e:.3g}" for e in errors.values()), "\n".join(predictions)
        )
        rows.append({"variant": name, "d_model": size[0], "d_ff": size[1], "loops": size[2], "bound": bound,
                     **{dtype: error if math.isfinite(error) else None for dtype, error in errors.items()},
                     "predicted": predictions})  # fmt: skip
    print_table(table)
    curve = [memorization.share_recalled(k, seed) for k in (4, 8, 11, 14, 17, 20, 24, 28, 32, 40, 60, 100, 200)]
    table = Table("labels", "exact", "float64", "float32", title="share of labels that plain looping recalls correctly")
    for row in curve:
        table.add_row(str(row["count"]), *(f"{row[dtype]:.2f}" for dtype in ("exact", "float64", "float32")))
    print_table(table)
    if out:
        from looped.report import theory_figures

        write_result(
            out, "memorise.json", {"count": count, "dim": dim, "seed": seed, "eps": eps, "rows": rows, "curve": curve}
        )
        write_result(out, "precision.svg", theory_figures.precision(curve))


def moduli(
    target: Positional[str],
    dim: Dimension = 1,
    seq: Tokens = 2,
    deltas: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3),
    p: float = 2.0,
    grid: int | None = None,
    num_loops: int | None = None,
    out: Path | None = None,
) -> None:
    """Moduli of continuity (sequence, contextual, token) of a function or of a trained model.

    Args:
        target: file.py:name (the file is run as Python), an example (waves, spread, mixed), or a run folder.
        dim: dimension of a token; a run folder has its own.
        seq: number of tokens in a sequence.
        deltas: largest changes of the input.
        p: exponent of the norm of output changes.
        grid: also compute the moduli exactly among inputs whose coordinates are multiples of 1/grid.
        num_loops: loops of the model; the default is the number in training.
        out: folder for moduli.json.
    """
    from looped.theory import continuity, rates
    from looped.training import load_run

    at_least(1, d=dim, N=seq, num_loops=num_loops)
    check(bool(deltas), "deltas", deltas, "at least one")
    if Path(target).is_dir():
        run, model, _ = load_run(Path(target), "best")
        f = rates.function_of(model, num_loops)
        dim = (run.model.vocab_size if run.model.inputs == "tokens" else run.model.input_dim) or dim
    else:
        check(num_loops is None, "num_loops", num_loops, "a run folder, because a function has no loops")
        check(seq * dim <= continuity.MOST_COORDINATES, "N d", seq * dim, f"at most {continuity.MOST_COORDINATES}")
        f = load_checked(target, dim, seq)
    table = Table("delta", *continuity.KINDS, title=f"{target}: moduli of continuity, p={p:g}")
    rows = []
    for delta in deltas:
        cells = []
        for kind in continuity.KINDS:
            if seq == 1 and kind == "contextual":
                cells.append("no other token")
                continue
            found = [continuity.search(f, kind, delta, seq=seq, dim=dim, p=p)]
            if grid is not None:
                found.append(continuity.on_grid(f, kind, delta, seq=seq, dim=dim, p=p, grid=grid))
            cells.append("\n".join(f"{m.value:.5g} ({m.side})" for m in found))
            rows += [{"delta": delta, "kind": kind, "value": m.value, "side": m.side} for m in found]
        table.add_row(f"{delta:g}", *cells)
    print_table(table)
    if out:
        write_result(out, "moduli.json", {"target": target, "dim": dim, "seq": seq, "p": _json(p), "rows": rows})


def rate(
    function: Positional[str],
    dim: Dimension = 1,
    seq: Tokens = 2,
    cells: Annotated[tuple[int, ...], tyro.conf.arg(name="n")] = (2, 4, 8, 16),
    kinds: tuple[Kind, ...] = ("plain", "tuned", "radix", "modulated"),
    p: float = 2.0,
    samples: int = 100_000,
    out: Path | None = None,
) -> None:
    """Error against the number of loops: measured, bounded by Theorem 3.6, bounded by the construction; fitted slope.

    Args:
        function: as for `looped theory approximate`: file.py:name (the file is run as Python), or an example.
        dim: dimension of a token.
        seq: number of tokens in a sequence.
        cells: numbers of cells on each axis.
        kinds: kinds of recall to compare.
        p: exponent of the L^p error.
        samples: number of random sequences for the error.
        out: folder for rate.json and error.svg.
    """
    from looped.theory import rates
    from looped.theory.cells import Cells
    from looped.theory.construction import cells_for

    at_least(1, samples=samples)
    check(bool(cells), "n", cells, "at least one")
    check(bool(kinds), "kinds", kinds, "at least one")
    different(n=cells, kinds=kinds)
    for n in cells:
        for line in (cells_for(dim, seq, n, kind) for kind in kinds):
            if line.count * dim > 2**24:
                raise ValueError(f"n={n}: expected at most 2^24 labels, not {line.count:,} in {dim} dimensions")
    f = load_checked(function, dim, seq)
    rows = []
    for n in cells:
        rows += rates.measure(f, Cells(dim, seq, n), kinds=kinds, p=p, samples=samples)
    print_table(_rate_table(rows))
    slopes = {kind: rates.slope(rows, kind) for kind in kinds if len(cells) > 1}
    ours, theirs = -1 / ((seq + 1) * dim), -1 / ((seq + 1) * dim + 1)
    for kind, value in slopes.items():
        print(f"{kind}: error falls as loops^{value:.3f} over the last sizes")
    print(f"exponents for smooth functions: {ours:.3f} for this construction, {theirs:.3f} in the theorem")
    if out:
        from looped.report import theory_figures

        write_result(
            out,
            "rate.json",
            {"function": function, "dim": dim, "seq": seq, "p": _json(p), "rows": rows, "slopes": slopes},
        )
        write_result(out, "error.svg", theory_figures.error_by_loops(rows))


def roughness(cells: CellCount = 8, samples: int = 1000, out: Path | None = None) -> None:
    """Errors on functions with growing jumps, for which plain looping stalls and modulation does not.

    Args:
        cells: number of cells on each axis, and of plateaus of the function.
        samples: number of random sequences of two tokens.
        out: folder for roughness.json and stall.svg.
    """
    from looped.theory import rates

    at_least(2, n=cells, samples=samples)
    rows = rates.roughness(n=cells, samples=samples)
    table = Table("roughness", "eps", "omega tok", "omega cont", "plain", "tuned", "radix", "modulated",
                  title=f"L2 error of the model, n={cells}, d=1, N=2")  # fmt: skip
    for row in rows:
        names = ("roughness", "eps", "token", "contextual", "plain", "tuned", "radix", "modulated")
        table.add_row(*(f"{row[name]:.4g}" for name in names))
    print_table(table)
    if out:
        from looped.report import theory_figures

        write_result(out, "roughness.json", {"cells": cells, "samples": samples, "rows": rows})
        write_result(out, "stall.svg", theory_figures.stall(rows))


def load_function(target: str) -> Function:
    """An example by name, or the function `name` of a user's file, given as file.py:name.

    Raises:
        ValueError: no such example, file or name, or an error in the file.
    """
    from looped.theory.functions import FUNCTIONS

    if target in FUNCTIONS:
        return FUNCTIONS[target]
    file, _, name = target.rpartition(":")
    if not file.endswith(".py") or not name:
        raise ValueError(f"function {target!r}: expected file.py:name or one of {', '.join(FUNCTIONS)}")
    if not Path(file).is_file():
        raise ValueError(f"{file}: no such file")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's file may raise anything
        raise ValueError(f"{file}: {type(error).__name__}: {error}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{file}: expected a function named {name!r}")

    def of_copy(x: torch.Tensor) -> Any:
        return function(x.clone())  # the function may change its input

    return of_copy


def load_checked(target: str, dim: int, seq: int) -> Function:
    """The function, after a check on samples; each warning is printed as one line.

    Raises:
        ValueError: as `load_function` and `check_function`.
    """
    from looped.theory.cells import check_function

    f = load_function(target)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_function(f, dim, seq)
    for warning in caught:
        print(f"looped: warning: {warning.message}", file=sys.stderr)
    return f


def _rate_table(rows: Sequence[rates.Row]) -> Table:
    heads = ("n", "kind", "loops", "error", "Theorem 3.6", "bound here", "theorem / error", "eps / (w_tok + w_cont)")
    table = Table(*heads, title="L^p error and bounds (with moduli found by search, which are lower bounds)")
    for row in rows:
        more = ()
        if "bound" in row and row["kind"] == "plain":
            ratio = row["theorem"] / max(row["error"], 1e-300)
            more = (row["theorem"], row["bound"], ratio, row["adjacency"])
        cells = (f"{row['loops']:,}", f"{row['error']:.4f}", *(f"{value:.3f}" for value in more))
        table.add_row(str(row["cells"]), row["kind"], *cells)
    return table


def _json(p: float) -> float | str:
    return p if math.isfinite(p) else "inf"
