"""The statements on a table of the paper, from run folders whose scores are known."""

import json
import re
from pathlib import Path

import pytest
from run_folders import eval_rows, write_run

from looped.report import report

TASK = {"name": "edit_distance", "length": 6}
CLAIMS = {
    "up": ("plain", "better"), "down": ("better", "plain"), "level": ("plain", "noisy"), "missing": ("plain", "absent"),
}  # fmt: skip
SCORES = {"plain": (0.50, 0.51), "better": (0.80, 0.81), "noisy": (0.40, 0.70), "best": (0.90, 0.91), "absent": ()}


def names(recipe: str, seeds: int = 2) -> list[str]:
    return [f"{recipe}-seed{seed}" for seed in range(seeds)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for recipe, scores in SCORES.items():
        for seed, score in enumerate(scores):
            rows = eval_rows({"6": [0.1, score]}, [1, 4], 4)
            write_run(
                tmp_path / f"{recipe}-seed{seed}", recipe=recipe, task=TASK, trained=4, rows=rows, validation=score,
                seed=seed,
            )  # fmt: skip
    rows = [
        {
            "task": "ED",
            "model": "old and new",
            "paper": "0.883",
            "published": names("plain"),
            "corrected": names("better"),
        },
        {"task": "ED", "model": "nothing yet", "paper": None, "published": [], "corrected": names("absent")},
    ]
    claims = [
        {"task": "ED", "says": f"It goes {says}.", "first": names(first), "second": names(second)}
        for says, (first, second) in CLAIMS.items()
    ]
    claims[0]["goal"] = names("best")
    table = {"title": "Table 9", "scale": "cpu", "command": "looped reproduce 9", "rows": rows, "claims": claims,
             "differs": ["Everything."]}  # fmt: skip
    (tmp_path / "table.json").write_text(json.dumps(table))
    return tmp_path


def text_of(folder: Path) -> str:
    return report([folder], folder / "out").with_name("report.md").read_text().replace("\\", "")


def test_table_and_verdicts(folder: Path) -> None:
    text = text_of(folder)
    assert "## Table 9, at the scale cpu\n\n1 of 4 comparisons hold at this size with these seeds." in text
    assert "### ED\n\nOld and new has the highest mean: 0.805 [0.741, 0.869]." in text
    assert "- Everything.\n- Command: looped reproduce 9" in text
    (row,) = re.findall(r"\| old and new \|.*", text)
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    # two seeds: 0.505 +- 12.706 * 0.00707 / sqrt(2)
    assert cells[:4] == ["0.883", "0.505 [0.441, 0.569]", "0.805 [0.741, 0.869]", "2"]
    assert "| nothing yet | – | – | – | – | – | – |" in text
    verdicts = dict(re.findall(r"- It goes (\w+)\. (.*)", text))
    assert verdicts["up"].startswith(
        "This holds (0.805 against 0.505, difference +0.300 [+0.300, +0.300], 2 paired seeds)"
    )
    assert verdicts["up"].endswith("It covers 75% [75%, 75%] of the gap.")
    assert "gap" not in verdicts["down"]
    assert verdicts["down"].startswith("The opposite holds (0.505 against 0.805, difference −0.300")
    assert verdicts["level"].startswith("The difference is within seed noise")
    assert verdicts["missing"] == "Not run."


def test_one_seed_decides_nothing(folder: Path) -> None:
    for path in folder.glob("*-seed1"):
        path.rename(folder.parent / path.name)
    text = text_of(folder)
    assert "0 of 4 comparisons hold" in text
    assert text.count("This is open with fewer than two shared seeds") == 3


def test_a_malformed_table_is_one_clear_line(folder: Path) -> None:
    (folder / "table.json").write_text('{"title": 3}')
    with pytest.raises(ValueError, match=r"table\.json:1: missing scale, command, rows, claims, differs"):
        report([folder], folder / "out")
