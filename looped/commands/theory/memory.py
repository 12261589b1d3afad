"""Five memories on the same labels, and what each needs to reach an error (docs/constructions.md, section 7)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from looped.commands.arguments import different
from looped.commands.output import Table, print_table
from looped.commands.theory.approximation import Dimension, Tokens, load_checked
from looped.commands.theory.results import write_result
from looped.lazy import torch
from looped.strict import at_least, check
from looped.theory.arithmetic import Array, exact
from looped.theory.circuit import Program

Row = dict[str, Any]
FORMULAS = {
    "wide": "K d numbers of B + 2 bits, 1 layer",
    "deep": "K d numbers of B + 2 bits, K - 1 layers",
    "modulated": "K d numbers of B + 1 bits, K - 1 loops",
    "digits": "d numbers of B K bits, B K + 1 loops",
    "grouped": "G d numbers of B K/G bits, B K/G + 1 loops",
}
LEGEND = (
    "weights: all that are not zero; numbers: those that depend on the labels. The numbers of an exact memory have at "
    "least K B d bits, or else two sets of labels would have the same weights."
)
MOST_BITS = 200_000
MOST_LAYERS = 10_000  # as a model, which takes a gigabyte
STATED = "stated in the papers' abstracts, up to constants and logarithms"
COLUMNS = ("memory", "G", "layers", "loops", "width", "weights", "numbers", "bits", "numbers x bits", "wrong, exact",
           "wrong, float64", "by derivation")  # fmt: skip


def memories(count: int = 256, dim: Dimension = 1, bits: int = 4, seed: int = 0, out: Path | None = None) -> None:
    """Memorise random labels with five memories, and count what they take from their weights.

    Args:
        count: K, number of labels.
        dim: dimension of a label.
        bits: B, bits of each coordinate of a label.
        seed: seed of the labels.
        out: folder for memories.json and trade.svg.
    """
    from looped.theory.memories import KINDS, memory

    for name, value, least, most in (("count", count, 3, 4096), ("d", dim, 1, 100), ("bits", bits, 1, 16)):
        check(least <= value <= most, name, value, f"{least} to {most}")
    at_least(0, seed=seed)
    total = count * bits * dim
    check(total <= MOST_BITS, "count bits d", total, f"at most {MOST_BITS}")
    labels = np.random.default_rng(seed).integers(0, 2**bits, (count, dim))
    k = np.arange(count).reshape(-1, 1, 1)
    grouped = [("grouped", 2**i) for i in range(1, count.bit_length())]
    rows = []
    table = Table(*COLUMNS, title=f"{count} labels of {bits} bits in {dim} dimensions: {total:,} bits")
    for kind, groups in [*((kind, 1) for kind in KINDS[:-1]), *grouped]:
        row = _row(kind, labels, bits, groups)
        rows.append(row | _wrong(memory(kind, labels, bits, groups=groups), k, labels[:, None], row))
        table.add_row(*_cells(rows[-1]))
    table.caption = LEGEND
    print_table(table)
    print(f"{STATED}: Vardi et al. (2021) {count**0.5:.0f} parameters, sqrt(K), or K / L at depth L")
    if out:
        from looped.report import memory_figures

        write_result(out, "memories.json", {"count": count, "dim": dim, "bits": bits, "seed": seed, "rows": rows})
        write_result(out, "trade.svg", memory_figures.trade(rows, total))


def compare(
    function: Positional[str],
    eps: tuple[float, ...] = (0.3, 0.1),
    dim: Dimension = 1,
    seq: Tokens = 2,
    max_loops: int = 100_000,
    out: Path | None = None,
) -> None:
    """Count layers, loops and numbers of five memories that approximate a function up to an error.

    Args:
        function: as for `looped theory approximate`: file.py:name (the file is run as Python), or an example.
        eps: L2 errors to reach.
        dim: dimension of a token.
        seq: number of tokens in a sequence.
        max_loops: the largest number of loops, and of layers, allowed.
        out: folder for compare.json and error.svg.
    """
    from looped.theory.cells import Cells, multisets
    from looped.theory.memories import KINDS, memory, stages
    from looped.theory.rates import resolution

    check(bool(eps), "eps", eps, "at least one")
    different(eps=eps)
    check(2 <= max_loops <= MOST_BITS, "max_loops", max_loops, f"2 to {MOST_BITS}")
    Cells(dim, seq, 2)  # refuses impossible sizes before the function is called
    f = load_checked(function, dim, seq)
    found = [resolution(f, e, dim=dim, seq=seq, most=max_loops) for e in eps]
    rows, x = [], np.random.default_rng(1).random((100, seq, dim))
    for wanted, (cells, level, bits, error) in zip(eps, found, strict=True):
        groups = min(cells.count, round((cells.count * bits) ** 0.5))
        reached = (
            f"L2 error {error:.4f} <= {wanted:g} with n={cells.n} cells, K={cells.count:,} labels of B={bits} bits"
        )
        table = Table(*COLUMNS, title=f"{function}, d={dim}, N={seq}: {reached}")
        facts = {"eps": wanted, "cells": cells.n, "labels": cells.count, "label_bits": bits, "error": error}
        for kind in KINDS:
            row = facts | _row(kind, level.path, bits, groups)
            program = memory(kind, level.path, bits, groups=row["groups"], front=stages(cells))
            rows.append(row | _wrong(program, x, level.path[cells.lookup(x)], row))
            table.add_row(*_cells(rows[-1]))
        table.caption = LEGEND
        print_table(table)
        size = dim + seq + (seq * multisets(cells)) ** 0.5
        print(f"{STATED}: Vardi et al. (2021) {cells.count**0.5:.0f} parameters, sqrt(K), or K / L at depth L;")
        print(f"  Kim et al. (2023) {size:.0f}, d + N + sqrt(N M) for M = {multisets(cells):,} sequences\n")
    if out:
        from looped.report import memory_figures

        write_result(out, "compare.json", {"function": function, "dim": dim, "seq": seq, "rows": rows})
        write_result(out, "error.svg", memory_figures.error_by_cost(rows))


def _row(kind: str, labels: Array, bits: int, groups: int) -> Row:
    """The size of a memory, counted and equal to the derived one, and whether float64 holds its numbers."""
    from looped.theory.memories import formula, measure, memory, weights

    size = measure(kind, labels, bits, groups=groups)
    count, d = labels.shape
    assert size == formula(kind, count, d, bits, groups=groups)
    program = memory(kind, labels, bits, groups=groups)
    every = -(-count // groups) if kind == "grouped" else count - 1  # a label of each code; otherwise the ends
    try:
        program.run(np.arange(0.0, count, every)[:, None, None])
        held = True
    except ValueError:
        held = False
    non_zeros = sum(v != 0 for v in weights(program))
    return {"kind": kind, "groups": size.numbers // d, **size._asdict(), "weights": non_zeros, "float64": held}


def _wrong(program: Program, inputs: Array, right: Array, row: Row) -> Row:
    """How many inputs give a wrong label: in exact arithmetic, of some if there are many loops, and in the model."""
    from looped.theory.weights import write

    some = min(len(inputs), max(2, 2_000_000 // (row["depth"] * row["width"] * inputs.shape[1])))
    chosen = np.linspace(0, len(inputs) - 1, some).astype(int)
    wrong = (program.run(exact(inputs[chosen])) != right[chosen]).any((1, 2))
    found: Row = {"exact_inputs": some, "exact_wrong": int(wrong.sum())}
    if row["float64"] and row["layers"] <= MOST_LAYERS:
        output = write(program, inputs.shape[1])(torch.from_numpy(inputs).double()).logits.numpy(force=True)
        found |= {"model_inputs": len(inputs), "model_wrong": int((output != right).any((1, 2)).sum())}
    return found


def _cells(row: Row) -> Sequence[str]:
    """The cells of COLUMNS."""
    model = "too deep to run" if row["float64"] else "too large"
    if "model_wrong" in row:
        model = f"{row['model_wrong']} of {row['model_inputs']}"
    names = ("layers", "loops", "width", "weights", "numbers", "bits")
    sizes = (*(row[name] for name in names), row["numbers"] * row["bits"])
    groups = str(row["groups"]) if row["kind"] == "grouped" else ""
    return (row["kind"], groups, *(f"{v:,}" for v in sizes), f"{row['exact_wrong']} of {row['exact_inputs']}", model,
            FORMULAS[row["kind"]])  # fmt: skip
