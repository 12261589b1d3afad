"""`looped calibrate`."""

from pathlib import Path
from typing import Annotated, Literal

from rich.table import Table
from tyro.conf import FlagCreatePairsOff, Positional

from looped.commands.arguments import command
from looped.commands.output import print_table
from looped.run_folder import Calibration
from looped.runs import calibrate_run
from looped.training.devices import Device


def calibrate(
    run: Positional[Path],
    loops: tuple[int, ...] = (),
    examples: int = 1024,
    split: Literal["validation", "test"] = "validation",
    tolerance: float = 0.005,
    checkpoint: Literal["best", "last"] = "best",
    device: Device = "auto",
    allow_outside: Annotated[bool, FlagCreatePairsOff] = False,
) -> None:
    """Choose the loop count or exit rule that other commands then use for a run.

    It chooses the setting with the fewest mean loops among those that score within the tolerance of the best loop
    count.

    Args:
        run: the run folder.
        loops: loop counts to try; the default is a range from 1 to twice the trained number.
        examples: the largest number of examples.
        split: the split of the examples.
        tolerance: largest loss of score against the best loop count; for errors, the largest relative increase.
        checkpoint: the best by validation, or the last.
        device: where to compute; auto is the fastest available kind.
        allow_outside: use files outside the working folder that config.json names, if you trust the run folder.
    """
    found = calibrate_run(
        run, loops=loops, examples=examples, split=split, tolerance=tolerance, checkpoint=checkpoint, device=device,
        allow_outside=allow_outside,
    )  # fmt: skip
    table = Table(title=f"{run}: {found['metric']}, {split} split, {found['examples']} examples")
    for heading in ("exit rule", "loops at most", "mean loops", found["metric"], "95% interval", ""):
        table.add_column(heading, justify="left" if heading in ("exit rule", "") else "right")
    chosen, best = found["recommendation"], found["best"]
    for row in found["rows"]:
        same = {key: chosen[key] for key in row} == row
        mark = "recommended" if same else "best loop count" if row == best else ""
        ends = f"{row['low']:.4g}-{row['high']:.4g}"
        score = f"{row['value']:.4g}"
        table.add_row(row["exit_rule"] or "-", str(row["num_loops"]), f"{row['mean_loops']:.2f}", score, ends, mark)
    print_table(table)
    if found["warning"]:
        print(found["warning"])
    name = chosen["exit_rule"] or f"{chosen['num_loops']} loops"
    faster = chosen["seconds_of_best"] / chosen["seconds"]
    print(
        f"recommended: {name}: {found['metric']} {chosen['value']:.4g} with {chosen['mean_loops']:.2f} mean loops, "
        f"against {best['value']:.4g} with {best['num_loops']}; wall time {chosen['seconds']:.3g} s against "
        f"{chosen['seconds_of_best']:.3g} s ({faster:.2f} times as fast)"
    )
    print(run / Calibration.file)


main = command(calibrate)
