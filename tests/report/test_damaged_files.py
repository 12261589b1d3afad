"""Every file that a report reads, edited at random: a report, or a ValueError of one line that names the file."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from run_folders import (
    board_picture,
    distribution_picture,
    eval_rows,
    slots_picture,
    write_json,
    write_lines,
    write_run,
)

from looped.report import algorithm_figures, figures, inspection_figures, report, report_inspection
from looped.report.read import read_runs
from looped.report.reproduction import load_tables
from looped.run_folder import Best, Calibration, read_file

TASK = {"name": "in_context", "dim": 3, "points": 4}
ALIENS: tuple[Any, ...] = (
    None, True, "text", "", "$\\frac", "=1+1", "\x1b[31m", "\ud800", -1, 0, 0.5, -0.5, 7, 10**6, 2**63, 10**400,
    1e308, -1e308, 1e-310, float("nan"), float("inf"), float("-inf"), [], {}, [1, 2], ["a"], {"kind": 1}, [[]],
)  # fmt: skip
POINTS = {
    "kind": "points", "title": "in-context", "tolerance": 0.1, "truth": [1.0, -2.0, 0.5],
    "loops": [{"loop": n, "predictions": [0.0, -1.0, 0.1 * n]} for n in (1, 2, 3)],
}  # fmt: skip


def write(folder: Path) -> Path:
    """A run folder with every file that the commands read, and a table.json in the folder above it."""
    rows = eval_rows({"standard": [9.0, 1.0], "scaled": [2.0, 2.0]}, [1, 4], 4, "squared_error")
    for row in rows:
        row["high"] = row["value"] + 0.02
    run = write_run(
        folder / "run", recipe="r", task=TASK, trained=4, validation=1.0, metric="squared_error", lower_is_better=True,
        rows=[*rows, rows[1] | {"exit_rule": "change:0.1", "mean_loops": 2.5}],
        examples=[
            example | {"loops": example["loops"][:3]}
            for example in (board_picture(1, box=2), POINTS, slots_picture(), distribution_picture(4, 0))
        ],
    )  # fmt: skip
    metrics = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(metrics[:2] + metrics[4:7]) + "\n")
    write_json(run / "best.json", {"step": 3000, "metric": "squared_error", "value": 1.0})
    row = {"group": "standard", "metric": "squared_error", "n": 9, "split": "test", "step": 3000, "low": 0, "high": 9}
    write_lines(run / "in_context.jsonl", [
        row | {"method": method, "num_loops": loops, "points": k, "value": 9 / k}
        for method, loops in (("model", 4), ("zero", None)) for k in (1, 2)
    ])  # fmt: skip
    row = {"group": "standard", "n": 9, "split": "test", "step": 3000, "low": 0.1, "high": 0.9}
    write_lines(run / "algorithms.jsonl", [
        row | {"num_loops": loops, "algorithm": algorithm, "steps": steps, "prediction_difference": loops / 9,
               "weight_difference": 0.5}
        for algorithm, steps in (("zero", None), ("Newton", 2)) for loops in (1, 4)
    ])  # fmt: skip
    row = {"exit_rule": None, "num_loops": 4, "mean_loops": 4.0, "value": 1.0, "low": 0.9, "high": 1.1}
    write_json(run / "calibration.json", {
        "metric": "squared_error", "lower_is_better": True, "split": "validation", "examples": 5, "tolerance": 0.1,
        "trained_loops": 4, "rows": [row], "best": row, "warning": None, "step": 3000, "device": "cpu", "threads": 1,
        "recommendation": row | {"exit_rule": "change:0.1", "seconds": 1.0, "seconds_of_best": 2.0},
    })  # fmt: skip
    paper = {"task": "edit", "model": "looped", "paper": "0.5", "published": [], "corrected": ["run"]}
    claim = {"task": "edit", "says": "Looping helps.", "first": ["run"], "second": ["run"]}
    write_json(folder / "table.json", {"title": "Table", "scale": "cpu", "command": "looped", "rows": [paper],
                                       "claims": [claim], "differs": ["size"]})  # fmt: skip
    return run


def inspected() -> dict[str, Any]:
    """inspect.json of a model with three loops, of which two were trained."""

    def band(n: int) -> dict[str, Any]:
        return {name: [0.5 + 0.1 * i for i in range(n)] for name in ("low", "middle", "high")}

    start = {"start": "a Gaussian state", "distance": band(3), "cosine": band(3), "answers": [0.1, 0.5, 1.0]}
    maps = [[[[0.5, 0.5], [0.25, 0.75]]]] * 2
    return {
        "run": "r", "recipe": "r", "task": "edit_distance", "metric": "accuracy", "lower_is_better": False,
        "group": None, "split": "test", "step": 9, "seed": 0, "examples": 8, "trained_loops": 2, "loops": 3,
        "score": {"value": [0.1, 0.5, 0.4], "low": [0, 0.4, 0.3], "high": [0.2, 0.6, 0.5], "beyond": [-0.2, 0.1]},
        "answers": {key: [0.1, 0.5, 1.0] for key in ("final", "target", "agrees", "entropy")},
        "layers": {key: [0.2, 1.0] for key in ("final", "target", "agrees", "entropy")},
        "motion": {"change": band(3), "cosine": band(3), "turn": band(2)},
        "jacobian": {"loop": [1, 2, 3], "examples": 8, "radius": band(3), "norm": band(3)},
        "starts": {"free": True, "examples": 8, "unrelated": 0.1, "rows": [start]},
        "components": {"explained": [0.5, 0.25], "examples": 8,
                       "paths": [{"example": 1, "position": 2, "points": [[0, 0], [1, 1], [2, 1], [3, 1]]}]},
        "attention": {"loop": [1, 2, 3], "kind": "softmax", "rows": ["head 1"], "shown": [1, 2], "maps": maps,
                      "positions": 2, "keys": [[1.5, 1.2, 1.1]]},
        "modulation": {"gate": [band(3) | {"size": [0.1, 0.2, 0.3]}]},
        "environment": {"command": "looped inspect", "date": "", "machine": "", "python": "3.11", "torch": "2",
                        "looped": "0", "threads": 1, "precision": "fp32", "device": "cpu"},
    }  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container within a value, with every key or index in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places(inner)


def edit(value: Any, rng: random.Random) -> Any:
    """A copy with one value replaced, removed or repeated."""
    if rng.random() < 0.05:
        return rng.choice(ALIENS)
    value = copy.deepcopy(value)
    container, key = rng.choice(list(places(value)))
    action = rng.random()
    if action < 0.7:
        container[key] = rng.choice(ALIENS)
    elif action < 0.85:
        del container[key]
    elif isinstance(container, list):
        container.insert(key, container[key])
    else:
        container[f"{key}_2"] = container[key]
    return value


def damaged(text: str, lines: bool, rng: random.Random) -> str:
    """The text of a JSON file, or of one with an object a line, after one edit."""
    if rng.random() < 0.15:
        return text[: rng.randrange(len(text))]
    if not lines:
        return json.dumps(edit(json.loads(text), rng))
    rows = text.splitlines()
    number = rng.randrange(len(rows))
    action = rng.random()
    if action < 0.1:
        del rows[number]
    elif action < 0.2:
        rows.insert(number, rows[number])
    else:
        rows[number] = json.dumps(edit(json.loads(rows[number]), rng))
    return "\n".join([*rows, ""])


def survives(read: Callable[[], object]) -> bool:
    """Whether reading succeeds. Any error but a ValueError of one line fails the test."""
    try:
        read()
    except ValueError as error:
        found = error
    else:
        return True
    assert not isinstance(found, UnicodeError | json.JSONDecodeError), repr(found)
    assert "\n" not in str(found)
    return False


FILES = ("algorithms.jsonl", "answers_by_loop.json", "best.json", "config.json", "environment.json", "eval.jsonl",
         "in_context.jsonl", "metrics.jsonl", "summary.json", "calibration.json", "../table.json")  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure is drawn, but only each fortieth is saved, because saving takes most of the time."""
    drawn, render = count(1), figures.render

    def sometimes(name: str, draw: Callable[[Any], None], height: float) -> figures.RenderedFigure:
        if next(drawn) % 40 == 0:
            return render(name, draw, height)
        with figures.matplotlib.rc_context(figures.STYLE):
            draw(figures.Figure(figsize=(figures.WIDTH, height)))
        return figures.RenderedFigure(name, b"", b"", "")

    monkeypatch.setattr(figures, "render", sometimes)
    monkeypatch.setattr(inspection_figures, "render", sometimes)
    monkeypatch.setattr(algorithm_figures, "render", sometimes)


