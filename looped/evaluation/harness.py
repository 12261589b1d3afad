"""The tasks of lm-eval on a looped model, at several loop counts and exit rules."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from looped.evaluation.language_model import LoopedLM, Loops
from looped.printing import one_line
from looped.strict import nearest

SEED = 1234
"""For the choice of few-shot examples; as in lm-eval."""
BOOTSTRAP = 1000
"""Samples for a standard error without a formula, which is then right to 2%."""


def load_tasks(names: Sequence[str], include_path: Path | None, num_fewshot: int | None = None) -> dict[str, Any]:
    """The tasks, groups and tags of these names, as `lm_eval.evaluator.evaluate` takes them.

    Args:
        include_path: a folder with tasks as YAML files, which may have the names of lm-eval's own.
        num_fewshot: examples before each question; None is as the task says.

    Raises:
        ValueError: there is no such folder or task, or a task cannot be loaded; names it.
        OSError: the data of a task cannot be read or downloaded.
    """
    from lm_eval.tasks import TaskManager

    if include_path is not None and not include_path.is_dir():
        raise ValueError(f"{include_path}: no such folder; expected one with tasks as YAML files")
    own = str(include_path) if include_path else None
    manager = TaskManager(include_path=own, include_defaults=False)
    if not set(names) <= set(manager.all_subtasks):  # to list lm-eval's 14,000 tasks takes seconds
        manager = TaskManager(include_path=own)
    for name in names:
        if name not in manager.all_tasks:
            close = nearest(name, manager.all_tasks)
            raise ValueError(f"--tasks {name}: expected a task, group or tag of lm-eval{close}")
    try:
        loaded: Any = manager.load(list(names))
    except OSError:
        raise
    except Exception as error:  # whatever a task's file, data or code may raise
        raise ValueError(f"tasks {', '.join(names)}: cannot be loaded ({type(error).__name__}: {error})") from error
    for task in loaded["tasks"].values():
        own_number = task.get_config("num_fewshot")
        if num_fewshot is not None and own_number != 0:  # a task that says 0 is not defined with examples
            task.set_config(key="num_fewshot", value=num_fewshot)
        elif own_number is None:
            task.set_config(key="num_fewshot", value=0)
    return loaded


def scores(lm: LoopedLM, loaded: dict[str, Any], limit: float | None = None) -> Iterator[dict[str, Any]]:
    """Rows with the fields of `LMEvalRow`: all tasks at the first loop count, then at the next.

    Args:
        limit: documents of each task; below 1 the share of them.

    Raises:
        ValueError: the model cannot answer a task.
    """
    from lm_eval.evaluator import evaluate

    for loops in lm.settings:
        lm.loops = loops
        for task in loaded["tasks"].values():
            task.set_fewshot_seed(SEED)
        try:
            most: Any = limit
            found: Any = evaluate(lm, loaded, limit=most, bootstrap_iters=BOOTSTRAP, log_samples=False)
        except OverflowError:
            raise ValueError(f"{loops}: a perplexity is too large for a number; the model has diverged") from None
        for task, values in found["results"].items():
            yield from _rows(lm, loops, task, values, found)


def _rows(
    lm: LoopedLM, loops: Loops, task: str, values: dict[str, Any], found: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The rows of a task, whose scores have keys such as `acc,none` and `acc_stderr,none`."""
    taken = lm.taken.get((loops, task))
    for key, value in values.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        error = values.get(f"{metric}_stderr,{kind}")
        yield {
            "task": task,
            "metric": metric if kind == "none" else f"{metric} ({kind})",
            "num_loops": loops.num_loops,
            "exit_rule": None if loops.exit_rule is None else str(loops.exit_rule),
            "mean_loops": sum(taken) / len(taken) if taken else None,
            "value": float(value),
            "stderr": float(error) if isinstance(error, int | float) else None,
            "n": int(values["sample_len"]),
            "num_fewshot": int(found["n-shot"].get(task, 0)),
            "higher_is_better": found["higher_is_better"].get(task, {}).get(metric),
        }


def equal_scores(lm: LoopedLM, rows: Sequence[dict[str, Any]]) -> str | None:
    """A sentence if all scores are equal after all loop counts, as for a model that ignores them; else None."""
    fixed = [loops for loops in lm.settings if loops.exit_rule is None]
    tables = [
        [(row["task"], row["metric"], row["value"]) for row in rows if row["num_loops"] == n and not row["exit_rule"]]
        for n, _ in fixed
    ]
    if len(fixed) < 2 or any(table != tables[0] for table in tables):
        return None
    counts = ", ".join(str(loops.num_loops) for loops in fixed)
    if all(lm.given[loops] == lm.given[fixed[0]] for loops in fixed):
        return f"the model gives the same answers after {counts} loops: it ignores the number of loops"
    return f"all scores are equal after {counts} loops, although the answers differ: more documents may tell them apart"


class _Once(logging.Handler):
    """Prints each different warning of lm-eval once, as one line."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = one_line(record.getMessage())
        if text not in self.seen and "using default" not in text:  # a metric's own aggregation, for every task
            self.seen.add(text)
            print(f"lm-eval: {text}", file=sys.stderr)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without lm-eval's own messages, but with its warnings, once each."""
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # its processes for standard errors would load torch again
    logger, handler = logging.getLogger("lm_eval"), _Once()
    logger.addHandler(handler)
    try:
        with contextlib.redirect_stdout(StringIO()):
            yield
    finally:
        logger.removeHandler(handler)
