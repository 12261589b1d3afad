"""The numbers of docs/theory.md are those of the files that its commands wrote."""

import json
import re
from pathlib import Path

import pytest

from looped.commands.theory import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = (ROOT / "docs/theory.md").read_text()
RESULTS = ROOT / "results/theory"


def stored(name: str) -> dict:
    return json.loads((RESULTS / name).read_text())


def test_commands_exist_and_their_folders_are_stored():
    commands = re.findall(r"looped theory (\w+)[^\n`]*--out (results/theory/[\w-]+)", CHAPTER)
    assert len(commands) >= 8
    assert {name for name, _ in commands} == {"approximate", "memorise", "moduli", "rate", "roughness"} <= set(COMMANDS)
    assert all((ROOT / folder).is_dir() for _, folder in commands)
    assert {folder.name for folder in RESULTS.iterdir()} == {Path(folder).name for _, folder in commands}


@pytest.mark.parametrize("name", ["rate-waves", "rate-steep"])
def test_errors(name):
    content = stored(f"{name}/rate.json")
    assert {"date", "machine", "torch"} <= set(content["environment"])
    for n in dict.fromkeys(row["cells"] for row in content["rows"]):
        rows = {row["kind"]: row for row in content["rows"] if row["cells"] == n}
        errors = " | ".join(f"{rows[kind]['error']:.4f}" for kind in ("plain", "tuned", "radix", "modulated"))
        assert f"| {n} | {rows['plain']['loops']:,} | {errors} |" in CHAPTER


def test_slopes_roughness_and_memories():
    for name in ("rate-waves", "rate-waves-3", "rate-mixed", "rate-spread"):
        slopes = stored(f"{name}/rate.json")["slopes"]
        assert f"{name}` | {slopes['plain']:.3f} | {slopes['modulated']:.3f} |" in CHAPTER
    for row in stored("roughness/roughness.json")["rows"]:
        assert " | ".join(f"{row[kind]:.4g}" for kind in ("plain", "tuned", "radix", "modulated")) in CHAPTER
    for row in stored("memorise/memorise.json")["rows"]:
        assert (
            f"| {row['variant']} | {row['d_model']} | {row['d_ff']} | {row['loops']} | {row['bound']:.3g} |" in CHAPTER
        )
    for row in stored("moduli-waves/moduli.json")["rows"]:
        assert f"{row['value']:.5g}" in CHAPTER
    facts = stored("waves-8/approximate.json")
    assert f"L2 error {facts['l2_error']:.4f}" in CHAPTER
    assert facts["largest_difference_to_semantics"] == 0
