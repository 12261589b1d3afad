"""The part of the report on loops that differ between examples."""

import csv
import statistics
from pathlib import Path

import pytest
from run_folders import EDIT, eval_rows, write_run

from looped.report import report
from looped.report.comparison import problems
from looped.report.length_figures import score_by_length_and_loops
from looped.report.read import read_runs

LOOPS = (4, 6, 8, 12)
TASK = {"name": "n_rasp_l", "length": 6, "eval_lengths": [12]}


def policy_rows(policy: str, scores: dict[str, float], loops: dict[str, float]) -> list[dict]:
    return [
        row | {"policy": policy, "mean_loops": loops[row["group"]]}
        for row in eval_rows({group: [value] for group, value in scores.items()}, [32], 6, n=100)
    ]


def write(folder: Path, seed: int, better: float, groups: tuple[str, str] = ("6", "12"), task: dict = TASK) -> None:
    first, second = groups
    rows = [
        *eval_rows({first: (0.1, 0.9, 0.3, 0.2), second: (0.1, 0.2, 0.3, 0.8)}, LOOPS, 6, n=100),
        *policy_rows("task", {first: 0.9 + better, second: 0.8 + better}, {first: 6, second: 12}),
        *policy_rows("confidence", {first: 0.9, second: 0.4}, {first: 6, second: 4 + 4 * seed}),
    ]
    write_run(folder / f"seed{seed}", recipe="one", task=task, trained=6, rows=rows, validation=0.9, seed=seed)


def test_scores_and_loops_of_each_policy(tmp_path):
    for seed, better in ((0, 0.0), (1, 0.04)):
        write(tmp_path / "runs", seed, better)
    text = report([tmp_path / "runs"], tmp_path / "out").with_name("report.md").read_text()
    part = text[text.index("### Loops chosen for the problem") :]
    assert "| variant | group | loops that the task says | most confident loop of the group |" in part
    (line,) = [line for line in part.splitlines() if line.startswith("| one | 12 |")]
    low = 0.82 - 12.7062 * statistics.stdev([0.8, 0.84]) / 2**0.5
    assert f"| 0.820 \\[{low:.3f}, 1.000\\] 12 loops |" in line
    assert "0.400 \\[0.400, 0.400\\] 6 loops" in line  # 4 and 8 loops in the two seeds
    sentence = "one scores 0.870 with the loops that the task says, 0.650 with the most confident loop of the group."
    assert sentence in part
    with (tmp_path / "out/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["policy"], row["mean_loops"]) for row in rows if row["seed"] == "1"} == {
        ("", ""), ("task", "6.0"), ("task", "12.0"), ("confidence", "6.0"), ("confidence", "8.0")
    }  # fmt: skip


def test_the_heat_map_needs_lengths(tmp_path):
    write(tmp_path / "lengths", 0, 0.0)
    (problem,) = problems(read_runs([tmp_path / "lengths"]))
    figure = score_by_length_and_loops(problem, "map")
    assert figure is not None
    assert figure.png.startswith(b"\x89PNG")
    assert all(text in figure.inline for text in ("number of loops", "length", "test accuracy", "loops of the task"))
    write(tmp_path / "names", 0, 0.0, ("easy", "hard"), EDIT)
    (problem,) = problems(read_runs([tmp_path / "names"]))
    assert score_by_length_and_loops(problem, "map") is None
    text = report([tmp_path / "names"], tmp_path / "out").with_name("report.md").read_text()
    assert "| one | hard | 0.800" in text


@pytest.mark.parametrize("policy", ["none", 3])
def test_unknown_policies_are_refused(policy, tmp_path):
    rows = [eval_rows({"6": [0.9]}, [6], 6)[0] | {"policy": policy, "mean_loops": 6}]
    write_run(tmp_path / "run", recipe="one", task=TASK, trained=6, rows=rows, validation=0.9)
    with pytest.raises(ValueError, match=r"eval.jsonl:1: policy"):
        read_runs([tmp_path])
