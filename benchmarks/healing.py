"""Train a run's model on a text for a time of one processor, and measure perplexity against that time.

    python -m benchmarks.healing train RUN --train FILES --validation FILES --test FILES --out FOLDER --minutes 60
    python -m benchmarks.healing table FOLDER... --out healing.csv --notes notes.md

RUN is a folder of `looped open` or `looped loopify`, whose tokenizer reads the text. Minutes are those of the
processor in training alone, so runs that share a machine are comparable. The learning rate rises in 20 steps, stays,
and falls to zero in the last quarter of the time. A run stops early at --until. FOLDER/log.jsonl has a line for every
validation, on the same windows for all runs, and FOLDER/end.json the perplexity on test windows by loop count. `table`
writes both into a file and between the marks in the notes, also of runs that have not ended.
"""

import argparse
import csv
import dataclasses
import datetime
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from looped.config import OptimConfig, RunConfig, TrainConfig
from looped.files import write_atomic
from looped.models.transformer import LoopedTransformer
from looped.run_data import FILES
from looped.tasks.text import Text
from looped.training.checkpoint import load_run
from looped.training.fabric import make_fabric
from looped.training.optim import make_optimizers
from looped.training.step import ModelWithLoss, train_step, validate

BEGIN, END = "<!-- healing -->", "<!-- end of healing -->"
PART = 2
"""Windows in a forward pass of a validation; logits of a large vocabulary take much memory."""


def perplexity(run: RunConfig, model: LoopedTransformer, task: Text, split: Any, windows: int, loops: int) -> float:
    batch = task.batch(split, 0, windows, seed=0)
    with torch.no_grad():
        return validate(make_fabric(run), model, task, batch, loops, PART)["perplexity"]


def heal(options: argparse.Namespace) -> None:
    """Train, and write the lines and the end."""
    source, model, _ = load_run(options.run)
    named: Any = source.task
    task = Text(
        dataclasses.replace(
            named,
            train_files=tuple(options.train),
            validation_files=tuple(options.validation),
            test_files=tuple(options.test),
            tokenizer=str(options.run / FILES / "tokenizer.json"),
            document="file",
            context=options.context,
            cache=options.cache,
        )
    )
    run = RunConfig(
        model=source.model, task=task.config,
        optim=OptimConfig(learning_rate=options.learning_rate, betas=(0.9, 0.95), warmup_steps=20),
        train=TrainConfig(batch_size=options.batch, device="cpu", precision=options.precision),
    )  # fmt: skip
    fabric, scored, optimizers = make_fabric(run), ModelWithLoss(model, run.train), make_optimizers(model, run.optim)
    options.out.mkdir(parents=True)
    until = datetime.datetime.combine(datetime.date.today(), datetime.time.fromisoformat(options.until)).timestamp()
    began, used, step, due, losses = time.time(), 0.0, 0, 0.0, []
    with (options.out / "log.jsonl").open("w") as log:
        while True:
            share = max(used / (60 * options.minutes), (time.time() - began) / (until - began))
            if used >= due or share >= 1:
                score = perplexity(run, model, task, "validation", options.windows, model.num_loops)
                row = {
                    "cpu_minutes": round(used / 60, 2),
                    "minutes": round((time.time() - began) / 60, 2),
                    "steps": step,
                    "tokens": step * options.batch * options.context,
                    "validation_perplexity": round(score, 3),
                    "train_loss": round(sum(losses) / len(losses), 4) if losses else None,
                }
                print(json.dumps(row), file=log, flush=True)
                due, losses = used + 60 * options.every, []
                model.save(options.out)
            if share >= 1:
                break
            start = time.process_time()
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = options.learning_rate * min(1, (step + 1) / 20, (1 - share) / 0.25)
            batch = task.batch("train", step, options.batch, seed=0)
            loops = (model.num_loops, model.num_loops)
            losses.append(train_step(fabric, scored, optimizers, batch, run, step, loops)["loss"])
            step, used = step + 1, used + time.process_time() - start
    by_loops = {
        loops: round(perplexity(run, model, task, "test", 2 * options.windows, loops), 3) for loops in options.loops
    }
    settings = {name: str(value) for name, value in vars(options).items()}
    end = {"test_perplexity": by_loops, "model": dataclasses.asdict(run.model), "settings": settings}
    write_atomic(options.out / "end.json", json.dumps(end, indent=2) + "\n")
    print(json.dumps(by_loops), flush=True)


def table(options: argparse.Namespace) -> None:
    """Write the lines of all folders into one file, and tables of them into the notes."""
    logs: dict[str, list[dict[str, Any]]] = {}
    for folder in options.folders:
        logs[folder.name] = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    rows = [{"run": name} | row for name, log in logs.items() for row in log]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    marks = range(0, 1 + int(max(log[-1]["cpu_minutes"] for log in logs.values())), options.step)
    lines = [*head("minutes of the processor", logs)]
    for mark in marks:
        scores = [
            next((r["validation_perplexity"] for r in log if r["cpu_minutes"] >= mark), "") for log in logs.values()
        ]
        lines.append(line(mark, scores))
    for name in ("validation_perplexity", "cpu_minutes", "steps", "tokens"):
        lines.append(line(f"{name.replace('_', ' ')} at the last line", [log[-1][name] for log in logs.values()]))
    ends = {f.name: json.loads((f / "end.json").read_text()) for f in options.folders if (f / "end.json").exists()}
    for name, end in ends.items():
        scores = end["test_perplexity"]
        lines += ["", *head(f"test perplexity of {name}, loops:", scores), line("", scores.values())]
    if options.notes:
        before, rest = options.notes.read_text().split(BEGIN)
        write_atomic(options.notes, before + BEGIN + "\n".join(["", *lines, ""]) + END + rest.split(END)[1])
    print("\n".join(lines))


def head(first: str, names: Iterable[str]) -> list[str]:
    """The first two lines of a table."""
    return [line(first, names), line("---", ["---" for _ in names])]


def line(first: object, cells: Iterable[object]) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, [first, *cells]))} |"


def main() -> None:
    """Train a run, or make the tables of several."""
    root = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = root.add_subparsers(required=True)
    tables = commands.add_parser("table")
    tables.set_defaults(command=table)
    tables.add_argument("folders", type=Path, nargs="+")
    tables.add_argument("--out", type=Path, required=True)
    tables.add_argument("--notes", type=Path, help="a file with the two marks between which the tables are written")
    tables.add_argument("--step", type=int, default=6, help="minutes between the rows of the table")
    parser = commands.add_parser("train")
    parser.set_defaults(command=heal)
    parser.add_argument("run", type=Path)
    for name in ("train", "validation", "test"):
        parser.add_argument(f"--{name}", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--until", default="23:59", help="the time of day at which training ends")
    parser.add_argument("--every", type=float, default=4, help="processor minutes between validations")
    parser.add_argument("--windows", type=int, default=32, help="windows of a validation")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="fp32")
    parser.add_argument("--loops", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--cache", default="prepared")
    options = root.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
