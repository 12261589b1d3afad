"""`looped solve`."""

import json
import sys
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from looped.commands.arguments import command
from looped.commands.output import output
from looped.printing import csv_text
from looped.strict import at_least


def solve(
    run: Positional[Path],
    file: Positional[str],
    out: Path | None = None,
    format: Literal["csv", "jsonl"] = "csv",
    num_loops: int | None = None,
    exit_rule: str | None = None,
    attempts: int = 1,
    on_bad_row: Literal["stop", "skip"] = "stop",
) -> None:
    """Answer your own puzzles, pairs of strings, countdown problems or tables with a trained model.

    Args:
        run: the run folder.
        file: one problem a line, also in JSON for countdown, Sudoku in the formats of training, or a table (some rows
            without the last value, or that of task.target); plain, .xz or .gz; - is standard input.
        out: file for the answers; the default is standard output.
        format: format of the answers. In csv, a text that a spreadsheet would run as a formula gets an apostrophe.
        num_loops: the largest number of loops; the default is the recommendation of `looped calibrate`, or else the
            trained number.
        exit_rule: such as kl:0.01, change:0.1, entropy:0.1, unchanged:2 or none; the default is the recommendation.
        attempts: the largest number of tries. An answer that breaks the rules of the task is computed again from a
            random initial state, until one obeys them.
        on_bad_row: stop at a bad row, or skip and count it.
    """
    from looped.runs import solve_file

    at_least(1, num_loops=num_loops, attempts=attempts)
    with output(out) as write:
        rows, skipped = solve_file(
            run, file, num_loops=num_loops, exit_rule=exit_rule, on_bad_row=on_bad_row, attempts=attempts
        )
        write(csv_text(list(rows[0]), rows) if format == "csv" else "".join(json.dumps(row) + "\n" for row in rows))
    if skipped:
        print(f"{skipped} bad {'row' if skipped == 1 else 'rows'} skipped", file=sys.stderr)


main = command(solve)
