"""`looped inspect`: what happens inside the loop of a trained model, measured, and shown on a page."""

import json
from pathlib import Path
from typing import Literal

import tyro

from looped.analysis.measure import MEASURES, draw
from looped.files import write_atomic
from looped.report import report_inspection
from looped.runs import console
from looped.tasks import TASKS
from looped.training import load_run
from looped.training.devices import find_device
from looped.training.logger import environment


def inspect_run(
    run: tyro.conf.Positional[Path],
    out: Path | None = None,
    examples: int = 64,
    group: str | None = None,
    loops: int | None = None,
    split: Literal["validation", "test"] = "test",
    seed: int = 0,
) -> None:
    """Observation inside the loop of a run: loop_logits, states, stability, attention and modulation, loop by loop.

    Args:
        run: the run folder.
        out: folder for inspect.json, report.html, report.md and figures; none is inspect/ in the run folder.
        examples: to look at, at most; Jacobians, components and attention use the first of them.
        group: a length or a difficulty; none is the training distribution.
        loops: how many are run; none is twice those trained, or as trained where the modulation sees t / loops.
        split: which examples.
        seed: of the examples, and of everything random.
    """
    config, model, step = load_run(run)
    model.to(find_device("auto"))
    task = TASKS[config.task.name](config.task)
    sample = draw(model, task, loops=loops, examples=examples, group=group, split=split, seed=seed)
    numbers = {
        "run": run.resolve().name, "recipe": config.recipe, "task": config.task.name, "metric": task.metric,
        "lower_is_better": task.lower_is_better, "group": sample.group, "split": split, "step": step, "seed": seed,
        "examples": len(sample.batch.inputs), "trained_loops": config.model.num_loops, "loops": sample.loops,
    }  # fmt: skip
    with console.status("") as status:
        for number, (name, measure) in enumerate(MEASURES.items(), 1):
            status.update(f"{run}: {name} ({number} of {len(MEASURES)})")
            numbers |= measure(sample)
        numbers["environment"] = environment("fp32", sample.device)
        out = run / "inspect" if out is None else out
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "inspect.json", json.dumps(numbers) + "\n")
        status.update(f"{run}: figures")
        print(report_inspection(numbers, out))
