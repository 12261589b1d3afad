"""The sentence about loop counts beyond the best one, in reports and after `looped evaluate`."""

from pathlib import Path

import pytest
from run_folders import eval_rows, write_run

from looped.commands.evaluate import overthinking
from looped.report import report


def rows(values: dict[int, float], half: float = 0.02, group: str = "all") -> list[dict[str, object]]:
    return [
        {"group": group, "num_loops": n, "value": value, "low": value - half, "high": value + half}
        for n, value in values.items()
    ]


@pytest.mark.parametrize(
    ("values", "lower_is_better", "says"),
    [
        ({1: 0.5, 4: 0.9, 8: 0.7}, False, "best after 4 loops, 0.900 [0.880, 0.920], and worse after 8, 0.700 ["),
        ({8: 0.7, 4: 0.9, 1: 0.5}, False, "best after 4 loops"),
        ({1: 0.9, 4: 0.9, 8: 0.87}, False, "best after 1 loop, 0.900"),
        ({1: 0.5, 4: 0.9, 8: 0.89}, False, None),
        ({1: 0.5, 4: 0.7, 8: 0.9}, False, None),
        ({1: 0.9, 4: 0.5, 8: 0.7}, True, "best after 4 loops, 0.500 [0.480, 0.520], and worse after 8, 0.700 ["),
        ({1: 0.9, 4: 0.5, 8: float("nan")}, True, "and worse after 8, not finite"),
        ({1: 0.9, 4: 0.7, 8: 0.5}, True, None),
        ({3: 0.9}, False, None),
    ],
)
def test_more_loops_than_the_best_count_are_named_if_they_are_clearly_worse(values, lower_is_better, says):
    found = overthinking(rows(values), lower_is_better)
    assert len(found) == (says is not None)
    assert says is None or says in found[0]


def test_each_group_has_its_own_sentence_and_exit_rules_have_none():
    some = rows({1: 0.9, 2: 0.1}, group="a") + rows({1: 0.1, 2: 0.9}, group="b") + rows({1: 0.8, 2: 0.1}, group="c")
    ruled = [row | {"exit_rule": "kl:0.1"} for row in rows({2: 0.1}, group="d")]
    found = overthinking(some + ruled, lower_is_better=False)
    assert [text.partition(" is best")[0] for text in found] == ["Overthinking: a", "Overthinking: c"]


def test_a_report_says_it_beside_the_figure(tmp_path: Path):
    for recipe, values in {"deep": (0.2, 0.9, 0.5), "steady": (0.2, 0.8, 0.81)}.items():
        write_run(
            tmp_path / recipe, recipe=recipe, trained=4, seed=0, validation=0.5, modulation="none",
            rows=eval_rows({"all": values}, [1, 4, 8], 4), task={"name": "edit_distance"},
        )  # fmt: skip
    text = report([tmp_path], tmp_path / "out").with_name("report.md").read_text().replace("\\", "")
    assert "Overthinking: deep is best after 4 loops, 0.900 [" in text
    assert "Overthinking: steady" not in text
