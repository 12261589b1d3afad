"""A sweep that is killed and repeated ends exactly as one that nobody disturbed (benchmarks/killed_sweep.py)."""

from pathlib import Path

import pytest

from benchmarks.killed_sweep import RECIPE, killed_sweep, results

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_killed_sweep_ends_as_an_undisturbed_one(tmp_path: Path):
    found = killed_sweep(tmp_path, runs=2, kills=3, steps=80, jobs=2, seed=26)
    assert found["wrong"] == []
    assert found["kills"] == 3
    assert found["starts_of_the_command"] > 1
    first, second = (results(tmp_path / f"sweep/{RECIPE}-seed{seed}") for seed in (0, 1))
    assert first.keys() == second.keys()
    assert all(first[file] != second[file] for file in first if file.endswith("model.safetensors"))
