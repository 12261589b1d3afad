"""Trained standard models as loops, before and after a short training: all initial weights and some ranks.

    python -m benchmarks.conversion RUN... --loops 2 --ranks 0 4 16 48 --uptrain bae-uptrain --out results/bae/ranks.csv

A RUN is a run folder of a task with classes, such as that of `looped train bae-standard`. Cross-entropy (nats) and
accuracy are those of the answers of the same test examples. The seed of a run is that of the training after it too.
"""

import argparse
import csv
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from looped.cli import main as looped
from looped.costs.count import parameters
from looped.evaluation.scores import loop_logits, parts, sample_batch
from looped.models.loopify import INITS
from looped.run_data import task_with_data
from looped.training.checkpoint import load_run

EXAMPLES = 2048


def score(folder: Path, when: str) -> dict[str, Any]:
    """Cross-entropy and accuracy after the trained number of loops, and the number of weights."""
    run, model, _ = load_run(folder)
    task = task_with_data(run, folder)
    batch = sample_batch(task, "test", EXAMPLES, task.groups[0])
    logits = torch.cat([loop_logits(model, part, [model.num_loops])[0] for part in parts(batch, 128, model.device)])
    answers, targets = logits[batch.mask], batch.targets[batch.mask]
    return {
        "parameters": parameters(run.model),
        f"loss_{when}": round(F.cross_entropy(answers, targets).item(), 4),
        f"accuracy_{when}": round((answers.argmax(-1) == targets).double().mean().item(), 4),
    }


def call(*words: object) -> None:
    if looped([str(word) for word in words]):
        raise SystemExit(2)


def main() -> None:
    """Measure and write one row for each initialisation and rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--loops", type=int, required=True)
    parser.add_argument("--ranks", type=int, nargs="+", required=True)
    parser.add_argument("--uptrain", help="recipe of the training after the conversion")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for run in options.runs:
        config = load_run(run)[0]
        seed, whole = config.train.seed, f"0-{config.model.core_layers - 1}"
        rows.append({"seed": seed, "init": "original"} | score(run, "before"))
        with tempfile.TemporaryDirectory() as temporary:
            for init, rank in itertools.product(INITS[1:], options.ranks):
                began, folder = time.process_time(), Path(temporary) / f"{init}-{rank}"
                sizes = ("--core", whole, "--loops", options.loops, "--lora-rank", rank, "--init", init)
                call("loopify", run, *sizes, "--out", folder)
                row = {"seed": seed, "init": init, "rank": rank} | score(folder, "before")
                if options.uptrain:
                    more = folder.with_name(f"{folder.name}-more")
                    settings = ("--model.lora-rank", rank, "--train.seed", seed)
                    call("train", options.uptrain, "--from", folder, "--out", more, *settings)
                    row |= score(more, "after")
                row["cpu_seconds"] = round(time.process_time() - began, 1)
                rows.append(row)
                print(row, flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[-1]), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