def read_all(folder: Path) -> None:
    read_runs([folder])
    load_tables([folder])
    read_file(folder / "run", Calibration)
    read_file(folder / "run", Best)


@pytest.mark.usefixtures("quick")
def test_edited_run_folders(tmp_path: Path) -> None:
    run = write(tmp_path)
    texts = {name: (run / name).read_text() for name in FILES}
    rng = random.Random(0)
    assert survives(lambda: report([tmp_path], tmp_path / "out"))
    fine = 0
    for _ in range(2000):
        name = rng.choice(FILES)
        (run / name).write_text(damaged(texts[name], name.endswith("l"), rng))
        if survives(lambda: read_all(tmp_path)):
            fine += 1
            if fine % 20 == 0:
                survives(lambda: report([tmp_path], tmp_path / "out"))
        (run / name).write_text(texts[name])
    assert 150 < fine < 1000, "most edits are noticed, some are possible values"


@pytest.mark.usefixtures("quick")
def test_edited_inspections(tmp_path: Path) -> None:
    good, rng = inspected(), random.Random(0)
    assert survives(lambda: report_inspection(good, tmp_path))
    edits = [numbers for _ in range(200) if isinstance(numbers := edit(good, rng), dict)]
    fine = sum(survives(lambda numbers=numbers: report_inspection(numbers, tmp_path)) for numbers in edits)
    assert 15 < fine < 100


@pytest.mark.parametrize("name", FILES)
def test_cut_files(tmp_path: Path, name: str) -> None:
    run = write(tmp_path)
    text = (run / name).read_bytes()
    line_ends = {i + 1 for i, byte in enumerate(text) if byte == ord("\n")} | {0}
    for end in range(0, len(text) - 1, 1 + len(text) // 50):
        (run / name).write_bytes(text[:end])
        whole_lines = name.endswith("l") and (end in line_ends or end + 1 in line_ends)
        assert survives(lambda: read_all(tmp_path)) == (whole_lines and (end > 0 or name != "eval.jsonl"))
