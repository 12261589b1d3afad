"""Learners in context: the best step matrix of looped gradient descent, and learners as weights."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from looped.commands.arguments import different
from looped.commands.output import Table, print_table
from looped.commands.theory.results import write_result
from looped.lazy import torch
from looped.strict import at_least, check

EXACT_LOOPS = 4  # from here on, the exact loss of a rotation takes more than a second

Examples = Annotated[tuple[int, ...], tyro.conf.arg(name="n")]
Dimension = Annotated[int, tyro.conf.arg(name="d")]


def regression(
    examples: Examples = (20, 40),
    dim: Dimension = 5,
    loops: tuple[int, ...] = (1, 2, 3, 4, 6, 8),
    samples: int = 100_000,
    training_steps: int = 0,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """The best step matrix for linear regression in context, and rotations that beat the best step size.

    The examples are n independent standard normal vectors, the target is linear without noise, and the loss is the mean
    squared error of the prediction after L loops of gradient descent with the step matrix A, divided by that of 0.

    Args:
        examples: numbers of examples.
        dim: dimension of an example.
        loops: numbers of loops.
        samples: number of random data sets for estimates.
        training_steps: also train all entries of A for so many steps, free and symmetric. 0 is no training.
        seed: seed of the data sets and of training.
        out: folder for regression.json and eigenvalues.svg.
    """
    from looped.theory.learning import regression as theory

    check(2 <= dim <= 16, "d", dim, "2 to 16")
    for name, values, most in (("n", examples, 1000), ("loops", loops, 8)):
        check(bool(values), name, values, "at least one")
        for value in values:
            check(1 <= value <= most, name, value, f"1 to {most}")
    different(n=examples, loops=loops)
    check(1000 <= samples <= 1_000_000, "samples", samples, "1,000 to 1,000,000")
    at_least(0, training_steps=training_steps, seed=seed)
    thresholds = {count: theory.rotation_threshold(dim, count) for count in loops}
    rows = []
    for n in examples:
        found = [_steps(n, dim, count, samples, seed) for count in loops]
        if training_steps:
            for row in found:
                row["trained"] = {
                    kind: _trained(row, samples, seed, training_steps, symmetric=kind == "symmetric")
                    for kind in ("free", "symmetric")
                }
        _print_steps(n, dim, found, thresholds)
        rows += found
    if out:
        from looped.report import learning_figures

        content = {"dim": dim, "samples": samples, "training_steps": training_steps, "seed": seed, "rows": rows,
                   "smallest_n_of_a_rotation": thresholds}  # fmt: skip
        write_result(out, "regression.json", content)
        write_result(out, "eigenvalues.svg", learning_figures.eigenvalues(rows))


def learners(
    examples: Annotated[int, tyro.conf.arg(name="n")] = 30,
    dim: Dimension = 4,
    condition: float = 100.0,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Run learners written as weights, and compare them with numpy and scikit-learn.

    Args:
        examples: number of examples.
        dim: dimension of an example.
        condition: condition number of the regression on which plain descent, momentum and Chebyshev steps compete.
        seed: seed of the examples.
        out: folder for learners.json and descent.svg.
    """
    from looped.theory.learning.comparisons import conditioning, learners_against_references

    check(1 <= dim <= 16, "d", dim, "1 to 16")
    check(max(2, dim) <= examples <= 200, "n", examples, f"{max(2, dim)} to 200, and at least d")
    check(1 < condition <= 10_000, "condition", condition, "above 1, at most 10,000")
    at_least(0, seed=seed)
    table = Table("learner", "registers", "layers", "heads", "units", "loops", "compared with", "largest difference",
                  title=f"models of the library in float64, {examples} examples in {dim} dimensions")  # fmt: skip
    rows = learners_against_references(examples, dim, seed)
    for row in rows:
        sizes = (row[name] for name in ("registers", "layers", "heads", "units", "loops"))
        table.add_row(row["learner"], *map(str, sizes), row["reference"], f"{row['difference']:.1e}")
    print_table(table)
    race = conditioning(condition, seed)
    kinds = ("tied", "momentum", "Chebyshev")
    table = Table("loops", *kinds, "bound of tied", "bound of Chebyshev", "((sqrt k - 1)/(sqrt k + 1))^L",
                  title=f"relative error of the weights, condition number k = {condition:g}")  # fmt: skip
    for row in race:
        names = (*kinds, "tied_bound", "Chebyshev_bound", "root_rate")
        table.add_row(str(row["loops"]), *(f"{row[name]:.2e}" for name in names))
    print_table(table)
    if out:
        from looped.report import learning_figures

        content = {"examples": examples, "dim": dim, "condition": condition, "seed": seed, "rows": rows, "race": race}
        write_result(out, "learners.json", content)
        write_result(out, "descent.svg", learning_figures.descent(race))


