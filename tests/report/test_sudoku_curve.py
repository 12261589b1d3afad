"""The tables of docs/results.md on minutes and boards are those of the stored file."""

import json
from pathlib import Path
from typing import Any

import pytest

from looped.report.sudoku_figures import share_by_minutes

FOLDER = Path(__file__).resolve().parents[2] / "results/sudoku-laptop"
STORED = json.loads((FOLDER / "curve.json").read_text())
BOARDS = [row for row in STORED["rows"] if row["metric"] == "board"]
LAST = [row for row in BOARDS if row["step"] == max(row["step"] for row in BOARDS)]


def table(rows: list[dict[str, Any]], by: str, head: str) -> str:
    """A line for each value of `by` and a column for each band."""
    bands = list(dict.fromkeys(row["group"] for row in rows))
    lines = [f"| {head} | {' | '.join(bands)} |", f"|{'---:|' * (1 + len(bands))}"]
    for value in sorted({row[by] for row in rows}):
        found = {row["group"]: row["value"] for row in rows if row[by] == value}
        lines.append(f"| {value:g} | {' | '.join(f'{found[band]:.2f}' for band in bands)} |")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("rows", "by", "head"),
    [([row for row in BOARDS if row["num_loops"] == 128], "minutes", "minutes"), (LAST, "num_loops", "loops")],
)
def test_the_page_has_the_stored_numbers(rows: list[dict[str, Any]], by: str, head: str):
    assert len({row[by] for row in rows}) >= 3
    assert table(rows, by, head) in (FOLDER / "notes.md").read_text()


def test_the_figure_has_a_line_for_each_band():
    """Rows of another band add a line; rows of another number of loops do not."""
    shown, some = [share_by_minutes(rows, 128).count(b'id="line2d') for rows in (BOARDS, BOARDS + LAST)]
    assert shown == some
    fewer = [row for row in BOARDS if row["group"] != BOARDS[0]["group"]]
    assert share_by_minutes(fewer, 128).count(b'id="line2d') < shown
