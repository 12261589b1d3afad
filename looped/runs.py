"""Run folders after training: evaluated, used on new problems, and compared."""

import csv
import io
import itertools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console

from looped.config import ModelConfig, RunConfig
from looped.evaluation.calibration import calibrate
from looped.evaluation.scores import EVALUATION_SEED, evaluate, predictor, solve, visualisations
from looped.files import read_text, write_atomic
from looped.models.exit_rules import ExitRule, learned_rule, parse_rule
from looped.models.transformer import LoopedTransformer
from looped.tasks import TASKS
from looped.tasks.base import SPLITS, Split, Task
from looped.training.checkpoint import load_run
from looped.training.devices import Device, find_device
from looped.training.run_folder import SUMMARY, read_json, write_json
from looped.user_code import import_words

EVAL, ANSWERS_BY_LOOP, CALIBRATION = "eval.jsonl", "answers_by_loop.json", "calibration.json"
console = Console(stderr=True)


class LoopSetting(NamedTuple):
    """How often a model loops: at most so often, and less where a rule lets it leave."""

    num_loops: int
    exit_rule: ExitRule | None


def recommended_setting(folder: Path, step: int) -> LoopSetting | None:
    """What `looped calibrate` recommends for a checkpoint; None where it was not run.

    Raises:
        ValueError: where calibration.json is malformed.
    """
    if not (folder / CALIBRATION).exists():
        return None
    stored = read_json(folder / CALIBRATION)
    try:
        chosen = stored["recommendation"]
        rule = None if chosen["exit_rule"] is None else parse_rule(chosen["exit_rule"])
        depth, measured = LoopSetting(int(chosen["num_loops"]), rule), int(stored["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / CALIBRATION}: expected what `looped calibrate` writes ({error})") from None
    if measured != step:
        print(f"{folder / CALIBRATION}: of step {measured}, not {step}; not used", file=sys.stderr)
        return None
    how = f"exit rule {rule}, at most {depth.num_loops} loops" if rule else f"{depth.num_loops} loops"
    print(f"{how}, as {folder / CALIBRATION} recommends", file=sys.stderr)
    return depth


def loop_setting(
    folder: Path, config: ModelConfig, step: int, num_loops: int | None, exit_rule: str | None
) -> LoopSetting:
    """How often to loop: as asked; else, where nothing was asked, as recommended; else as trained.

    Args:
        exit_rule: text, see `parse_rule`; none lets nobody leave.

    Raises:
        ValueError: for a rule that there is not, or that the model was not trained for.
    """
    if num_loops is None and exit_rule is None and (recommended := recommended_setting(folder, step)):
        return recommended
    rule = learned_rule(config) if exit_rule is None else None if exit_rule == "none" else parse_rule(exit_rule)
    if rule is not None:
        rule.check(config)
    return LoopSetting(config.num_loops if num_loops is None else num_loops, rule)


def calibrate_run(
    folder: Path,
    *,
    loops: Sequence[int] = (),
    examples: int = 1024,
    split: Split = "validation",
    tolerance: float = 0.005,
    checkpoint: Literal["best", "last"] = "best",
    device: Device = "auto",
) -> dict[str, Any]:
    """Choose how often a trained model loops, into calibration.json, whose content is returned (see `calibrate`).

    Raises:
        ValueError: as `evaluate_run`, and for a tolerance below 0.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance}: expected at least 0")
    run, model, task, step = _opened(folder, examples, split, checkpoint, device)
    trained = run.model.num_loops
    counts = sorted({*(loops or default_loops(trained, run.model.max_loops)), trained})
    with console.status(f"{folder}: {task.metric} by loop count and exit rule, up to {counts[-1]} loops"):
        found = calibrate(model, task, loops=counts, examples=examples, split=split, tolerance=tolerance)
    found |= {"step": step, "device": next(model.parameters()).device.type, "threads": torch.get_num_threads()}
    write_json(folder / CALIBRATION, found)
    return found


def _opened(
    folder: Path, examples: int, split: Split, checkpoint: Literal["best", "last"], device: Device
) -> tuple[RunConfig, LoopedTransformer, Task, int]:
    """A trained model on a device, its task and its step."""
    if examples < 1:
        raise ValueError(f"examples={examples}: expected at least 1")
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: expected one of {', '.join(SPLITS)}")
    run, model, step = load_run(folder, checkpoint)
    model.to(find_device(device))
    return run, model, TASKS[run.task.name](run.task), step


def evaluate_run(
    folder: Path,
    *,
    loops: Sequence[int] = (),
    exit_rule: str | None = None,
    examples: int = 1024,
    groups: Sequence[str] | None = None,
    split: Split = "test",
    checkpoint: Literal["best", "last"] = "best",
    device: Device = "auto",
) -> list[dict[str, Any]]:
    """Evaluate a run folder into eval.jsonl (whose rows are returned), answers_by_loop.json and what the task adds.

    Args:
        loops: loop counts; none is a range from 1 to beyond those trained.
        exit_rule: also score with this rule; None is the recommended one, unless `loops` are given.
        examples: in each group, at most.

    Raises:
        ValueError: no run folder, no checkpoint, no such device, impossible loop counts, an unknown group or rule.
    """
    run, model, task, step = _opened(folder, examples, split, checkpoint, device)
    rows = []
    counts = sorted(loops) or default_loops(run.model.num_loops, run.model.max_loops)
    most, rule = loop_setting(folder, run.model, step, None, "none" if loops and exit_rule is None else exit_rule)
    early = None if rule is None else (most, rule)
    for group in task.groups if groups is None else groups:
        with console.status(f"{folder}: {task.metric} for {group}, {counts[0]} to {counts[-1]} loops"):
            found = evaluate(model, task, loops=counts, examples=examples, groups=[group], split=split, early=early)
            for row in found:
                rows.append({**row, "step": step})
    thinking = {
        "trained_loops": run.model.num_loops,
        "examples": visualisations(model, task, loops=min(counts[-1], max(run.model.num_loops, 4))),
    }
    trained = run.model.num_loops
    some = [n for n in counts if n in (1, trained // 2, trained, 2 * trained)] or counts
    extra = task.extra_evaluation(
        predictor(model), loops=some, split=split, group=rows[0]["group"], seed=EVALUATION_SEED
    )
    for name, found in extra.items():
        with console.status(f"{folder}: {name}"):
            text = "".join(json.dumps({**row, "step": step}) + "\n" for row in found)
        write_atomic(folder / name, text)
    write_atomic(folder / ANSWERS_BY_LOOP, json.dumps(thinking) + "\n")
    write_atomic(folder / EVAL, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def default_loops(trained: int, most: int | None = None) -> list[int]:
    """All loop counts up to 8, then some up to twice those trained: below and beyond."""
    end = max(2 * trained, 8)
    counts = [*range(1, 9), *range(10, 17, 2), *range(20, 33, 4), *range(40, end + 1, 20), trained, end]
    return sorted({n for n in counts if n <= end and (most is None or n <= most)})


def solve_file(
    folder: Path,
    source: str,
    *,
    num_loops: int | None = None,
    exit_rule: str | None = None,
    on_bad_row: Literal["stop", "skip"] = "stop",
) -> tuple[list[dict[str, Any]], int]:
    """A trained model's answers to the problems in a file (or on standard input, `-`), and the rows skipped.

    Each answer has the keys input, answer, valid, confidence, expected (what the task's own solver says). The loops are
    as `loop_setting` says.

    Raises:
        ValueError: no run folder; a bad row (on_bad_row=stop); nothing to solve.
    """
    run, model, step = load_run(folder)
    task = TASKS[run.task.name](run.task)
    depth = loop_setting(folder, run.model, step, num_loops, exit_rule)
    if source == "-":
        try:
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"standard input: not UTF-8 text (byte {error.start})") from None
    else:
        text = read_text(Path(source))
    problems, skipped = task.read(text.splitlines(), "standard input" if source == "-" else source, on_bad_row)
    answers = solve(model, task, problems, num_loops=depth.num_loops, exit_rule=depth.exit_rule)
    return [{**task.to_text(problem), **answer} for problem, answer in answers], skipped


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def commands(
    recipes: Sequence[str], out: Path, *, seeds: Sequence[int], learning_rates: Sequence[float], options: Sequence[str]
) -> Iterator[tuple[Path, list[list[str]]]]:
    """For each recipe, learning rate and seed: the run folder, and the commands that fill it one after another.

    The commands may be repeated at will: a run that was interrupted continues, one that is done stays as it is.
    """
    for name, rate, seed in itertools.product(recipes, learning_rates or [None], seeds):
        folder = out / "-".join([name, *([f"lr{rate:g}"] if rate else []), f"seed{seed}"])
        settings = [*options, "--train.seed", str(seed), *(["--optim.learning-rate", f"{rate:g}"] if rate else [])]
        yield (
            folder,
            [
                ["looped", "train", name, "--out", str(folder), "--resume", *settings],
                ["looped", "evaluate", str(folder)],
            ],
        )


def shown(line: Sequence[str]) -> str:
    """A command `looped ...` as it is typed, with the user's code that it needs."""
    return shlex.join([line[0], *import_words(), *line[1:]])


def run_commands(work: Sequence[tuple[Path, list[list[str]]]], jobs: int) -> list[str]:
    """Run the commands of each folder, `jobs` folders at a time, with the cores divided among them.

    What a run prints goes to log.txt in its folder. Returns one line for each run that failed; the others go on.
    An interrupt lets every running training save and end.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    running: dict[Path, subprocess.Popen[bytes]] = {}

    def run(folder: Path, lines: list[list[str]]) -> str | None:
        folder.mkdir(parents=True, exist_ok=True)
        for line in lines:
            if line[1] == "evaluate" and _evaluated(folder):
                continue
            with (folder / "log.txt").open("a") as log:
                # A session of its own: Ctrl-C comes to this process alone, which passes it on once.
                running[folder] = subprocess.Popen(
                    [sys.executable, "-m", "looped.cli", *import_words(), *line[1:]],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
                )  # fmt: skip
            failed = running[folder].wait()
            del running[folder]
            if failed:
                return f"{folder}: {_last_line(folder / 'log.txt')}"
        return None

    failed = []
    with ThreadPoolExecutor(jobs) as pool, console.status(f"0/{len(work)} runs done") as status:
        futures = {pool.submit(run, *item): item[0] for item in work}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                failure, folder = future.result(), futures[future]
                failed += [failure] if failure else []
                console.print(f"{done}/{len(work)} {folder.name}: {'failed' if failure else _score(folder)}")
                status.update(f"{done}/{len(work)} runs done")
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running.values()):
                process.terminate()
            raise
    return failed


def _evaluated(folder: Path) -> bool:
    """Whether the run was evaluated since it ended."""
    scores, end = folder / EVAL, folder / SUMMARY
    return scores.exists() and scores.stat().st_mtime_ns >= end.stat().st_mtime_ns


def _score(folder: Path) -> str:
    summary = read_json(folder / SUMMARY)
    best = summary["best"] or {"metric": summary["metric"], "value": float("nan")}
    return f"validation {best['metric']} {best['value']:.3f} after {summary['steps']} steps, {summary['seconds']:.0f} s"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
