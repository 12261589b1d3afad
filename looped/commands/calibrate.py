"""`looped calibrate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional

from looped.commands.arguments import command
from looped.commands.output import Table, print_table, say
from looped.config import Device
from looped.run_folder import Calibration


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
    from looped.runs import calibrate_run

    rows: list[dict[str, Any]] = []
    found: dict[str, Any] | None = None
    try:
        found = calibrate_run(
            run, loops=loops, examples=examples, split=split, tolerance=tolerance, checkpoint=checkpoint, device=device,
            allow_outside=allow_outside, rows=rows,
        )  # fmt: skip
    finally:  # after an error or an interrupt: the rows that are known
        if rows:
            print_table(_table(run, split, rows, found))
    assert found is not None
    if found["warning"]:
        say(found["warning"])
    chosen, best = found["recommendation"], found["best"]
    name = chosen["exit_rule"] or f"{chosen['num_loops']} loops"
    faster = chosen["seconds_of_best"] / chosen["seconds"]
    say(
        f"recommended: {name}: {found['metric']} {chosen['value']:.4g} with {chosen['mean_loops']:.2f} mean loops, "
        f"against {best['value']:.4g} with {best['num_loops']}; wall time {chosen['seconds']:.3g} s against "
        f"{chosen['seconds_of_best']:.3g} s ({faster:.2f} times as fast)"
    )
    say(run / Calibration.file)


def _table(run: Path, split: str, rows: Sequence[dict[str, Any]], found: dict[str, Any] | None) -> Table:
    """The rows; `found` is None if the calibration did not come to its end."""
    title = (
        f"{run}: {found['metric']}, {split} split, {found['examples']} examples" if found else f"{run}: not finished"
    )
    table = Table(title=title)
    for heading in (
        "exit rule",
        "loops at most",
        "mean loops",
        found["metric"] if found else "score",
        "95% interval",
        "",
    ):
        table.add_column(heading, justify="left" if heading in ("exit rule", "") else "right")
    for row in rows:
        mark = ""
        if found:
            chosen = {key: found["recommendation"][key] for key in row}
            mark = "recommended" if row == chosen else "best loop count" if row == found["best"] else ""
        ends = f"{row['low']:.4g}-{row['high']:.4g}"
        loops = (str(row["num_loops"]), f"{row['mean_loops']:.2f}")
        table.add_row(row["exit_rule"] or "-", *loops, f"{row['value']:.4g}", ends, mark)
    return table


main = command(calibrate)
