"""The share of unseen 9x9 Sudoku boards that minutes on one thread buy, by band of difficulty.

`python -m benchmarks.sudoku_laptop RUN --files PUZZLES ... --out results/sudoku-laptop` trains the recipe and keeps its
checkpoints with the processor time of the process, start, validation and saving included. It then evaluates some of
them on test boards. Ctrl-C ends the training early. If RUN exists already, it is only evaluated.
"""

import argparse
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from looped.evaluation.scores import evaluate
from looped.files import write_atomic
from looped.models.graphs import share_graphs
from looped.recipes import complete, recipe
from looped.report.sudoku_figures import share_by_minutes
from looped.run_folder import CHECKPOINTS, Environment, read_file
from looped.tasks import TASKS
from looped.tasks.sudoku import SudokuConfig
from looped.training import load_run, train
from looped.training.checkpoint import saved_steps

SECONDS = "cpu.json"
SCORES = ("board", "cells")


def trained(folder: Path, name: str, files: list[str]) -> None:
    """Train the recipe `name` into `folder`, which keeps all checkpoints and the processor seconds before each."""
    run = recipe(name)
    assert isinstance(run.task, SudokuConfig)
    task = replace(run.task, files=tuple(files), pool=SudokuConfig().pool) if files else run.task
    run = complete(replace(run, task=task, train=replace(run.train, keep_last=10**6, device="cpu")))
    seconds: dict[str, float] = {}

    def watch() -> None:
        while True:
            for path in (folder / CHECKPOINTS).glob("step_*"):
                seconds.setdefault(path.name, time.process_time())
            if seconds:
                write_atomic(folder / SECONDS, json.dumps(seconds))
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()
    train(run, folder)
    time.sleep(1)


def curve(folder: Path, steps: list[int], loops: list[int], examples: int) -> list[dict[str, Any]]:
    """Scores of the checkpoints of `steps` on test boards, one row for each band and number of loops."""
    seconds = json.loads((folder / SECONDS).read_text())
    rows = []
    for step in steps:
        run, model, _ = load_run(folder, step)
        task = TASKS[run.task.name](run.task)
        share_graphs(model, task.graphs)
        minutes = round(seconds[f"step_{step:06d}"] / 60, 2)
        for row in evaluate(model, task, loops=loops, examples=examples):
            if row["metric"] in SCORES:
                kept = {key: row[key] for key in ("group", "num_loops", "metric", "value", "low", "high", "n")}
                rows.append({"minutes": minutes, "step": step, **kept})
        solved = [row for row in rows if row["step"] == step and row["metric"] == "board"]
        print(step, minutes, [(row["group"], row["num_loops"], round(row["value"], 3)) for row in solved], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--recipe", default="sudoku-laptop")
    parser.add_argument("--files", nargs="*", default=[], help="puzzle files; without, puzzles are generated")
    parser.add_argument(
        "--steps", type=int, nargs="*", default=[], help="checkpoints to evaluate; default: about eight"
    )
    parser.add_argument("--loops", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--examples", type=int, default=100, help="test boards of each band")
    parser.add_argument("--last-loops", type=int, nargs="+", default=[16, 32, 64, 128, 256], help="for the last one")
    parser.add_argument("--last-examples", type=int, default=300)
    parser.add_argument("--out", type=Path, required=True, help="folder for curve.json and curve.svg")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.run.exists():
        trained(arguments.run, arguments.recipe, arguments.files)
    saved = saved_steps(arguments.run)
    doubled = [saved[min(2**i, len(saved)) - 1] for i in range(len(saved).bit_length() + 1)]
    steps = arguments.steps or sorted(set(doubled))
    made_on = read_file(arguments.run, Environment)
    assert made_on is not None
    facts = {key: getattr(made_on, key) for key in ("date", "machine", "python", "torch", "looped", "precision")}
    found: dict[str, Any] = {**facts, "recipe": arguments.recipe, "split": "test"}
    found["rows"] = curve(arguments.run, steps[:-1], arguments.loops, arguments.examples)
    found["rows"] += curve(arguments.run, steps[-1:], arguments.last_loops, arguments.last_examples)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_atomic(arguments.out / "curve.json", json.dumps(found, indent=1) + "\n")
    write_atomic(arguments.out / "curve.svg", share_by_minutes(found["rows"], max(arguments.loops)))


if __name__ == "__main__":
    main()
