"""`looped --import`: the user's own tasks and recipes, here and in child processes; mistakes in them are one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from looped import user_code
from looped.cli import main
from looped.tasks import TASKS
from looped.user_code import import_words

TASK = '''
import numpy as np

from looped import RunConfig
from looped.recipes import recipe, register_recipe
from looped.tasks import SequenceTask, TaskConfig, frozen, register


@register("{name}")
class Majority(SequenceTask):
    """The commoner of two symbols."""

    vocabulary = "ab"

    @frozen
    class Config(TaskConfig):
        length: int = 5
        eval_lengths: tuple[int, ...] = ()

    def draw(self, length: int, rng: np.random.Generator) -> str:
        return "".join(rng.choice(["a", "b"], length))

    def solve(self, symbols: str) -> str:
        return max("ab", key=symbols.count)


@register_recipe("{name}-again")
def again() -> RunConfig:
    return recipe("{name}")
'''
SMALL = [
    "--model.d-model=16", "--model.num-heads=2", "--train.batch-size=8", "--optim.warmup-steps=0",
    "--train.compile=False", "--train.eval-examples=8", "--train.steps=2", "--train.workers=0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _leave_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Imports of one test are unknown to the next."""
    monkeypatch.setattr(user_code, "_imported", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(TASKS, "_classes", dict(TASKS._classes))
    modules = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    yield
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_a_file_makes_its_task_and_recipe_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "mine.py").write_text(TASK.format(name="mine"))
    assert "mine" not in TASKS
    assert main(["train", "mine", "--out", "run", *SMALL]) == 2
    assert "recipe 'mine': unknown" in capsys.readouterr().err
    assert main(["--import", "mine.py", "train", "mine", "--out", "run", *SMALL]) == 0
    assert "mine" in TASKS
    assert import_words() == ["--import", "mine.py"]
    assert main(["--import", "mine.py", "--import", "mine", "recipes"]) == 0  # once is enough: nothing is done twice
    assert "mine-again" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "--import runs your Python code, with all your rights" in capsys.readouterr().out


def test_a_folder_of_an_unknown_task_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "other.py").write_text(TASK.format(name="other"))
    assert main(["--import", "other.py", "train", "other", "--out", "run", *SMALL]) == 0
    known = dict(TASKS._classes)
    for command in ("evaluate run", "solve run -", "show run", "report run", "inspect run", "generate run --prompt a"):
        del TASKS._classes["other"]
        capsys.readouterr()
        assert main(command.split()) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "run/config.json" in err
        assert "task 'other': unknown" in err
        assert "`looped --import FILE_OR_MODULE ...`" in err
        TASKS._classes.update(known)
    assert main(["show", "run"]) == 0


@pytest.mark.parametrize(
    ("words", "content", "parts"),
    [
        (["--import"], None, ("--import: expected a Python file",)),
        (["--import="], None, ("--import : expected a Python file (.py) or the name of a module",)),
        (["--import=bad4.py", "recipes"], None, ("--import bad4.py: no such file",)),
        (["--import", "folder", "recipes"], None, ("--import folder: a folder without __init__.py",)),
        (["--import", "..", "recipes"], None, ("--import ..: expected a Python file (.py) or the name of a module",)),
        (["--import", "absent.py", "recipes"], None, ("--import absent.py: no such file",)),
        (["--import", "absent_module", "recipes"], None, ("--import absent_module", "No module named 'absent_module'")),
        (["--import", "bad1.py", "recipes"], "x = 1\ny = z\n", ("bad1.py:2: NameError", "'z'")),
        (["--import", "bad2.py", "recipes"], "def\n", ("--import bad2.py", "bad2.py:1: invalid syntax")),
        (["--import", "json.py", "recipes"], "", ("--import json.py: json is already the name of", "rename the file")),
        (
            ["--import", "bad3.py", "recipes"],
            TASK.format(name="sudoku"),
            ("bad3.py", "task 'sudoku': the name is taken by looped.tasks.sudoku"),
        ),
    ],
)
def test_mistakes(words: list[str], content: str | None, parts: tuple[str, ...], tmp_path: Path, capsys):
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / words[1]).write_text(content)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("looped: error: ")
    assert all(part in err for part in parts), err
    assert import_words() == []


def test_child_processes_know_it_too(tmp_path: Path):
    (tmp_path / "third.py").write_text(TASK.format(name="third"))
    words = ["--import", "third.py", "compare", "third", "--out", "out", "--override"]
    words += [word[2:].replace("-", "_") for word in SMALL]
    command = [sys.executable, "-m", "looped.cli", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    dry = subprocess.run([*command, "--dry-run"], env=environment, capture_output=True, text=True, check=True)
    assert dry.stdout.count("looped --import third.py ") == 2
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "out/third-seed0/config.json").read_text())
    assert config["run"]["task"]["name"] == "third"
    assert (tmp_path / "out/third-seed0/eval.jsonl").exists()
    assert (tmp_path / "out/report/report.html").exists()


def test_a_cell_of_a_notebook_runs_twice():
    cell = TASK.format(name="cell")
    for _ in range(2):
        exec(cell, {"__name__": "__main__"})
    assert TASKS["cell"].__module__ == "__main__"
    with pytest.raises(ValueError, match="task 'cell': the name is taken by __main__"):
        exec(cell.replace("Majority", "Minority"), {"__name__": "__main__"})
