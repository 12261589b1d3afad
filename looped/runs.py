"""The library's functions for run folders: evaluate a run, calibrate its loops, solve a file of problems."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.status import Status
from rich.text import Text

from looped.config import OWN_LOOPS, Device, ModelConfig, RunConfig
from looped.evaluation.answers import solve
from looped.evaluation.calibration import calibrate
from looped.evaluation.scores import EVALUATION_SEED, checked_loops, evaluate, predictor, visualisations
from looped.launch.world import find_world
from looped.locks import locked
from looped.models.exit_rules import ExitRule, learned_rule, parse_rule
from looped.models.graphs import share_graphs
from looped.models.transformer import LoopedTransformer
from looped.printing import printable
from looped.reading import read_text
from looped.run_data import answering_task, task_with_data
from looped.run_folder import (
    AnswersByLoop,
    Calibration,
    EvalRow,
    check_content,
    check_run_folder,
    read_file,
    write_file,
    write_lines,
    write_rows,
)
from looped.strict import check
from looped.tasks.base import SPLITS, Split, Task
from looped.training.checkpoint import load_run
from looped.training.devices import find_device
from looped.training.processes import made_together, together

CONFIDENCE = 20  # loops beyond those that an example needs, as published by Fan et al. (2024)
MOST_EXAMPLES = 10_000_000  # more would not end in a day


def _status(text: str) -> Status:
    """A line on standard error that says what is being computed."""
    quiet = Console().is_jupyter or not is_first()  # in a notebook the line would need a widget
    return Console(stderr=True, quiet=quiet, force_jupyter=False).status(Text(printable(text)))


class LoopSetting(NamedTuple):
    """The number of loops, and an exit rule that may end the loop earlier."""

    num_loops: int
    exit_rule: ExitRule | None


def recommended_setting(folder: Path, step: int) -> LoopSetting | None:
    """The recommendation of `looped calibrate` for a checkpoint; None if there is none for this step.

    Raises:
        ValueError: calibration.json is malformed.
    """
    path = folder / Calibration.file
    try:
        stored = read_file(folder, Calibration)
        if stored is None:
            return None
        chosen = stored.recommendation
        rule = None if chosen.exit_rule is None else parse_rule(chosen.exit_rule)
    except ValueError as error:
        message = str(error) if str(path) in str(error) else f"{path}: recommendation: {error}"
        raise ValueError(f"{message}; run `looped calibrate` again") from None
    if stored.step != step:
        print(f"{path}: of step {stored.step}, not {step}; not used", file=sys.stderr)
        return None
    description = f"exit rule {rule}, at most {chosen.num_loops} loops" if rule else f"{chosen.num_loops} loops"
    print(f"{description}, as {path} recommends", file=sys.stderr)
    return LoopSetting(chosen.num_loops, rule)


def loop_setting(
    folder: Path, config: ModelConfig, step: int, num_loops: int | None, exit_rule: str | None
) -> LoopSetting:
    """The loops as the arguments say. Without arguments: as `looped calibrate` recommends, or else as trained.

    Args:
        exit_rule: text, see `parse_rule`; "none" runs all loops.

    Raises:
        ValueError: the rule does not exist, or the model was not trained for it.
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
    allow_outside: bool = False,
    rows: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Find the loop count or exit rule to use, write calibration.json and return its content (see `calibrate`).

    Args:
        rows: a list that gets the rows as soon as they are known, so they are not lost if something fails later.
        loops: loop counts; the default is a range from 1 to twice the trained number. The trained number is always
            included.
        tolerance: largest loss of score; for errors, the largest relative increase.

    Raises:
        ValueError: as `evaluate_run`, and for a tolerance below 0.
    """
    check(tolerance >= 0, "tolerance", tolerance, "at least 0")
    with _opened(folder, examples, split, checkpoint, device, allow_outside) as (run, model, task, step):
        trained = run.model.num_loops
        counts = sorted({*(loops or default_loops(trained, run.model.most_loops)), trained})
        with _status(f"{folder}: {task.metric} by loop count and exit rule, up to {counts[-1]} loops"):
            found = calibrate(model, task, loops=counts, examples=examples, split=split, tolerance=tolerance, rows=rows)
        found |= {"step": step, "device": next(model.parameters()).device.type, "threads": torch.get_num_threads()}
        if is_first():
            write_file(folder, Calibration, found)
    return found


@contextlib.contextmanager
def _opened(
    folder: Path,
    examples: int,
    split: Split,
    checkpoint: Literal["best", "last"],
    device: Device,
    allow_outside: bool,
) -> Iterator[tuple[RunConfig, LoopedTransformer, Task, int]]:
    """A trained model on a device, its task and its step. Nobody else writes into the folder meanwhile.

    Processes that torchrun started get the same, each on a device of its own.
    """
    check(1 <= examples <= MOST_EXAMPLES, "examples", examples, f"at least 1, at most {MOST_EXAMPLES}")
    check(split in SPLITS, "split", split, f"one of {', '.join(SPLITS)}")
    check_run_folder(folder)
    world, kind = find_world(), find_device(device)
    with together() as processes, locked(folder) if is_first() else contextlib.nullcontext():
        run, model, step = load_run(folder, checkpoint)
        model.to(torch.device(kind, world.local_rank) if world and kind == "cuda" else kind)
        task = made_together(lambda: task_with_data(run, folder, allow_outside=allow_outside))
        share_graphs(model, task.graphs)
        if processes:
            processes.connect(torch.device("cpu"))  # what they exchange is on the cpu
        yield run, model, task, step


def is_first() -> bool:
    """Whether this process is the one that writes, among those that torchrun started."""
    world = find_world()
    return world is None or world.rank == 0


def evaluate_run(
    folder: Path,
    *,
    loops: Sequence[int] = (),
    exit_rule: str | None = None,
    confidence: int | None = None,
    examples: int = 1024,
    groups: Sequence[str] | None = None,
    split: Split = "test",
    checkpoint: Literal["best", "last"] = "best",
    device: Device = "auto",
    allow_outside: bool = False,
    rows: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Evaluate a run folder and return the rows of eval.jsonl.

    Writes eval.jsonl, answers_by_loop.json and the files of `Task.extra_evaluation`. Processes that torchrun started
    share the examples; the rows are the same.

    Args:
        loops: loop counts; the default is a range from 1 to twice the trained number, or to 8.
        exit_rule: a rule to score in addition; None is the recommended one, or no rule if `loops` are given.
        confidence: also choose the most confident loop count, among those up to so many more than an example needs.
            None does so with CONFIDENCE if the examples had their own loops in training (train.loss=task).
        examples: the largest number of examples in each group.
        groups: different groups of the task; None is all of them.
        allow_outside: see `run_data.task_with_data`.
        rows: a list that gets the rows of each group as soon as they are known, so they are not lost if something
            fails later.

    Raises:
        ValueError: no run folder, no checkpoint, no such device, impossible loop counts, an unknown group or rule; the
            data is missing, changed or outside; another process writes into the folder.
    """
    rows = [] if rows is None else rows
    with _opened(folder, examples, split, checkpoint, device, allow_outside) as (run, model, task, step):
        groups = groups or task.groups
        for group in groups:
            check(group in task.groups, "group", group, f"one of {', '.join(task.groups)}")
        check(len(set(groups)) == len(groups), "groups", list(groups), "different groups")
        counts = checked_loops(model, loops or default_loops(run.model.num_loops, run.model.most_loops))
        setting = loop_setting(folder, run.model, step, None, "none" if loops and exit_rule is None else exit_rule)
        early = None if setting.exit_rule is None else (setting.num_loops, setting.exit_rule)
        if confidence is None and run.train.loss in OWN_LOOPS:
            confidence = CONFIDENCE
        answers = {
            "trained_loops": run.model.num_loops,
            "examples": visualisations(model, task, loops=min(counts[-1], max(run.model.num_loops, 4))),
        }
        check_content(folder, AnswersByLoop, answers)  # the user's own `visualise` may be wrong: say so before the work
        for group in groups:
            with _status(f"{folder}: {task.metric} for {group}, {counts[0]} to {counts[-1]} loops"):
                found = evaluate(
                    model, task, loops=counts, examples=examples, groups=[group], split=split, early=early,
                    confidence=confidence,
                )  # fmt: skip
                rows += [row | {"step": step} for row in found]
        trained = run.model.num_loops
        some = [n for n in counts if n in (1, trained // 2, trained, 2 * trained)] or counts
        extra = task.extra_evaluation(predictor(model), loops=some, split=split, group=groups[0], seed=EVALUATION_SEED)
        if is_first():
            for name, found in extra.items():
                with _status(f"{folder}: {name}"):
                    write_lines(folder / name, [row | {"step": step} for row in found])
            write_file(folder, AnswersByLoop, answers, indent=None)
            write_rows(folder, EvalRow, rows)
    return rows


def default_loops(trained: int, most: int | None = None) -> list[int]:
    """All loop counts up to 8, then some up to twice the trained number, but at most `most`."""
    end = max(2 * trained, 8)
    far = range(40, end + 1, max(20, end // 20))  # never more than 20 counts
    counts = [*range(1, 9), *range(10, 17, 2), *range(20, 33, 4), *far, trained, end]
    return sorted({n for n in counts if n <= end and (most is None or n <= most)})


def solve_file(
    folder: Path,
    source: str,
    *,
    num_loops: int | None = None,
    exit_rule: str | None = None,
    on_bad_row: Literal["stop", "skip"] = "stop",
    attempts: int = 1,
) -> tuple[list[dict[str, Any]], int]:
    """The answers of a trained model to the problems in a file, and the number of skipped rows.

    An answer has the keys input, answer, valid, confidence and expected, and attempt with attempts > 1. `expected` is
    the solution of the task's own solver, or ''. The loops are chosen as in `loop_setting`.

    Args:
        source: path of the file; `-` is standard input.
        on_bad_row: stop at a bad row, or skip and count it.
        attempts: the largest number of initial states, see `solve`.

    Raises:
        ValueError: no run folder; a bad row (on_bad_row=stop); no problem in the file; attempts that the task or the
            model does not allow.
    """
    run, model, step = load_run(folder)
    task = answering_task(run, folder)
    share_graphs(model, task.graphs)
    if run.train.loss in OWN_LOOPS and num_loops is None and exit_rule is None:
        loops, rule = None, None  # as many as the task says that each problem needs
    else:
        loops, rule = loop_setting(folder, run.model, step, num_loops, exit_rule)
    name = "standard input" if source == "-" else source
    text = _standard_input() if source == "-" else read_text(Path(source))
    lines = [line.removesuffix("\r") for line in text.split("\n")]  # unlike splitlines, only a line feed ends a line
    problems, skipped = task.read(lines, name, on_bad_row)
    answers = solve(model, task, problems, num_loops=loops, exit_rule=rule, attempts=attempts)
    return [{**task.to_text(problem), **answer} for problem, answer in answers], skipped


def _standard_input() -> str:
    if sys.stdin is None or sys.stdin.closed:
        raise ValueError("standard input: closed; expected problems, one a line")
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input: not UTF-8 text (byte {error.start})") from None