def _steps(n: int, d: int, loops: int, samples: int, seed: int) -> dict[str, Any]:
    """The best multiple of I, the best aI + bJ, and for few loops the best normal and symmetric matrices."""
    from looped.theory.learning import regression as theory

    step = theory.best_step(n, d, loops)
    bend = theory.curvature(step, n, d, loops)
    generator = torch.Generator().manual_seed(seed)
    a, b = theory.fit_rotation(theory.second_moments(n, d, samples, generator), loops, (step, 0.3))
    fresh = theory.second_moments(n, d, samples, generator)
    one = torch.eye(d, dtype=torch.float64)
    alone = theory.losses(step * one, fresh, loops)
    turned = theory.losses(a * one + b * theory.rotation(d), fresh, loops)
    row: dict[str, Any] = {
        "n": n, "dim": d, "loops": loops, "step": step, "loss": float(theory.scaled_loss(step, n, d, loops)),
        "curvature": {"symmetric": float(bend.symmetric), "skew": float(bend.skew)},
        "rotation": {"a": a, "b": abs(b), "loss": theory.estimate(turned)._asdict(),
                     "gain": theory.estimate(alone - turned)._asdict()},
    }  # fmt: skip
    if loops <= EXACT_LOOPS:
        for name, planes in (("symmetric", [0]), ("normal", range(d // 2 + 1))):
            minima = [values for p in planes for values in theory.best_normal(n, d, loops, p, seed=seed)]
            losses = [float(theory.normal_loss(values, n, loops)) for values in minima]
            best = int(np.argmin(losses))
            row[f"best_{name}"] = {"loss": losses[best], "eigenvalues": minima[best].tolist(), "starts": len(minima),
                                   "all_losses": losses}  # fmt: skip
    return row


def _trained(row: dict[str, Any], samples: int, seed: int, steps: int, *, symmetric: bool) -> dict[str, Any]:
    from looped.theory.learning import regression as theory

    n, d, loops = row["n"], row["dim"], row["loops"]
    learned = theory.train(n, d, loops, symmetric=symmetric, steps=steps, seed=seed)
    fresh = theory.second_moments(n, d, samples, torch.Generator().manual_seed(seed + 1))
    alone = theory.losses(row["step"] * torch.eye(d, dtype=torch.float64), fresh, loops)
    values = np.linalg.eigvals(learned.numpy())
    values = values[np.lexsort((values.real, values.imag))]
    commutator = learned @ learned.mT - learned.mT @ learned
    return {
        "matrix": learned.tolist(), "eigenvalues": np.stack([values.real, values.imag], axis=1).tolist(),
        "gain": theory.estimate(alone - theory.losses(learned, fresh, loops))._asdict(),
        "distance_to_normal": torch.linalg.matrix_norm(commutator).item(),
    }  # fmt: skip


def _print_steps(n: int, d: int, rows: Sequence[dict[str, Any]], thresholds: dict[int, int | None]) -> None:
    table = Table("loops", "best a", "loss", "curvature, symmetric", "curvature, skew", "skew below 0 from n",
                  title=f"n={n}, d={d}: A = a I, exactly")  # fmt: skip
    for row in rows:
        threshold = thresholds[row["loops"]]
        bend = (f"{row['curvature'][kind]:.3g}" for kind in ("symmetric", "skew"))
        table.add_row(
            str(row["loops"]), f"{row['step']:.4f}", f"{row['loss']:.5f}", *bend, str(threshold or "none to 1,000")
        )
    print_table(table)
    names = ("loops", "a", "b", "loss", "gain over the best a I", "best symmetric A, exactly", "best normal A, exactly")
    table = Table(*names, title=f"n={n}, d={d}: A = a I + b J on fresh samples (with standard errors)")
    for row in rows:
        turn = row["rotation"]
        exact = [
            f"{best['loss']:.5f}: {_complex(best['eigenvalues'])}" if best else ""
            for best in (row.get("best_symmetric"), row.get("best_normal"))
        ]
        table.add_row(str(row["loops"]), f"{turn['a']:.3f}", f"{turn['b']:.3f}", _with_error(turn["loss"]),
                      _with_error(turn["gain"]), *exact)  # fmt: skip
    print_table(table)
    if "trained" in rows[0]:
        table = Table("loops", "training", "eigenvalues of A", "gain over the best a I", "|AA' - A'A|",
                      title=f"n={n}, d={d}: all entries of A trained")  # fmt: skip
        for row in rows:
            for kind, found in row["trained"].items():
                table.add_row(str(row["loops"]), kind, _complex(found["eigenvalues"]), _with_error(found["gain"]),
                              f"{found['distance_to_normal']:.1e}")  # fmt: skip
        print_table(table)


def _with_error(found: dict[str, float]) -> str:
    return f"{found['mean']:.2e} ({found['error']:.0e})"


def _complex(eigenvalues: Sequence[Sequence[float]]) -> str:
    """Real ones, and one of each pair; equal ones once, with their number."""
    shown = Counter(f"{re:.3f}" + (f" +- {im:.3f}i" if im > 5e-4 else "") for re, im in eigenvalues if im > -5e-4)
    return ", ".join(value + (f" (x{count})" if count > 1 else "") for value, count in shown.items())
