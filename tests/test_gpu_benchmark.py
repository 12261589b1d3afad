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
    assert not [name for name, part in found.items() if "error" in part]
    assert all(part["device"] == "cpu" for part in found.values())
    differences = [value for name, value in found["equality"].items() if "difference" in name or "fp32" in name]
    assert len(differences) == 9
    assert all(isinstance(value, float) and value < 1e-5 for value in differences)
    assert all(value for name, value in found["equality"].items() if "equal" in name)
    shares = [value for name, value in found["step"].items() if name.endswith("share of the matmul peak")]
    assert len(shares) == 3
    assert all(isinstance(value, float) and 0 < value < 1 for value in shares)
    assert found["training"]["steps"] == 20


def test_a_part_that_fails_leaves_its_error(tmp_path: Path):
    words = ["--device", "cpu", "--small", "--parts", "training", "--files", "nowhere.csv", "--out", str(tmp_path)]
    assert main(words) == 1
    found = values(tmp_path)["training"]
    assert "nowhere.csv" in str(found["error"])
    assert found["puzzles"] == ["nowhere.csv"]
