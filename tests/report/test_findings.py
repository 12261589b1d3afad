"""The sentences with which a report begins."""

from collections.abc import Sequence
from pathlib import Path

from run_folders import eval_rows, write_run

from looped.report import report


def findings(root: Path, scores: dict[str, Sequence[Sequence[float]]]) -> str:
    """The section of a report on runs with these scores after 1 and 4 loops, one pair for each seed.

    A name that begins with "large" has a modulation, and thus more parameters.
    """
    for recipe, by_seed in scores.items():
        for seed, values in enumerate(by_seed):
            write_run(
                root / f"{recipe}-seed{seed}", recipe=recipe, trained=4, seed=seed, validation=0.5,
                rows=eval_rows({"all": values}, [1, 4], 4), task={"name": "edit_distance"},
                modulation="scale_gate" if recipe.startswith("large") else "none",
            )  # fmt: skip
    text = report([root], root / "out").with_name("report.md").read_text().replace("\\", "")
    return text.partition("## Findings\n")[2].partition("\n## ")[0]


def test_the_best_the_worst_the_climb_and_the_difference(tmp_path: Path) -> None:
    good, bad = [(0.2, 0.99), (0.4, 1.0)], [(0.1, 0.5), (0.1, 0.52)]
    text = findings(tmp_path, {"small": good, "large-good": good, "large-bad": bad})
    assert "### Edit distance" in text
    assert "small (52.3 k parameters) has the highest mean, 0.995 [" in text, "the smallest of equal ones"
    assert (
        "but its interval overlaps with that of large-good (87.3 k). large-bad (87.3 k) has the lowest, 0.510 [" in text
    )
    assert "goes from 0.300 after 1 loop to 0.995 after 4 (as in training)." in text
    assert "at 4 loops" not in text, "three pairs are too many for a summary"


def test_two_variants_are_compared(tmp_path: Path) -> None:
    text = findings(tmp_path, {"small": [(0.2, 0.9), (0.2, 0.9)], "large": [(0.2, 0.7), (0.2, 0.7)]})
    assert "its interval overlaps with no other." in text
    assert "has the lowest" not in text
    assert "- small scores higher than large at 4 loops: 0.900" in text


def test_one_run_is_compared_with_none(tmp_path: Path) -> None:
    text = findings(tmp_path, {"small": [(0.2, 0.9)]})
    assert "\nsmall scores 0.900 [0.880, 0.920].\n" in text


def test_runs_without_scores_have_no_findings(tmp_path: Path) -> None:
    findings(tmp_path, {"small": [(0.2, 0.9)]})
    (tmp_path / "small-seed0/eval.jsonl").unlink()
    assert "Findings" not in report([tmp_path], tmp_path / "out").with_name("report.md").read_text()
