"""Loops as depth: squares with an error of 4^-(t+1), and Lipschitz functions with an error of order r^(-1/d)."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from looped.commands.arguments import different
from looped.commands.output import Table, print_table
from looped.commands.theory.results import write_result
from looped.lazy import torch
from looped.strict import check
from looped.theory import squaring
from looped.theory.arithmetic import Array, exact
from looped.theory.circuit import Program
from looped.theory.quantization import cell_of

MOST_LOOPS = 60
MOST_EXACT = 600
"""The most loops of a run in exact arithmetic, where numbers have two bits a loop."""
EXPONENTIAL = [1 / math.factorial(j) for j in range(11)]


def square(loops: tuple[int, ...] = (1, 2, 4, 8, 12, 16, 20, 24, 26, 30), out: Path | None = None) -> None:
    """Square numbers of [0, 1] by looping three hidden units, and multiply, exponentiate and divide with them.

    Args:
        loops: numbers of loops for the table.
        out: folder for square.json and square.svg.
    """
    check(
        len(loops) > 0 and all(1 <= t <= MOST_LOOPS for t in loops), "loops", loops, f"numbers from 1 to {MOST_LOOPS}"
    )
    different(loops=loops)
    rows = [square_errors(t) for t in sorted(loops)]
    keys = ("bound", "exact", "float64", "model", "float32")
    table = Table("loops", "4^-(loops+1)", "exact", "float64", "model", "float32", "weights, tied", "weights, untied",
                  title="x^2 on [0, 1]: largest error")  # fmt: skip
    for row in rows:
        sizes = (str(row[key]) for key in ("tied", "untied"))
        table.add_row(str(row["loops"]), *(f"{row[key]:.3g}" for key in keys), *sizes)
    print_table(table)
    others = other_functions()
    table = Table("function", "registers", "units", "nonzero weights", "loops", "largest error, float64")
    for row in others:
        table.add_row(*(str(row[key]) for key in ("function", "registers", "units", "non_zeros", "loops")),
                      f"{row['error']:.3g}")  # fmt: skip
    print_table(table)
    if out:
        from looped.report import serial_figures

        write_result(out, "square.json", {"rows": rows, "functions": others})
        write_result(out, "square.svg", serial_figures.squares(rows))


def lipschitz(
    cells: Annotated[tuple[int, ...], tyro.conf.arg(name="n")] = (4, 8, 16, 32, 64, 128),
    samples: int = 100_000,
    out: Path | None = None,
) -> None:
    """Approximate a Lipschitz function of one and of two numbers by one looped feed-forward layer, and fit the rate.

    Args:
        cells: numbers of cells on each axis.
        samples: number of random points for the error.
        out: folder for lipschitz.json and lipschitz.svg.
    """
    from looped.theory import rates

    check(len(cells) > 1 and all(2 <= n <= 512 for n in cells), "n", cells, "two or more numbers from 2 to 512")
    check(1 <= samples <= 10**7, "samples", samples, "1 to 10,000,000")
    different(n=cells)
    rows = [point_errors(dim, n, samples) for dim in (1, 2) for n in sorted(cells)]
    table = Table("d", "n", "loops", "error", "bound", "bits", "numbers in a table", "error, table", "weights, exact",
                  title="distance to the nearest of five points: largest error")  # fmt: skip
    for row in rows:
        counts = (f"{row[key]:,}" for key in ("dim", "cells", "loops"))
        run = "not run" if row["difference"] is None else f"{row['difference']:.0e}"
        table.add_row(*counts, f"{row['error']:.4f}", f"{row['bound']:.4f}", f"{row['bits']:,}",
                      f"{row['table_numbers']:,}", f"{row['table_error']:.4f}", run)  # fmt: skip
    print_table(table)
    slopes = {kind: rates.slope(rows, kind) for kind in ("d=1", "d=2")}
    for dim, value in enumerate(slopes.values(), start=1):
        print(f"d={dim}: error falls as loops^{value:.3f}; -1/d = {-1 / dim:.3f}")
    if out:
        from looped.report import serial_figures

        write_result(out, "lipschitz.json", {"samples": samples, "rows": rows, "slopes": slopes})
        write_result(out, "lipschitz.svg", serial_figures.lipschitz(rows))


def point_errors(dim: int, cells: int, samples: int) -> dict[str, Any]:
    """Loops, errors and stored numbers for n cells on each axis, with labels in digits or in a table."""
    from looped.theory import lipschitz as points

    f = points.hills(dim)
    x = np.random.default_rng(0).random((samples, dim))
    built = points.approximate(f, dim, cells)
    difference = None
    if built.program.loops <= MOST_EXACT:
        some = np.floor(x[:50] * 2**20) / 2**20
        difference = float(np.abs(built.program.run(exact(some)[:, None])[:, 0, 0].astype(float) - built(some)).max())
    return {
        "kind": f"d={dim}", "dim": dim, "cells": cells, "loops": built.program.loops, "bits": built.bits,
        "error": float(np.abs(built(x) - f(x)).max()), "bound": (1 + dim**0.5) / (2 * cells),
        "table_numbers": cells**dim, "table_error": float(np.abs(f((cell_of(x, cells) + 0.5) / cells) - f(x)).max()),
        "difference": difference,
    }  # fmt: skip


def square_errors(loops: int) -> dict[str, Any]:
    """The largest errors after some loops, in each arithmetic, and the nonzero weights of both networks."""
    program, untied = squaring.square(loops), squaring.untied(loops)
    rng = np.random.default_rng(loops)
    half = 2 ** min(loops, 50)
    # The largest error is at the odd multiples of 2^-(t+1).
    x = [Fraction(2 * int(k) + 1, 2 * half) for k in rng.integers(0, half, 50)]
    x += [Fraction(int(k), 2**50) for k in rng.integers(0, 2**50 + 1, 50)]
    outputs = [p.run(exact(x)[:, None, None])[:, 0, 0] for p in (program, untied)]
    assert (outputs[0] == outputs[1]).all()
    errors = [value - number**2 for value, number in zip(outputs[0], x, strict=True)]
    numbers = np.concatenate([np.array(x, dtype=float), rng.random(500)])
    return {
        "loops": loops, "bound": 4.0 ** -(loops + 1), "exact": float(max(errors)), "least": float(min(errors)),
        "float64": largest_error(program, np.square, numbers),
        "float32": largest_error(program, np.square, numbers.astype(np.float32)),
        "model": float(np.abs(_model(program, numbers) - numbers**2).max()),
        "tied": program.circuit.cost().non_zeros, "untied": untied.circuit.cost().non_zeros,
    }  # fmt: skip


def other_functions() -> list[dict[str, Any]]:
    """Products, a polynomial and a reciprocal by the same units: sizes, loops and errors."""
    rng = np.random.default_rng(0)
    unit, upper = rng.random(500), 0.5 + rng.random(500) / 2
    cases = [
        ("x y", squaring.product(26), lambda x: x[:, 0] * x[:, 1], rng.random((500, 2))),
        ("x^8", squaring.polynomial([0] * 8 + [1], 26), lambda x: x**8, unit),
        ("exp(x), degree 10", squaring.polynomial(EXPONENTIAL, 26), np.exp, unit),
        ("1 / x, 4 steps of Newton", squaring.reciprocal(4, 26), np.reciprocal, upper),
        ("1 / x, 6 steps of Newton", squaring.reciprocal(6, 26), np.reciprocal, upper),
    ]
    rows = []
    for name, program, function, x in cases:
        cost = program.circuit.cost()
        rows.append({
            "function": name, "registers": cost.registers, "units": cost.units, "non_zeros": cost.non_zeros,
            "loops": program.loops, "error": largest_error(program, function, x),
            "model": float(np.abs(_model(program, x) - function(x)).max()),
        })  # fmt: skip
    return rows


def largest_error(program: Program, function: Callable[[Array], Array], x: Array) -> float:
    """The largest |program(x) - function(x)|; the program runs in the dtype of x, the function in float64."""
    return float(np.abs(program.run(_tokens(x))[:, 0, 0] - function(x.astype(float))).max())


def _model(program: Program, x: Array) -> Array:
    from looped.theory.weights import write

    with torch.no_grad():
        return write(program, 1)(torch.from_numpy(_tokens(x))).logits.numpy()[:, 0, 0]


def _tokens(x: Array) -> Array:
    return x.reshape(len(x), 1, -1)
