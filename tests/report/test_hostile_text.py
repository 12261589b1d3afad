"""Texts and numbers that would break a page, a figure, a table or a terminal if they were taken for more than that."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from run_folders import distribution_picture, eval_rows, slots_picture, write_json, write_run

from looped.printing import csv_text
from looped.report import report

TASK = {"name": "edit_distance", "length": 6, "min_letters": 3, "max_letters": 3}
HOSTILE = (
    '<script>alert(1)</script><img src="http://a.b/c" onerror=x>&amp;"\'',
    "$\\frac{1$ $x^2$", "_private", "a|b\n# head\n| c | d |",
    "[red]x[/] [/nothing] :smile:", "\x1b[31mred\x07\x9b1m\u202eevil", "=HYPERLINK(\"http://a.b\")", "\ud800\udfff",
    "[a](javascript:alert(1)) ![b](http://c.d) `code`", "名前" * 40,
)  # fmt: skip


class Tags(HTMLParser):
    """All tags of a page with the names of their attributes, and the addresses in it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]


def tags_of(page: Path) -> Tags:
    found = Tags()
    found.feed(page.read_text())
    return found


def write(root: Path, text: str) -> Path:
    """A run whose texts are all `text`, and another run beside it."""
    groups: dict[str, Sequence[float]] = {text: [0.5, 0.7], f"{text} 2": [0.3, 0.4]}
    for recipe, loops in ((text, 4), ("plain", 1)):
        examples = [slots_picture(), distribution_picture(4, 0)]
        for example in examples:
            example |= {"title": text, "input": text}
        examples[0]["loops"][0]["slots"][0] = text
        for frame in examples[1]["loops"]:
            frame["probabilities"][0] = (text, 0.5)
        run = write_run(
            root / f"run{loops}", recipe=recipe, task=TASK, trained=loops, rows=eval_rows(groups, [1, 4], 4),
            validation=0.7, note=text, examples=examples,
        )  # fmt: skip
        made = json.loads((run / "environment.json").read_text())
        write_json(run / "environment.json", dict.fromkeys(("command", "date", "machine", "python"), text) | {
            key: value for key, value in made.items() if key not in ("command", "date", "machine", "python")
        })  # fmt: skip
    return root


@pytest.mark.parametrize("text", HOSTILE, ids=[f"text{i}" for i in range(len(HOSTILE))])
def test_texts_of_a_run_folder_are_only_texts(tmp_path: Path, text: str) -> None:
    harmless = tags_of(report([write(tmp_path / "a", "name")], tmp_path / "a_out"))
    out = report([write(tmp_path / "b", text)], tmp_path / "b_out").parent
    found = tags_of(out / "report.html")
    assert found.tags <= harmless.tags | {"wbr"}
    assert found.attributes <= harmless.attributes
    assert all(address.startswith(("#", "data:")) for address in found.addresses)
    plain, written = ((folder / "report.md").read_text() for folder in (tmp_path / "a_out", out))
    assert [line.count("|") - line.count("\\|") for line in plain.splitlines()] == [
        line.count("|") - line.count("\\|") for line in written.splitlines()
    ]
    assert not re.search(r"(?<!\\)[<`]", written)
    assert "Content-Security-Policy\" content=\"default-src 'none';" in (out / "report.html").read_text()
    for file in (out / "report.html", out / "report.md"):
        assert not set(file.read_text()) & set("\x1b\x07\x9b\u202e")
    assert len(list(out.glob("figures/*.svg"))) == len(list((tmp_path / "a_out").glob("figures/*.svg"))) > 3
    for figure in out.glob("figures/*.svg"):
        ElementTree.parse(figure)


def test_a_spreadsheet_runs_nothing_of_a_csv(tmp_path: Path) -> None:
    run = write(tmp_path, "=1+1")
    with (report([run], tmp_path / "out").parent / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["group"] for row in rows} == {"'=1+1", "'=1+1 2"}
    assert {row["variant"] for row in rows} == {"'=1+1", "plain"}
    assert {float(row["value"]) for row in rows} == {0.5, 0.7, 0.3, 0.4}


def test_cells_that_begin_like_formulas() -> None:
    cells = {"a": "=1", "b": "\t+1+cmd", "c": "\r@x", "d": -1.5, "e": "-1.5", "f": "-1 +2e3 0.5", "g": "-x", "h": "x=1"}
    _, row = csv.reader(io.StringIO(csv_text(list(cells), [cells]), newline=""))
    assert row == ["'=1", "'\t+1+cmd", "'\r@x", "-1.5", "-1.5", "-1 +2e3 0.5", "'-x", "x=1"]
    assert csv_text(["c"], [cells]) == 'c\n"\'\r@x"\n'
    assert csv_text(["=a"], [{}]) == '\'=a\n""\n'


@pytest.mark.parametrize(("value", "loops"), [(math.nan, [1, 4]), (math.inf, [1, 4]), (math.nan, [4]), (1e300, [1, 4])])
def test_scores_of_a_model_that_diverges(tmp_path: Path, value: float, loops: list[int]) -> None:
    task: dict[str, Any] = {"name": "in_context", "dim": 3, "points": 4}
    for seed in (0, 1):
        rows = eval_rows({"a": [value] * len(loops), "b": [1.0] * len(loops)}, loops, 4, "squared_error")
        for row in rows:
            row.update(low=row["value"], high=row["value"])
        run = write_run(
            tmp_path / f"run{seed}", recipe="r", task=task, trained=4, rows=rows, validation=0.5, seed=seed,
            metric="squared_error", lower_is_better=True,
        )  # fmt: skip
        summary = json.loads((run / "summary.json").read_text())
        summary["best"]["value"] = value
        write_json(run / "summary.json", summary)
    text = report([tmp_path], tmp_path / "out").with_name("report.md").read_text()
    assert ("not finite" in text) == (not math.isfinite(value))
    assert not re.search(r"\b(nan|inf)\b", text)


def test_scores_of_an_older_checkpoint_are_named(tmp_path: Path) -> None:
    rows = eval_rows({"length 6": [0.5]}, [4], 4)
    run = write_run(tmp_path / "run", recipe="r", task=TASK, trained=4, rows=rows, validation=0.7)
    sentence = "run: scores are of step 2,500, but the best checkpoint is of step 3,000."
    assert sentence not in report([run], tmp_path / "out").with_name("report.md").read_text()
    for row in rows:
        row["step"] = 2500
    (run / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert sentence in report([run], tmp_path / "out").with_name("report.md").read_text()
