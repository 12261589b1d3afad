"""`looped inspect`."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.text import Text
from tyro.conf import FlagCreatePairsOff, Positional

from looped.commands.arguments import command
from looped.commands.output import Table, print_table, say
from looped.files import write_atomic
from looped.locks import locked
from looped.printing import printable
from looped.run_data import task_with_data
from looped.run_folder import check_run_folder
from looped.schemas.inspection import Inspection


def inspect(
    run: Positional[Path],
    out: Path | None = None,
    examples: int = 64,
    group: str | None = None,
    loops: int | None = None,
    split: Literal["validation", "test"] = "test",
    seed: int = 0,
    allow_outside: Annotated[bool, FlagCreatePairsOff] = False,
) -> None:
    """Measure the inside of a run's loop: loop logits, states, stability, attention and modulation.

    Args:
        run: the run folder.
        out: folder for inspect.json, report.html, report.md and figures; the default is inspect/ in the run folder.
        examples: the largest number of examples; Jacobians, components and attention use only the first of them.
        group: a length or a difficulty; the default is the training distribution.
        loops: number of loops; the default is twice the trained number, or the trained number if the modulation depends
            on t / num_loops.
        split: the split of the examples.
        seed: seed of the examples and of all random vectors.
        allow_outside: use files outside the working folder that config.json names, if you trust the run folder.
    """
    from looped.analysis.measure import take_sample
    from looped.models.graphs import share_graphs
    from looped.training.checkpoint import load_run
    from looped.training.devices import find_device

    check_run_folder(run)
    out = run / "inspect" if out is None else out
    with locked(out, "figures"):
        config, model, step = load_run(run)
        model.to(find_device("auto"))
        task = task_with_data(config, run, allow_outside=allow_outside)
        share_graphs(model, task.graphs)
        sample = take_sample(model, task, loops=loops, examples=examples, group=group, split=split, seed=seed)
        numbers = {
            "run": run.resolve().name, "recipe": config.recipe, "task": config.task.name, "metric": task.pass_metric,
            "lower_is_better": task.lower_is_better, "group": sample.group, "split": split, "step": step, "seed": seed,
            "examples": len(sample.batch.inputs), "trained_loops": config.model.num_loops, "loops": sample.loops,
        }  # fmt: skip
        try:
            _measure(run, sample, numbers, out)
        except BaseException:
            if "score" in numbers:  # the first measurement is done
                print_table(_table(numbers))
            raise


def _measure(run: Path, sample: Any, numbers: dict[str, Any], out: Path) -> None:
    """Add all measurements to `numbers`, and write inspect.json and the page."""
    from looped.analysis.measure import MEASURES, finite
    from looped.report import report_inspection
    from looped.training.logger import environment

    with Console(stderr=True).status("") as status:
        for number, (name, measure) in enumerate(MEASURES.items(), 1):
            status.update(Text(printable(f"{run}: {name} ({number} of {len(MEASURES)})")))
            numbers |= finite(measure(sample))
        numbers["environment"] = environment("fp32", sample.device)
        write_atomic(out / Inspection.file, json.dumps(numbers) + "\n")
        status.update(Text(printable(f"{run}: figures")))
        page = report_inspection(numbers, out)
    say(page)


def _table(numbers: dict[str, Any]) -> Table:
    """The score by loop, printed if the page cannot be written."""
    table = Table("loop", numbers["metric"], "95% interval", title=f"{numbers['run']}: not finished")
    for loop, ends in enumerate(zip(*(numbers["score"][key] for key in ("value", "low", "high")), strict=True), 1):
        value, low, high = ("not finite" if end is None else f"{end:.4g}" for end in ends)
        table.add_row(str(loop), value, f"{low}-{high}")
    return table


main = command(inspect)
