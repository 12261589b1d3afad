"""Tasks are known by name: ours, those of installed packages and the user's; mistakes are one line."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from test_own_task import Parity

from looped.cli import main
from looped.config import RunConfig
from looped.recipes import RECIPES, complete, recipe, register_recipe
from looped.strict import from_dict, to_dict
from looped.tasks import TASKS, SequenceTask, TaskConfig, frozen, register, registry


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch):
    """The next test starts without the tasks and recipes that a test registers."""
    monkeypatch.setattr(TASKS, "_classes", dict(TASKS))  # all of ours are imported, and so are not forgotten later
    before = dict(RECIPES)
    yield
    RECIPES.clear()
    RECIPES.update(before)


def new_task(**parts) -> type[SequenceTask]:
    methods = {"vocabulary": "01", "draw": Parity.draw, "solve": Parity.solve}
    return type("New", (SequenceTask,), methods | parts)


def new_config() -> type[TaskConfig]:
    @frozen
    class Config(TaskConfig):
        """Settings."""

        length: int = 5

    return Config


def test_ours_and_the_users_are_known():
    assert {"sudoku", "text", "lcs", "parity"} <= set(TASKS)
    assert len(TASKS) == len(list(TASKS)) == len(set(TASKS))
    assert TASKS["parity"] is Parity
    assert (Parity.name, Parity.Config.name, Parity.title) == ("parity", "parity", "Parity")
    assert TASKS["lcs"].title == "Longest common subsequence"
    assert TASKS["edit_distance"].title == "Edit distance"


def test_an_unknown_name_gives_the_nearest_and_the_way_to_register_it():
    assert "parities" not in TASKS
    with pytest.raises(ValueError, match=r"^task 'party': unknown \(did you mean 'parity'\?\)") as error:
        TASKS["party"]
    assert "`looped --import FILE_OR_MODULE ...`" in str(error.value)
    assert "sudoku" in str(error.value)
    with pytest.raises(KeyError):
        TASKS["party"]


@pytest.mark.parametrize(
    ("name", "parts", "message"),
    [
        ("sudoku", {"Config": new_config()}, r"task 'sudoku': the name is taken by looped\.tasks\.sudoku"),
        ("parity", {"Config": new_config()}, "task 'parity': the name is taken by test_own_task; choose another"),
        ("new", {"Config": None}, r"task 'new': New\.Config=None: expected a @frozen TaskConfig class"),
        ("new", {"Config": dict}, r"task 'new': New\.Config=<class 'dict'>: expected a @frozen TaskConfig class"),
        ("new", {"Config": Parity.Config}, r"Parity\.Config already belongs to the task 'parity'"),
    ],
)
def test_mistakes_of_registration(name: str, parts: dict, message: str):
    before = TASKS["sudoku"]
    with pytest.raises(ValueError, match=message):
        register(name)(new_task(**parts))
    assert TASKS["sudoku"] is before
    assert "new" not in TASKS


ODDITIES = """
from looped.tasks import SequenceTask, register
from looped.tasks.sequence import SequenceConfig


@register("oddness")
class Oddness(SequenceTask):
    vocabulary = "01"

    class Config(SequenceConfig):
        pass

    def draw(self, length, rng):
        return "0" * length

    def solve(self, symbols):
        return "0"
