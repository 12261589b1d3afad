"""The section on a model in context beside algorithms: the nearest one after each loop."""

from pathlib import Path
from typing import Any

import pytest
from run_folders import eval_rows, write_lines, write_run

from looped.report import report
from looped.report.read import read_run

DIFFERENCES = {1: {"zero": 0.2, ("Newton", 1): 0.9, ("Newton", 4): 1.9, "ridge": 2.0},
               4: {"zero": 3.0, ("Newton", 1): 0.8, ("Newton", 4): 0.06, "ridge": 0.07},
               8: {"zero": 3.0, ("Newton", 1): float("nan"), ("Newton", 4): 0.5, "ridge": float("inf")}}  # fmt: skip


def write(root: Path) -> Path:
    scores = eval_rows({"standard": [9.0, 1.0], "scaled": [2.0, 2.0]}, [1, 4], 4, "squared_error")
    for row in scores:
        row.update(low=row["value"] - 0.02, high=row["value"] + 0.02)
    run = write_run(
        root / "run", recipe="v", task={"name": "in_context", "dim": 3, "points": 4}, trained=4, validation=0.5,
        metric="squared_error", lower_is_better=True, rows=scores,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for loops, found in DIFFERENCES.items():
        for key, value in found.items():
            name, steps = (key, None) if isinstance(key, str) else key
            rows.append({
                "group": "standard", "num_loops": loops, "algorithm": name, "steps": steps, "n": 9, "split": "test",
                "prediction_difference": value, "low": value, "high": value, "weight_difference": 7.0, "step": 3000,
            })  # fmt: skip
    nearer = {"prediction_difference": 0.0, "low": 0.0, "high": 0.0}
    other = [rows[1] | nearer | change for change in ({"group": "scaled"}, {"split": "validation"})]
    write_lines(run / "algorithms.jsonl", rows + other)
    return run


def test_the_nearest_algorithm_by_loop_on_the_first_groups_test_prompts(tmp_path: Path) -> None:
    write(tmp_path)
    text = report([tmp_path], tmp_path / "out").with_name("report.md").read_text()
    assert "With 4 loops v is nearest to Newton, 4 steps, at a mean squared difference of 0.060." in text
    lines = [line.split(" | ") for line in text.splitlines() if "Newton" in line or "zero" in line]
    near = {cells[1]: cells[2] for cells in lines if cells[0] == "| v"}
    assert near == {"1": "zero", "4": "Newton, 4 steps", "8": "Newton, 4 steps"}
    drawing = (tmp_path / "out/figures/in_context_nearest_algorithms.svg").read_text()
    assert all(f">{name}<" in drawing for name in ("zero", "Newton", "ridge"))


def test_runs_without_the_file_have_no_such_section(tmp_path: Path) -> None:
    run = write(tmp_path)
    (run / "algorithms.jsonl").unlink()
    assert "Nearest algorithm" not in report([tmp_path], tmp_path / "out").with_name("report.md").read_text()


def test_a_row_with_a_missing_number_is_refused(tmp_path: Path) -> None:
    run = write(tmp_path)
    write_lines(run / "algorithms.jsonl", [{"group": "standard", "num_loops": 1}])
    with pytest.raises(ValueError, match=r"algorithms\.jsonl:1: missing algorithm"):
        read_run(run)
