"""Reports of tasks whose scores are errors: what is lowest is best, and nothing is cut off at one."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from run_folders import eval_rows, write_lines, write_run

from looped.report import figures, report
from looped.report.answers_by_loop import visualise_run
from looped.report.comparison import Problem, problems
from looped.report.content import number
from looped.report.read import read_run, read_runs

TASK = {"name": "in_context", "dim": 3, "points": 4}


def write(root: Path, recipe: str, errors: Sequence[float], learning_rate: float = 1e-3, **settings: Any) -> None:
    """One finished run per seed; its error is twice as large on another group."""
    for seed, error in enumerate(errors):
        values: dict[str, Any] = {"validation": error, "task": TASK, **settings}
        rows = eval_rows({"standard": [9 * error, error], "scaled": [2 * error] * 2}, [1, 4], 4, "squared_error")
        for row in rows:
            row.update(low=row["value"] - 0.02, high=row["value"] + 0.02)
        write_run(
            root / f"{recipe}-{learning_rate}-{seed}", recipe=recipe, trained=4, seed=seed, rows=rows,
            learning_rate=learning_rate, metric="squared_error", lower_is_better=True, **values,
        )  # fmt: skip


def only_problem(root: Path) -> Problem:
    (problem,) = problems(read_runs([root]))
    return problem


def text_of(root: Path) -> str:
    return report([root], root / "out").with_name("report.md").read_text()


def test_the_learning_rate_with_the_lowest_validation_error_is_chosen(tmp_path: Path) -> None:
    write(tmp_path, "v", [1.5, 1.6], 1e-3, validation=1.2)
    write(tmp_path, "v", [1.1, 1.2], 2e-3, validation=1.3)
    problem = only_problem(tmp_path)
    (variant,) = problem.variants
    assert problem.lower_is_better
    assert variant.learning_rate == 1e-3
    assert "| v | 0.001 | ✓ | 2 | 1.200 | 1.550" in text_of(tmp_path)


def test_intervals_have_no_upper_bound_and_shifted_groups_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, "v", [3.0, 4.0])
    problem = only_problem(tmp_path)
    estimate = problem.headline(problem.variants[0])
    assert problem.groups == ("standard",)
    assert problem.all_groups == ["standard", "scaled"]
    assert estimate is not None
    assert estimate.value == pytest.approx(3.5)
    assert estimate.high == pytest.approx(3.5 + 12.7062 * 0.5, abs=1e-3)
    assert estimate.low == 0, "an error is not negative"


def test_sentences_praise_the_lowest(tmp_path: Path) -> None:
    write(tmp_path, "good", [0.5, 0.51, 0.52])
    write(tmp_path, "bad", [2.5, 2.51, 2.52], modulation="scale_gate")
    text = text_of(tmp_path)
    for expected in (
        "parameters) has the lowest mean error, 0.510",
        "its interval overlaps with no other",
        "good has a lower error than bad at 4 loops: 0.510",
        "Best validation error, mean over seeds: 0.510 for good (the lowest), 2.510 for bad (the highest).",
        "good scores 0.510 on standard, its easiest group, and 1.020 on scaled, its hardest.",
        "bad goes from 22.590 after 1 loop to 2.510 after 4 (as in training).",
    ):
        assert expected in text


def test_axes_of_errors_hold_them(tmp_path: Path) -> None:
    write(tmp_path, "v", [3.0, 3.1])
    visualisation = figures.score_by_loops(only_problem(tmp_path), "x")
    assert visualisation is not None
    assert ">20<" in visualisation.inline, "27 after one loop, 3 after four: the ticks go beyond 1"


def test_small_errors_keep_their_digits() -> None:
    assert [number(v) for v in (0.00173, 0.0, 0.25, 12.5)] == ["0.0017", "0.000", "0.250", "12.500"]


def test_points_in_context_are_drawn_with_the_baselines(tmp_path: Path) -> None:
    write(tmp_path, "v", [0.5])
    folder = tmp_path / "v-0.001-0"
    same = {"group": "standard", "metric": "squared_error", "n": 9, "split": "test", "step": 3000}
    rows = [
        {**same, "method": method, "num_loops": loops, "points": k, "value": value / k, "low": 0.0, "high": value}
        for method, loops, value in (
            ("model", 1, 9.0),
            ("model", 4, 1.5),
            ("least squares", None, 1.2),
            ("zero", None, 9),
        )
        for k in (1, 2, 3)
    ]
    write_lines(folder / "in_context.jsonl", rows)
    curves = only_problem(tmp_path).context_curves
    assert list(curves) == ["v", "least squares", "zero"]
    assert curves["v"] == [(1, 1.5, 0.0, 1.5), (2, 0.75, 0.0, 1.5), (3, 0.5, 0.0, 1.5)]
    text = text_of(tmp_path)
    assert "With 3 points in context v scores 0.500; the best baseline, least squares, 0.400." in text
    assert (tmp_path / "out/figures/in_context_score_by_context.svg").exists()
    rows[0].pop("points")
    write_lines(folder / "in_context.jsonl", rows)
    with pytest.raises(ValueError, match=r"in_context\.jsonl:1: missing points"):
        read_run(folder)


def test_predictions_are_shown_beside_the_truth(tmp_path: Path) -> None:
    visualisation = {"kind": "points", "title": "in-context <linear>", "tolerance": 0.1, "truth": [1.0, -2.0, 0.5],
               "loops": [{"loop": 1, "predictions": [0.0, 0.0, 0.0]},
                         {"loop": 4, "predictions": [0.0, -1.0, 0.45]}]}  # fmt: skip
    write(tmp_path, "v", [0.5], examples=[visualisation])
    drawn = visualise_run(read_run(tmp_path / "v-0.001-0"))
    assert drawn is not None
    assert drawn.solved == 1
    assert re.findall(r'style="--p:(\d+)%">(-?[\d.]+)<', drawn.html) == [
        ("50", "0.00"), ("100", "0.00"), ("25", "0.00"), ("50", "0.00"), ("50", "-1.00"), ("2", "0.45"),
    ]  # fmt: skip
    assert "<linear>" not in drawn.html


def test_the_best_score_of_a_run_that_goes_on_is_in_its_folder(tmp_path: Path) -> None:
    write_run(
        tmp_path, recipe="r", task=TASK, trained=4, rows=[], validation=0.5, finished=False, metric="squared_error"
    )
    assert read_run(tmp_path).best_validation is None
    (tmp_path / "best.json").write_text(json.dumps({"step": 500, "metric": "squared_error", "value": 2.25}))
    assert read_run(tmp_path).best_validation == 2.25
    assert read_run(tmp_path).metric == "squared_error"
