"""Run folders of models whose weights were written instead of trained."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from looped.config import RunConfig, check_fits
from looped.locks import locked
from looped.models.transformer import LoopedTransformer
from looped.run_data import write_data
from looped.run_folder import (
    CHECKPOINTS,
    Best,
    Environment,
    MetricsRow,
    Summary,
    open_run,
    write_config,
    write_file,
    write_rows,
)
from looped.strict import check
from looped.tasks import TASKS
from looped.tasks.base import Batch, Task
from looped.training import checkpoint
from looped.training.checkpoint import Progress
from looped.training.fabric import make_fabric
from looped.training.logger import environment
from looped.training.step import validate
from looped.training.trainer import summarise

PART, LOGITS = 16, 1 << 25  # at most, in a forward pass; small tensors stay in the processor's cache


def write_run(run: RunConfig, model: LoopedTransformer, folder: Path) -> dict[str, Any]:
    """Write a model into a new run folder, with one checkpoint of step 0. All commands read it like a trained run.

    The model is validated like a trained one, on `run.train.eval_examples` examples.

    Args:
        run: a configuration of 0 steps, on the cpu in fp32, with the model's configuration.

    Returns:
        The content of summary.json.

    Raises:
        ValueError: the folder already holds a run, another process writes into it, or the model is not for the task.
        OSError: a file cannot be written.
    """
    check(run.train.steps == 0, "train.steps", run.train.steps, "0, because nothing is trained")
    task = TASKS[run.task.name](run.task)
    check_fits(run.model, task)
    loops = run.model.num_loops
    with locked(folder, CHECKPOINTS):
        open_run(run, folder, resume=False)
        scores, examples = validated(run, model, task)
        best = Best(step=0, metric=task.metric, value=scores[task.metric])
        progress = Progress(best=best)
        write_data(run, task, folder)
        write_config(run, folder)
        write_file(folder, Environment, environment(run.train.precision, model.device))
        row = {"kind": "validation", "step": 0, "seconds": 0.0, "num_loops": loops, "scores": scores}
        write_rows(folder, MetricsRow, [row])
        checkpoint.save(folder, progress, model, (), None)
        write_file(folder, Best, asdict(best))
        summary = summarise(run, task, progress, loops, examples.inputs.shape[1], "steps")
        write_file(folder, Summary, summary)
        return summary


def validated(run: RunConfig, model: LoopedTransformer, task: Task) -> tuple[dict[str, float], Batch]:
    """The scores with the run's loops on `run.train.eval_examples` validation examples, and these examples."""
    examples = task.batch("validation", 0, run.train.eval_examples, seed=0)
    count, seq = examples.inputs.shape[:2]
    part = max(1, min(PART, count, LOGITS // (seq * (model.output_size or 1))))
    return validate(make_fabric(run), model, task, examples, run.model.num_loops, part), examples
