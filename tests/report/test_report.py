"""The report's numbers, words and files, from run folders with made-up results."""

import csv
import json
import math
import re
import statistics
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from run_folders import EDIT, LOOPS, SCORES, board_picture, eval_rows, write_lines, write_run

from looped.report import report
from looped.report.answers_by_loop import milestones, visualise_run
from looped.report.comparison import Problem, problems, run_score, t_interval, t_quantile
from looped.report.content import build
from looped.report.number_format import amount, duration
from looped.report.read import read_run, read_runs
from looped.report.sentences import difference_sentence


def write_variant(root: Path, recipe: str, scores: Sequence[float], trained: int = 4, **settings: Any) -> None:
    """One finished run per seed, with a single group and loop count."""
    for seed, score in enumerate(scores):
        values: dict[str, Any] = {"validation": score, "task": EDIT, **settings}
        write_run(
            root / f"{recipe}-{settings.get('learning_rate', 0)}-{seed}", recipe=recipe, trained=trained, seed=seed,
            rows=eval_rows({"length 6": [score]}, [trained], trained), **values,
        )  # fmt: skip


def only_problem(root: Path) -> Problem:
    (problem,) = problems(read_runs([root]))
    return problem


@pytest.fixture(scope="module")
def written(runs_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report([runs_root], tmp_path_factory.mktemp("out")).parent


def test_t_interval_by_hand() -> None:
    # Standard deviation 0.1, t(2) = 4.30265: half width 4.30265 * 0.1 / sqrt(3).
    assert t_interval([0.8, 0.9, 1.0]) == pytest.approx((0.9, 0.9 - 0.248414, 0.9 + 0.248414), abs=1e-6)
    # Standard deviation 0.1 / sqrt(2), t(1) = 12.70620: half width 12.70620 * 0.05.
    assert t_interval([0.8, 0.9]) == pytest.approx((0.85, 0.85 - 0.635310, 0.85 + 0.635310), abs=1e-6)
    # From printed tables.
    assert [t_quantile(n) for n in (5, 31, 120)] == pytest.approx([2.5706, 2.0395, 1.9799], abs=5e-5)


def test_scores_over_seeds_agree_with_an_independent_calculation(runs_root: Path) -> None:
    strings = next(p for p in problems(read_runs([runs_root])) if p.task == "edit_distance")
    assert [variant.name for variant in strings.variants] == [
        "demo_standard", "demo_looped_4", "demo_tmlt_4", "demo_looped_8",
    ]  # fmt: skip
    for variant in strings.variants:
        trained, by_seed = SCORES[variant.name]
        # Two groups of equal size, the second with 0.6 of the score of the first.
        means = [0.8 * scores[LOOPS.index(trained)] for scores in by_seed]
        half = 4.30265 * statistics.stdev(means) / math.sqrt(3)
        estimate = strings.headline(variant)
        assert estimate is not None
        assert estimate.seeds == 3
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
            (statistics.mean(means), statistics.mean(means) - half, statistics.mean(means) + half), abs=1e-5
        )


def test_exit_rules_have_a_table_of_their_own(tmp_path: Path) -> None:
    """Their rows, which also name a number of loops, must not be taken for those of that number."""
    rows = [*eval_rows({"easy": [0.9]}, [4], 4, n=100), *eval_rows({"hard": [0.6]}, [4], 4, n=300)]
    early = [row | {"exit_rule": "kl:0.01", "mean_loops": loops, "value": row["value"] - 0.1}
             for row, loops in zip(rows, (1.5, 3.5), strict=True)]  # fmt: skip
    write_run(tmp_path / "run", recipe="one", task=EDIT, trained=4, rows=rows + early, validation=0.7)
    report([tmp_path], tmp_path / "out")
    text = (tmp_path / "out/report.md").read_text()
    full, left = (0.9 * 100 + 0.6 * 300) / 400, (0.8 * 100 + 0.5 * 300) / 400
    assert f"one exits after {(1.5 * 100 + 3.5 * 300) / 400:.2f} loops on average by the rule kl:0.01" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| one | 0 | kl:0.01 | 3.00 |")]
    assert f"| {left:.3f} \\[" in line
    assert f"| 4 | {full:.3f} \\[" in line
    assert f"{full:.3f}" in next(line for line in text.splitlines() if line.startswith("| one |"))
    with (tmp_path / "out/results.csv").open() as file:
        assert len(list(csv.reader(file))) == 3


