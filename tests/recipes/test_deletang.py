"""The runs of `looped reproduce deletang`."""

from typing import Any, get_args

from looped.cli import main
from looped.recipes import complete, recipe
from looped.recipes.works.deletang import SCORES, WORK
from looped.tasks.chomsky.config import Problem


def test_every_problem_is_run_looped_and_with_layers(capsys):
    assert main(["reproduce", "deletang", "--seeds", "1", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert set(SCORES) == set(get_args(Problem))
    for problem in SCORES:
        for variant in ("looped", "layers"):
            (line,) = [line for line in lines if f"train deletang-{variant} " in line and f" {problem} " in line]
            assert line.endswith("--examples 128")
    assert len(lines) == 33


def test_scored_lengths_are_not_trained():
    for name in ("deletang-looped", "deletang-published"):
        task: Any = complete(recipe(name)).task
        assert min(task.eval_lengths) > task.length
    small: Any = recipe("deletang-looped").task
    lengths = {str(length) for length in small.eval_lengths}
    assert all(set(row.groups) == lengths for row in WORK.rows)
