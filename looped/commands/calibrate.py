"""`looped calibrate`."""

from pathlib import Path
from typing import Literal

from rich.table import Table
from tyro.conf import Positional

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
) -> None:
    """Choose the loop count or exit rule that other commands then use for a run.

    Chosen is the fewest mean loops whose score is within the tolerance of the best loop count's.

    Args:
        run: the run folder.
        loops: loop counts to try, below and beyond those trained; none is a range from 1 to twice those trained.
        examples: at most.
        split: which examples.
        tolerance: what the score may lose against the best loop count; of an error, the share by which it may grow.
        checkpoint: the best by validation, or the last.
        device: where to compute; auto is the fastest kind at hand.
    """
    found = calibrate_run(
        run, loops=loops, examples=examples, split=split, tolerance=tolerance, checkpoint=checkpoint, device=device
    )
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