def test_with_one_seed_the_interval_is_over_examples(tmp_path: Path) -> None:
    rows = [*eval_rows({"easy": [0.9]}, [4], 4, n=100), *eval_rows({"hard": [0.6]}, [4], 4, n=300)]
    rows[0].update(low=0.87, high=0.93)
    rows[1].update(low=0.56, high=0.64)
    write_run(tmp_path / "run", recipe="one", task=EDIT, trained=4, rows=rows, validation=0.7)
    half = math.sqrt((0.25 * 0.03) ** 2 + (0.75 * 0.04) ** 2)
    assert run_score(read_run(tmp_path / "run"), "accuracy", 4, ["easy", "hard"]) == pytest.approx(
        (0.675, 0.675 - half, 0.675 + half)
    )
    text = report([tmp_path], tmp_path / "out").with_name("report.md").read_text()
    assert "over the test examples of one seed" in text
    assert "Student" not in text
    assert f"0.675 \\[{0.675 - half:.3f}, {0.675 + half:.3f}\\], 1 seed" in text


def test_learning_rate_is_chosen_by_validation_not_by_test(tmp_path: Path) -> None:
    write_variant(tmp_path, "v", [0.70, 0.72], learning_rate=1e-3, validation=0.80)
    write_variant(tmp_path, "v", [0.90, 0.92], learning_rate=2e-3, validation=0.79)
    problem = only_problem(tmp_path)
    (variant,) = problem.variants
    estimate = problem.headline(variant)
    assert variant.learning_rate == 1e-3
    assert estimate is not None
    assert estimate.value == pytest.approx(0.71)
    text = report([tmp_path], tmp_path / "out").with_name("report.md").read_text()
    assert "| v | 0.001 | ✓ | 2 | 0.800 | 0.710" in text
    assert "| v | 0.002 |  | 2 | 0.790 | 0.910" in text, "the whole grid is shown"


@pytest.mark.parametrize(
    ("plain", "modulated", "start"),
    [
        ((0.80, 0.81, 0.82), (0.90, 0.91, 0.93), "modulated scores higher than plain at 4 loops: 0.913"),
        ((0.90, 0.91, 0.93), (0.80, 0.81, 0.82), "plain scores higher than modulated at 4 loops: 0.913"),
        ((0.75, 0.85, 0.80), (0.78, 0.90, 0.86), "The difference between"),
        ((0.5,), (0.9,), "No claim about"),
    ],
)
def test_a_difference_is_claimed_only_where_intervals_part(
    tmp_path: Path, plain: Sequence[float], modulated: Sequence[float], start: str
) -> None:
    write_variant(tmp_path, "plain", plain)
    write_variant(tmp_path, "modulated", modulated, modulation="scale_gate")
    (difference,) = only_problem(tmp_path).differences
    assert (difference.first.name, difference.second.name) == ("plain", "modulated")
    assert difference_sentence(difference).startswith(start)
    assert difference.claimed == ("scores higher" in start)
    assert difference.value == pytest.approx(statistics.mean(modulated) - statistics.mean(plain))
    text = report([tmp_path], tmp_path / "out").with_name("report.md").read_text()
    assert start in text
    assert ("overlaps with no other" in text) == (not difference.overlap)


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    # The seeds vary far more than the difference, which is 0.04, 0.05 and 0.06.
    write_variant(tmp_path, "plain", (0.5, 0.6, 0.7))
    write_variant(tmp_path, "modulated", (0.54, 0.65, 0.76), modulation="scale_gate")
    (difference,) = only_problem(tmp_path).differences
    half = 4.30265 * 0.01 / math.sqrt(3)
    assert (difference.low, difference.high) == pytest.approx((0.05 - half, 0.05 + half), abs=1e-6)
    assert difference.overlap
    assert not difference.claimed


