"""Run folders of models whose weights were written instead of trained."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from looped.config import RunConfig, check_fits
from looped.files import new_folder
from looped.locks import locked
from looped.models.transformer import LoopedTransformer
from looped.run_data import FILES, write_data
from looped.run_folder import (
    CHECKPOINTS,
    CONFIG,
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


def write_run(
    run: RunConfig, model: LoopedTransformer, folder: Path, *, take_tokenizer: bool = False
) -> dict[str, Any]:
    """Write a model into a new run folder, with one checkpoint of step 0. All commands read it like a trained run.

    The model is validated like a trained one, on `run.train.eval_examples` examples, if the task has data.

    Args:
        run: a configuration of 0 steps, on the cpu in fp32, with the model's configuration.
        take_tokenizer: copy the tokenizer that `run.task` names into the folder, and let the new run name its copy.

    Returns:
        The content of summary.json.

    Raises:
        ValueError: the folder already holds a run, another process writes into it, or the model is not for the task.
        OSError: a file cannot be written.
    """
    check(run.train.steps == 0, "train.steps", run.train.steps, "0, because nothing is trained")
    with locked(folder, CHECKPOINTS):
        open_run(run, folder, resume=False)
        try:
            return _write(_with_tokenizer(run, folder) if take_tokenizer else run, model, folder)
        finally:
            if not (folder / CONFIG).exists():
                shutil.rmtree(folder / FILES, ignore_errors=True)


def _with_tokenizer(run: RunConfig, folder: Path) -> RunConfig:
    """The run with a tokenizer of its own: a copy in its folder."""
    named: Any = run.task
    task, most = TASKS[run.task.name].answering(run.task), run.model.vocab_size or 0
    size = task.spec.vocab_size or 0
    if size > most:
        raise ValueError(f"{named.tokenizer}: has {size:,} tokens; expected at most {most:,}, which the model can read")
    with new_folder(folder / FILES) as new:
        task.save(new)
    (copy,) = (folder / FILES).iterdir()
    return replace(run, task=replace(named, tokenizer=str(copy)))


def _write(run: RunConfig, model: LoopedTransformer, folder: Path) -> dict[str, Any]:
    """Validate the model, and write all files. Only config.json makes the folder a run folder."""
    kind, loops = TASKS[run.task.name], run.model.num_loops
    task = kind(run.task) if run.task.has_data else kind.answering(run.task)
    check_fits(run.model, task)
    best, rows, seq = None, [], run.model.max_seq_len or 1
    if run.task.has_data:
        scores, examples = validated(run, model, task)
        best, seq = Best(step=0, metric=task.metric, value=scores[task.metric]), examples.inputs.shape[1]
        rows = [{"kind": "validation", "step": 0, "seconds": 0.0, "num_loops": loops, "scores": scores}]
    progress = Progress(best=best)
    write_data(run, task, folder)
    write_config(run, folder)
    write_file(folder, Environment, environment(run.train.precision, model.device))
    write_rows(folder, MetricsRow, rows)
    checkpoint.save(folder, progress, model, (), None)
    if best is not None:
        write_file(folder, Best, asdict(best))
    summary = summarise(run, task, progress, loops, seq, "steps")
    write_file(folder, Summary, summary)
    return summary


def validated(run: RunConfig, model: LoopedTransformer, task: Task) -> tuple[dict[str, float], Batch]:
    """The scores with the run's loops on `run.train.eval_examples` validation examples, and these examples."""
    examples = task.batch("validation", 0, run.train.eval_examples, seed=0)
    count, seq = examples.inputs.shape[:2]
    part = max(1, min(PART, count, LOGITS // (seq * (model.output_size or 1))))
    return validate(make_fabric(run), model, task, examples, run.model.num_loops, part), examples
