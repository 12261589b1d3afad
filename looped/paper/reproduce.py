"""Runs of a table of the paper or of another work: estimate their cost, train, evaluate, and report."""

import contextlib
import dataclasses
import io
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from looped.config import RunConfig, ScheduleConfig
from looped.costs.count import logits_in_training, training_flops
from looped.recipes.work import Words, Work
from looped.run_folder import MetricsRow, RunTable, TrainRow, read_rows, write_file


def all_runs(table: Work) -> dict[Words, tuple[int, ...]]:
    """Every run of the table once: its recipe and options, and the loop counts for its evaluation (() is the default).

    Different rows of one run score different groups of it.
    """
    return {words: row.loops for row in table.rows for words in (row.published, row.words) if words}


def work_for(
    table: Work, out: Path, seeds: Sequence[int], options: Sequence[str]
) -> list[tuple[Path, list[list[str]]]]:
    """For every run of the table: its folder and the commands that fill it. The commands may be repeated."""
    work = []
    for words, loops in all_runs(table).items():
        for seed in seeds:
            folder = str(out / folder_name(words, seed))
            settings = [*words[1:], *options, "--train.seed", str(seed)]
            train = ["looped", "train", words[0], "--out", folder, "--resume", *settings]
            scored = ["--loops", *map(str, loops)] if loops else []
            scored += ["--examples", str(table.examples)] if table.examples else []
            work.append((Path(folder), [train, ["looped", "evaluate", folder, *scored]]))
    return work


def folder_name(words: Words, seed: int) -> str:
    """`lcs-looped@cpu-num-loops2-seed0` for the recipe lcs-looped@cpu with --model.num-loops 2."""
    options = [word.rpartition(".")[2] for word in words[1:]]
    changed = "".join(f"-{name}{value}" for name, value in zip(options[::2], options[1::2], strict=True))
    return f"{words[0]}{changed}-seed{seed}"


def write_table(table: Work, scale: str, command: str, out: Path, seeds: Sequence[int]) -> None:
    """Write table.json, which tells the report the runs of each cell."""

    def names(words: Words | None) -> list[str]:
        return [folder_name(words, seed) for seed in seeds] if words else []

    rows = [
        {"task": row.task, "model": row.model, "groups": list(row.groups), "paper": row.paper,
         "published": names(row.published), "corrected": names(row.words)}
        for row in table.rows
    ]  # fmt: skip
    claims = [
        {"task": claim.task, "says": claim.says, "groups": list(claim.groups), "first": names(claim.first),
         "second": names(claim.second), "goal": names(claim.goal)}
        for claim in table.claims
    ]  # fmt: skip
    content: dict[str, Any] = {
        "title": table.title, "source": table.source, "scale": scale, "command": command,
        "rows": rows, "claims": claims,
        "differs": list(table.differs), "published": [asdict(part) for part in table.published],
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write_file(out, RunTable, content)


def estimate(run: RunConfig) -> tuple[int, float]:
    """FLOPs of a whole training run, and its seconds, estimated from the best of three steps.

    The steps have at most 4,096 positions each, and as many loops as the last training step.

    Args:
        run: a configuration without sizes that are None.
    """
    from looped.training.trainer import train

    seq = run.model.max_seq_len
    assert seq is not None
    config = run.train
    loops = run.most_loops
    window = min(loops, run.schedule.num_grad_loops or loops)
    reads = logits_in_training(run, loops)
    flops = config.steps * config.batch_size * training_flops(run.model, seq, loops, window, reads)
    schedule = ScheduleConfig(num_grad_loops=run.schedule.num_grad_loops)
    short = dataclasses.replace(
        config, batch_size=max(1, min(config.batch_size, 4096 // seq)), accumulation=1, steps=3, workers=0, target=None,
        compile=False, log_every=1, eval_every=3, eval_examples=1, save_every=3,
    )  # fmt: skip
    optim = dataclasses.replace(run.optim, warmup_steps=0, constant_steps=0)
    model = dataclasses.replace(run.model, num_loops=loops * config.segments)
    trial = dataclasses.replace(run, model=model, train=short, schedule=schedule, optim=optim)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):  # no output
        train(trial, Path(folder) / "run")
        rows = read_rows(Path(folder) / "run", MetricsRow)
    rate = max(row.examples_per_s for row in rows if isinstance(row, TrainRow))
    return flops, config.steps * config.batch_size / rate