def test_only_equal_loops_are_compared(tmp_path: Path) -> None:
    write_variant(tmp_path, "four", (0.8, 0.81))
    write_variant(tmp_path, "eight", (0.8, 0.81), trained=8)
    assert only_problem(tmp_path).differences == []
    assert "No two variants were trained" in report([tmp_path], tmp_path / "out").with_name("report.md").read_text()


def test_runs_of_one_recipe_with_other_settings_are_other_variants(tmp_path: Path) -> None:
    write_variant(tmp_path / "a", "looped", (0.8, 0.81))
    write_variant(tmp_path / "b", "looped", (0.9, 0.91), trained=8)
    assert [v.name for v in only_problem(tmp_path).variants] == ["looped (num_loops=4)", "looped (num_loops=8)"]


def test_problems_are_never_pooled(runs_root: Path, tmp_path: Path) -> None:
    assert [p.task for p in problems(read_runs([runs_root]))] == ["edit_distance", "countdown", "sudoku"]
    write_variant(tmp_path / "a", "short", (0.8,))
    write_variant(tmp_path / "b", "long", (0.4,), task={"name": "edit_distance", "length": 8})
    assert [p.settings for p in problems(read_runs([tmp_path]))] == ["length 6, max letters 3", "length 8"]


def test_unfinished_runs_are_reported_and_count_in_no_mean(runs_root: Path, written: Path) -> None:
    runs = read_runs([runs_root])
    assert [run.name for run in runs if not run.finished] == ["strings/demo_tmlt_4-lr0.004-seed0"]
    text = (written / "report.md").read_text()
    assert re.search(r"demo\\_tmlt\\_4-lr0.004-seed0 \| demo\\_tmlt\\_4 \| 0 \| 0.004 \| step 1,300 of 3,000", text)
    assert "1 run unfinished, 0 not evaluated" in text
    assert 4e-3 not in {rate for p in problems(runs) for v in p.variants for rate in v.grid}


def test_a_report_of_a_lone_unfinished_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run", recipe="lone", task=EDIT, trained=4, rows=[], validation=0.5, finished=False)
    assert "1 run unfinished" in report([tmp_path], tmp_path / "out").read_text()


def test_a_finished_run_without_evaluation_is_named(tmp_path: Path) -> None:
    write_variant(tmp_path, "v", (0.8, 0.9))
    (tmp_path / "v-0-1" / "eval.jsonl").unlink()
    text = report([tmp_path], tmp_path / "out").with_name("report.md").read_text()
    assert "0 runs unfinished, 1 not evaluated" in text
    assert "0.800 \\[0.780, 0.820\\], 1 seed" in text


def test_results_csv_holds_every_row_of_every_run(runs_root: Path, written: Path) -> None:
    with (written / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(run.rows) for run in read_runs([runs_root]))
    (row,) = [
        row for row in rows
        if row["run"] == "strings/demo_tmlt_4-lr0.002-seed2" and row["group"] == "length 6" and row["num_loops"] == "4"
    ]  # fmt: skip
    assert (row["variant"], row["seed"], row["chosen"], row["metric"]) == ("demo_tmlt_4", "2", "yes", "accuracy")
    assert [float(row[key]) for key in ("value", "low", "high", "learning_rate")] == pytest.approx(
        [0.95, 0.93, 0.97, 0.002]
    )


