"""The findings at the beginning of a report, and the parts that its figures and boards leave out."""

from collections.abc import Sequence
from pathlib import Path

from run_folders import board_picture, eval_rows, write_run

from looped.report import figures, report
from looped.report.answers_by_loop import visualise_run
from looped.report.comparison import problems
from looped.report.read import read_run, read_runs


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


def test_a_variant_without_a_loop_is_a_point_beside_looped_ones(tmp_path: Path) -> None:
    markers = []
    for trained in (4, 1):
        for recipe, loops in (("looped", 4), ("other", trained)):
            rows = eval_rows({"all": [0.5] * 8}, range(1, 9), loops)
            task = {"name": "edit_distance"}
            write_run(
                tmp_path / f"{trained}/{recipe}", recipe=recipe, trained=loops, validation=0.5, rows=rows, task=task
            )
        (problem,) = problems(read_runs([tmp_path / str(trained)]))
        figure = figures.score_by_loops(problem, "name")
        assert figure is not None
        markers.append(figure.svg.count(b"<use "))
    assert markers[0] - markers[1] == 7


def test_a_board_of_few_loops_shows_them_all(tmp_path: Path) -> None:
    for loops, frames, slider in ((3, 3, False), (4, 4, False), (8, 5, True)):
        picture = board_picture(0, box=2)
        picture["loops"] = picture["loops"][:loops]
        folder = write_run(
            tmp_path / str(loops), recipe="boards", trained=3, validation=0.5, examples=[picture],
            rows=eval_rows({"all": [0.5]}, [3], 3), task={"name": "sudoku", "box": 2},
        )  # fmt: skip
        shown = visualise_run(read_run(folder))
        assert shown is not None
        assert shown.html.count('<div class="frame') - 1 == frames, "one of them holds the frames"
        assert ("player" in shown.html) == slider
