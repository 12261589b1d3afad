"""The share of test problems that trained models solve, by loops and by the number of attempts.

`python -m benchmarks.attempts RUN ... --out FOLDER` tries each problem from several initial states and keeps the
first answer that the task's rules accept, as `looped solve --attempts` does. It writes attempts.json and attempts.svg.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from looped.evaluation.answers import solved_by_attempts
from looped.evaluation.scores import EVALUATION_SEED
from looped.files import write_atomic
from looped.models.graphs import share_graphs
from looped.report import attempts_figures
from looped.run_data import task_with_data
from looped.training import load_run


def rows_of(folder: Path, loops: list[int], attempts: int, examples: int) -> list[dict[str, Any]]:
    """The rows of one run, on its test problems of all groups."""
    run, model, step = load_run(folder)
    task = task_with_data(run, folder)
    share_graphs(model, task.graphs)
    different = task.available("test")
    count = examples if different is None else min(examples, different)
    problems = task.sample("test", count, task.rng("test", 0, EVALUATION_SEED))
    found = solved_by_attempts(model, task, problems, loops=loops, attempts=attempts)
    return [{"recipe": run.recipe, "seed": run.train.seed, "step": step, **row} for row in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--loops", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--attempts", type=int, default=16)
    parser.add_argument("--examples", type=int, default=128, help="test problems")
    parser.add_argument("--out", type=Path, required=True, help="folder for attempts.json and attempts.svg")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for folder in arguments.runs:
        rows += rows_of(folder, arguments.loops, arguments.attempts, arguments.examples)
        shown = [(row["num_loops"], row["attempts"], round(row["value"], 3)) for row in rows if row["seed"] is not None]
        print(folder, [entry for entry in shown if entry[1] in (1, arguments.attempts)], flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = {"cpu_seconds": round(time.process_time()), "split": "test", "rows": rows}
    write_atomic(arguments.out / "attempts.json", json.dumps(found, indent=1) + "\n")
    write_atomic(arguments.out / "attempts.svg", attempts_figures.solved_by_attempts(rows))


if __name__ == "__main__":
    main()
