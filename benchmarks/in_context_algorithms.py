"""A shared step matrix, trained in context, beside constructed algorithms on the same prompts (Gatmiry et al. 2024).

`python -m benchmarks.in_context_algorithms --out results/in-context-algorithms` trains A in w <- w + A' X'(y - X w) / n
for L loops and writes results.json and the tables of notes.md to the screen. All methods get the same test prompts.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from looped.files import write_atomic
from looped.tasks.in_context.algorithms import best_step, descent, newton
from looped.theory.learning.comparisons import predictions
from looped.theory.learning.learners import descent as descent_circuit
from looped.theory.learning.learners import tokens
from looped.theory.learning.regression import best_preconditioner, train
from looped.training.logger import environment

DIM, EXAMPLES, LOOPS, SEEDS = 5, 20, (1, 2, 4, 8), (0, 1, 2)
COVARIATES = {"identity": (1.0,) * 5, "anisotropic": (2.0, 1.5, 1.0, 0.5, 0.25)}
STEPS, BATCH, PROMPTS = 1500, 256, 65_536
FIT_SEED, TEST_SEED = 1000, 2000  # of the prompts for the best steps, and of the test prompts


def prompts(seed: int, deviations: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points (count, n, d), values, a query for each prompt (count, 1, d) and its value (count,), without noise."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, EXAMPLES + 1, DIM)) * deviations
    y = (x @ random.normal(size=(count, DIM, 1)))[..., 0]
    return x[:, :-1], y[:, :-1], x[:, -1:], y[:, -1]


def measure(name: str, loops: int, seeds: tuple[int, ...] = SEEDS, steps: int = STEPS) -> dict[str, Any]:
    """Errors of all methods, divided by d, and the distance of the learned one from the constructed ones."""
    deviations = np.array(COVARIATES[name])
    inverse = np.diag(deviations**-2)
    fit = prompts(FIT_SEED, deviations, PROMPTS // 4)
    x, y, queries, values = prompts(TEST_SEED, deviations, PROMPTS)
    moments = x.swapaxes(1, 2) @ x / EXAMPLES
    step, scale = best_step(fit[0], fit[2], loops), best_step(fit[0], fit[2], loops, inverse)
    constructed = {
        "descent": descent(x, y, loops, step),
        "preconditioned": descent(x, y, loops, scale * inverse),
        "newton": newton(x, y, loops),
    }

    def answers(weights: np.ndarray) -> np.ndarray:
        return (queries[:, 0] * weights).sum(1)

    def error(weights: np.ndarray) -> dict[str, float]:
        squares = (answers(weights) - values) ** 2 / DIM
        return {"mean": float(squares.mean()), "error": float(squares.std() / len(squares) ** 0.5)}

    row: dict[str, Any] = {
        "covariates": name, "loops": loops, "step": step, "scale": scale,
        "errors": {method: error(weights) for method, weights in constructed.items()}, "learned": [],
    }  # fmt: skip
    for seed in seeds:
        start = time.process_time()
        matrix = train(
            EXAMPLES, DIM, loops, symmetric=False, steps=steps, seed=seed, batch=BATCH,
            deviations=torch.from_numpy(deviations),
        ).numpy()  # fmt: skip
        seconds = time.process_time() - start
        weights = descent(x, y, loops, matrix)
        circuit = descent_circuit(DIM, EXAMPLES, loops, step=matrix)
        written = predictions(circuit, tokens(x[:100], y[:100], queries[:100]), 1)[-1, :, 0]
        found = {
            "seed": seed, "seconds": seconds, "matrix": matrix.tolist(), "loops": error(weights),
            "twice": error(descent(x, y, 2 * loops, matrix)),
            "prediction_difference": {m: float(((answers(weights) - answers(w)) ** 2).mean())
                                      for m, w in constructed.items()},
            "weight_difference": {m: float(((weights - w) ** 2).sum(1).mean()) for m, w in constructed.items()},
            "diverging": float((abs(np.linalg.eigvals(np.eye(DIM) - matrix.T @ moments)).max(1) > 1).mean()),
            "circuit_difference": float(abs(written - answers(weights)[:100]).max()),
        }  # fmt: skip
        if loops == 1:
            best = best_preconditioner(torch.from_numpy(np.diag(deviations**2)), EXAMPLES).numpy()
            found["distance_from_best"] = float(np.linalg.norm(matrix - best) / np.linalg.norm(best))
        row["learned"].append(found)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: errors divided by d. Learned: mean over seeds, lowest and highest seed in brackets."""
    columns = (
        "covariates", "L", "learned A, L loops", "same A, 2L loops", "gradient descent, best step",
        "inverse covariance, best step", "Newton",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        learned = []
        for key in ("loops", "twice"):
            means = [found[key]["mean"] for found in row["learned"]]
            learned.append(f"{np.mean(means):.2g} [{min(means):.2g}, {max(means):.2g}]")
        others = [f"{row['errors'][m]['mean']:.2g}" for m in ("descent", "preconditioned", "newton")]
        lines.append(f"| {' | '.join([row['covariates'], str(row['loops']), *learned, *others])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    rows = [measure(name, loops) for name in COVARIATES for loops in LOOPS]
    out.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment("64-true", torch.device("cpu")), "rows": rows}
    write_atomic(out / "results.json", json.dumps(content, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
