"""Every example runs, in a few steps; those that learn in seconds must learn."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from looped import TASKS

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_own_block_moves_marks_along_the_sequence(capsys):
    assert example("own_block").main(100) > 0.95
    lines = [line for line in capsys.readouterr().out.splitlines() if "loops:" in line]
    shares = [float(line.split()[2]) for line in lines]
    assert max(shares[:2]) < 0.7 < 0.95 < min(shares[2:]), "moving by 3 takes 3 loops"


def test_loop_alone_fills_rectangles(capsys):
    assert example("loop_alone").main(60) > 0.9
    assert "after loop 24:" in capsys.readouterr().out


def test_training_loop(capsys):
    assert 0 <= example("training_loop").main(3) <= 1
    assert "unseen boards" in capsys.readouterr().out


def test_depth_extrapolation(tmp_path):
    pytest.importorskip("pandas")
    frame = example("depth_extrapolation").main(3, tmp_path / "plot.png")
    assert list(frame.index) == [1, 2, 4, 6, 8, 12, 16, 24, 32]
    assert {"board", "cells"} <= set(frame.columns)
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_hugging_face_objects():
    pytest.importorskip("datasets")
    pytest.importorskip("transformers")
    assert example("hugging_face").main(60) == "the dog sat on the log"


def test_cups(tmp_path, monkeypatch):
    monkeypatch.setattr(TASKS, "_classes", dict(TASKS._classes))  # the example registers a task
    cups = example("cups")
    monkeypatch.setattr(cups, "LOOPS", (1,))
    accuracy = cups.main(tmp_path, 10)
    assert [max(accuracy[f"circuit, {loops} loops"][i:]) < 0.5 for loops, i in ((2, 1), (3, 3))] == [True, True]
    assert accuracy["circuit, 4 loops"] == [1, 1, 1, 1]
    assert 0 < accuracy["trained, 1 loops"][-1] < 0.5
    assert "swaps" in (tmp_path / "cups.svg").read_text()


def test_every_example_is_run():
    run = {"cups", "own_block", "loop_alone", "training_loop", "depth_extrapolation", "hugging_face"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == run
