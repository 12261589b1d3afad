"""The script for a GPU runs from end to end on a CPU, and goes on after a part that fails."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu import PARTS, main


def values(folder: Path) -> dict[str, dict[str, object]]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_all_parts_run_small(tmp_path: Path):
    """In a process of its own, because a copy of a process that computed gradients cannot compute any."""
    words = ["--device", "cpu", "--small", "--minutes", "2", "--out", str(tmp_path)]
    run = subprocess.run([sys.executable, "-m", "benchmarks.gpu", *words], capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr + run.stdout
    found = values(tmp_path)
    assert found.keys() == PARTS.keys()
    assert not [name for part in found.values() for name in part if name.endswith(("error", "left out"))]
    assert all(part["device"] == "cpu" for part in found.values())
    assert len([name for name in found["equality"] if name.endswith((": loss", ": gradients"))]) == 12
    steps = [value for name, value in found["step"].items() if name.startswith("batch")]
    assert len(steps) == 3
    assert all(isinstance(step, dict) and 0 < step["share of the matmul peak"] < 1 for step in steps)
    levels = [value for name, value in found["memory"].items() if name.startswith("recompute")]
    assert len(levels) >= 3
    assert all(isinstance(level, dict) and level["peak megabytes"] > 0 for level in levels)
    assert found["training"]["steps"] == 20


def test_a_part_that_fails_leaves_its_error(tmp_path: Path):
    words = ["--device", "cpu", "--small", "--parts", "training", "--files", "nowhere.csv", "--out", str(tmp_path)]
    assert main(words) == 1
    found = values(tmp_path)["training"]
    assert "nowhere.csv" in str(found["error"])
    assert found["puzzles"] == ["nowhere.csv"]