"""


def test_a_package_brings_a_task_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "oddities.py").write_text(ODDITIES)
    (tmp_path / "oddities-1.0.dist-info").mkdir()
    (tmp_path / "oddities-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: oddities\nVersion: 1.0\n")
    (tmp_path / "oddities-1.0.dist-info/entry_points.txt").write_text(
        "[looped.tasks]\noddness = oddities:Oddness\nabsent = oddities\n"
    )
    registry._installed.cache_clear()
    assert "oddness" not in TASKS
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._installed.cache_clear()
    try:
        assert "oddities" not in sys.modules
        assert "oddness" in list(TASKS)
        assert TASKS["oddness"].__module__ == "oddities"
        assert recipe("oddness").task == TASKS["oddness"].Config()
        with pytest.raises(ValueError, match="task 'absent': unknown"):  # the package does not register it
            TASKS["absent"]
    finally:
        registry._installed.cache_clear()
        sys.modules.pop("oddities", None)


def test_a_run_of_an_own_task_goes_to_plain_data_and_back():
    run = RunConfig(task=Parity.Config(length=3, eval_lengths=(4, 5)))
    data = to_dict(run)
    assert data["task"] == {"name": "parity", "length": 3, "eval_lengths": [4, 5]}
    assert next(iter(data["task"])) == "name"
    back = from_dict(RunConfig, data)
    assert back == run
    assert isinstance(back.task, Parity.Config)
    assert from_dict(RunConfig, {"task": {"name": "sudoku"}}).task == TASKS["sudoku"].Config()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "parity", "lenght": 3}, r"RunConfig\.task\.lenght: unknown key \(did you mean 'length'\?\)"),
        ({"name": "parity", "length": "3"}, r"RunConfig\.task\.length='3': expected int, not str"),
        ({"name": "party"}, r"RunConfig\.task\.name: task 'party': unknown \(did you mean 'parity'\?\)"),
        ({"length": 3}, r"RunConfig\.task\.name: task 'None': unknown"),
        (7, r"RunConfig\.task=7: expected an object"),
        (None, r"RunConfig: missing task"),
    ],
)
def test_bad_settings_of_a_task(task, message: str):
    with pytest.raises(ValueError, match=message):
        from_dict(RunConfig, {} if task is None else {"task": task})


def test_a_task_without_a_recipe_has_a_default_one():
    run = recipe("parity")
    assert (run.recipe, run.task, run.model.num_loops) == ("parity", Parity.Config(), 4)
    spec = Parity(Parity.Config()).spec
    assert complete(run).model.vocab_size == spec.vocab_size
    assert recipe("in_context").model.inputs == "vectors"
    assert complete(recipe("in_context")).model.causal
    with pytest.raises(ValueError, match=r"recipe 'paritty': unknown \(did you mean 'parity'\?\); .*--import"):
        recipe("paritty")
    with pytest.raises(ValueError, match="scale 'cpu': has no size for the task parity"):
        recipe("parity@cpu")


def test_own_recipes():
    @register_recipe("parity-deep")
    def deep() -> RunConfig:
        run = recipe("parity")
        return dataclasses.replace(run, model=dataclasses.replace(run.model, core_layers=3))

    assert (recipe("parity-deep").recipe, recipe("parity-deep").model.core_layers) == ("parity-deep", 3)
    with pytest.raises(ValueError, match="recipe 'sudoku': the name is taken"):
        register_recipe("sudoku")
    for name in ("a@b", "--out", ""):
        with pytest.raises(ValueError, match=f"recipe '{name}': expected letters"):
            register_recipe(name)


def test_the_command_line_offers_the_fields_of_the_own_task(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "parity", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--task.length" in out
    assert "--task.eval-lengths" in out
    assert "--task.name" not in out
    assert "--task.pool" not in out
    assert main(["train", "parity", "--task.pool", "3"]) == 2
    assert "--task.pool" in capsys.readouterr().err


def test_an_interrupted_run_of_an_own_task_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = "--model.d-model 16 --model.num-heads 2 --train.batch-size 8 --train.eval-examples 8 --train.steps 12"
    small += " --optim.warmup-steps 0 --train.log-every 1 --train.workers 0 --train.compile False"
    command = ["train", "parity", *small.split(), "--train.device", "cpu", "--resume"]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0

    def draw(self: Parity, length: int, rng: np.random.Generator) -> str:
        drawn.append(length)
        if len(drawn) == 70:  # in the middle of training
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, length, rng)

    drawn, real = [], Parity.draw
    monkeypatch.setattr(Parity, "draw", draw)
    assert main([*command, "--out", str(tmp_path / "run")]) == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "run/summary.json").read_text())["finished"] == "interrupted"
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    losses = {}
    for name in ("whole", "run"):
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        losses[name] = [(line["step"], line["loss"]) for line in lines if line["kind"] == "train"]
    assert len(set(losses["whole"])) == 12
    assert losses["run"] == losses["whole"]


def test_two_small_tasks_may_share_the_settings_of_their_base():
    class Base(SequenceTask):
        vocabulary = "01"

        def draw(self, length, rng):
            return "0" * length

        def solve(self, symbols):
            return "1"

    try:
        one, other = (register(name)(type(name, (Base,), {})) for name in ("shared_one", "shared_other"))
        assert (one.Config.name, other.Config.name) == ("shared_one", "shared_other")
        assert from_dict(RunConfig, to_dict(RunConfig(task=other.Config(length=3)))).task == other.Config(length=3)
        with pytest.raises(ValueError, match="expected a name of letters, digits and underscores"):
            register("../up")(type("Up", (Base,), {}))
    finally:
        for name in ("shared_one", "shared_other"):
            TASKS._classes.pop(name, None)