class Tags(HTMLParser):
    """Checks that tags nest, and collects ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in ("meta", "br", "input", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_needs_no_network(written: Path) -> None:
    text = (written / "report.html").read_text()
    parser = Tags()
    parser.feed(text)
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids)) > 20
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text)
    assert "url(http" not in text
    assert "@import" not in text


def test_every_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&\"$a_1$|`*"
    visualisation = {"kind": "distribution", "title": evil, "input": evil, "answer": evil,
               "loops": [{"loop": 1, "probabilities": [[evil, 0.7], ["b", 0.3]]}]}  # fmt: skip
    slots = {"kind": "slots", "title": evil, "input": evil, "answer": [evil],
             "loops": [{"loop": 1, "slots": [evil], "confidence": [0.7]}]}  # fmt: skip
    board = {**board_picture(1, box=2), "rating": evil}
    rows = eval_rows({evil: [0.4], "b": [0.5]}, [1], 1, metric=evil)
    write_run(tmp_path / "run", recipe=evil, note=evil, task=EDIT, trained=1, rows=rows, validation=0.4, metric=evil,
              examples=[visualisation, slots, board])  # fmt: skip
    text = report([tmp_path], tmp_path / "out").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    parser = Tags()
    parser.feed(text)
    assert parser.open == []
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "<script>" not in markdown.replace("\\<", "")


def test_figures_are_whole_files_and_the_inlined_ones_follow_the_page(written: Path) -> None:
    drawn = sorted((written / "figures").glob("*.svg"))
    assert {path.name for path in drawn} >= {
        f"edit_distance_{kind}.svg" for kind in ("score_by_loops", "validation", "loss", "score_by_group")
    }
    for path in drawn:
        ElementTree.parse(path)
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    text = (written / "report.html").read_text()
    assert text.count("<svg ") == len(drawn)
    assert "currentColor" in text
    assert "#010203" not in text
    assert not list(written.rglob(".*")), "no temporary file stays"


def test_reports_are_reproducible(runs_root: Path, tmp_path: Path) -> None:
    first, second = (report([runs_root / "sudoku"], tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_board_cells_are_given_right_wrong_or_undecided(tmp_path: Path) -> None:
    visualisation = {"kind": "board", "side": 4, "box": 2, "given": [1] + [0] * 15, "rating": None,
               "solution": [1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1]}  # fmt: skip
    cells = [
        2,
        2,
        4,
        4,
        *visualisation["solution"][4:],
    ]  # the given is kept; cell 2 is wrong, cell 3 right but not sure
    confidence = [0.9, 0.9, 0.9, 0.49] + [0.5] * 12
    visualisation["loops"] = [{"loop": 1, "cells": cells, "confidence": confidence}]
    rows = eval_rows({"length 6": [0.0]}, [1], 1)
    write_run(tmp_path, recipe="r", task=EDIT, trained=1, rows=rows, validation=0.1, examples=[visualisation])
    drawn = visualise_run(read_run(tmp_path))
    assert drawn is not None
    assert drawn.solved == 0
    found = re.findall(r'<i class="(\w)( edge-right)?( edge-bottom)?">(\d)</i>', drawn.html)
    assert [(state, digit) for state, _, _, digit in found][:4] == [("g", "1"), ("r", "2"), ("w", "4"), ("u", "4")]
    assert [state for state, *_ in found].count("r") == 13
    assert sum(bool(right) for _, right, _, _ in found) == 4, "one thick line between the two columns of boxes"
    assert "13 of 15 right, 1 wrong, 1 undecided" in drawn.html


def test_many_loops_get_rows_at_milestones_and_at_the_loops_of_training(tmp_path: Path) -> None:
    frames = [{"loop": loop, "probabilities": [["3", 0.4], ["4", 0.6]]} for loop in range(1, 21)]
    visualisation = {"kind": "distribution", "title": "t", "input": "i", "answer": "4", "loops": frames}
    rows = eval_rows({"length 6": [0.0]}, [6], 6)
    write_run(tmp_path, recipe="r", task=EDIT, trained=6, rows=rows, validation=0.1, examples=[visualisation])
    drawn = visualise_run(read_run(tmp_path))
    assert drawn is not None
    assert drawn.solved == 1
    assert re.findall(r'<th scope="row">(\d+)', drawn.html) == ["1", "2", "4", "6", "8", "16", "20"]


def test_milestones_are_powers_of_two_and_the_last() -> None:
    assert milestones(range(1, 13)) == [1, 2, 4, 8, 12]
    assert milestones([1]) == [1]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", lambda text: text[:40], r"config.json:1: not JSON, is the file cut short\?"),
        ("config.json", lambda text: text.replace("num_heads", "num_head"), "config.json: run.model.num_head: unk"),
        ("metrics.jsonl", lambda text: text[:-20], r"metrics.jsonl:36: not JSON, is the file cut short\?"),
        ("metrics.jsonl", lambda text: text.replace('"loss"', '"lost"', 1), "metrics.jsonl:1: lost: unknown key"),
        ("eval.jsonl", lambda text: "", "eval.jsonl:1: the file is empty"),
        ("eval.jsonl", lambda text: text + "[]\n", "eval.jsonl:2: expected an object, not list"),
        ("eval.jsonl", lambda text: text.replace("0.8,", '"0.8",'), "eval.jsonl:1: value='0.8': expected float"),
        ("summary.json", lambda text: "", "summary.json:1: not JSON"),
        ("summary.json", lambda text: "{}", "summary.json:1: missing recipe, metric, "),
        ("answers_by_loop.json", lambda text: text.replace('"cells"', '"cell"'), r"loop.json:1: examples\[0\].loops\["),
        ("answers_by_loop.json", lambda text: text.replace("board", "bored"), r".json:1: examples\[0\].kind='bored': "),
    ],
)  # fmt: skip
def test_malformed_files_are_named_with_their_line(tmp_path: Path, file: str, change: Any, message: str) -> None:
    rows = eval_rows({"length 6": [0.8]}, [4], 4)
    run = write_run(tmp_path / "run", recipe="r", task=EDIT, trained=4, rows=rows, validation=0.8,
                    examples=[board_picture(1, box=2)])  # fmt: skip
    report([run], tmp_path / "out")
    before = (tmp_path / "out" / "report.html").read_bytes()
    (run / file).write_text(change((run / file).read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        report([run], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out" / "report.html").read_bytes() == before, "the last report is still there"


def test_files_that_are_not_text_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", recipe="r", task=EDIT, trained=4, rows=[], validation=0.8)
    (run / "metrics.jsonl").write_bytes(b'{"kind": "\xff"}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl: not UTF-8 text"):
        read_run(run)


def test_folders_without_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not a run folder \(no config.json\)"):
        read_runs([tmp_path])
    with pytest.raises(ValueError, match="no such folder"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="no run folders given"):
        read_runs([])
    write_run(tmp_path / "run", recipe="r", task=EDIT, trained=4, rows=[], validation=0.8)
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"run: not a run folder \(no config.json\)"):
        read_run(tmp_path / "run")


def test_a_run_counts_once_and_a_repeated_seed_is_an_error(tmp_path: Path) -> None:
    write_variant(tmp_path / "a", "v", (0.8, 0.9))
    assert len(read_runs([tmp_path / "a", tmp_path, tmp_path / "a" / "v-0-1"])) == 2
    write_variant(tmp_path / "b", "v", (0.8,))
    with pytest.raises(ValueError, match="the same variant, learning rate and seed as"):
        problems(read_runs([tmp_path]))


def test_runs_ended_early_shorten_the_curves_not_the_table(tmp_path: Path) -> None:
    write_variant(tmp_path, "v", (0.8, 0.9))
    lines = [json.loads(line) for line in (tmp_path / "v-0-1" / "metrics.jsonl").read_text().splitlines()]
    write_lines(tmp_path / "v-0-1" / "metrics.jsonl", [line for line in lines if line["step"] <= 1000])
    assert "0.850" in report([tmp_path], tmp_path / "out").read_text()


def test_the_title_names_task_and_recipes(runs_root: Path) -> None:
    runs = read_runs([runs_root / "sudoku", runs_root / "countdown"])
    title, lead, sections = build(problems(runs), runs)
    assert title == "Sudoku, Countdown: sudoku, countdown"
    assert lead == "2 runs of 2 recipes, 2 of them finished."
    assert [section.title for section in sections] == ["Sudoku", "Countdown", "How these were run"]


def test_amounts_and_durations() -> None:
    texts = ["12", "52.3 k", "1 M", "7.2 G"]
    assert [amount(value) for value in (12.0, 52_300.0, 999_999.0, 7.2e9)] == texts
    assert [duration(value) for value in (59.4, 95.0, 3605.0)] == ["59 s", "1 min 35 s", "1 h 00 min"]
