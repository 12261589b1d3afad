"""`looped theory memories` and `looped theory compare`, and the numbers that docs/constructions.md has from them."""

import json
from pathlib import Path

import numpy as np
import pytest

from looped.cli import main
from looped.theory.cells import evaluate
from looped.theory.functions import waves
from looped.theory.memories import formula
from looped.theory.rates import lp_error, resolution

ROOT = Path(__file__).resolve().parents[2]


def theory(command: str) -> int:
    return main(["theory", *command.split()])


def test_memories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    assert theory("memories --count 32 --bits 3 --out o") == 0
    rows = json.loads(Path("o/memories.json").read_text())["rows"]
    assert [row["kind"] for row in rows] == ["wide", "deep", "modulated", "digits", *["grouped"] * 5]
    for row in rows:
        assert formula(row["kind"], 32, 1, 3, groups=row["groups"])._asdict().items() <= row.items()
        assert row["numbers"] * row["bits"] >= 96
        assert row["exact_wrong"] == 0 < row["exact_inputs"]
        assert row["float64"] == (row["bits"] <= 48)
        assert not row["float64"] or row["model_wrong"] == 0
        assert row["numbers"] < row["weights"]
    assert [row["numbers"] * (row["loops"] - 1) for row in rows if row["kind"] == "grouped"] == [96] * 5
    assert "numbers x depth = 96" in Path("o/trade.svg").read_text()
    assert "sqrt(K)" in capsys.readouterr().out


def test_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    assert theory("compare waves --eps 0.4 0.3 --out o") == 0
    rows = json.loads(Path("o/compare.json").read_text())["rows"]
    assert len(rows) == 10
    for row in rows:
        assert row["error"] <= row["eps"]
        assert row["exact_wrong"] == 0 < row["exact_inputs"]
        assert not row["float64"] or (row["model_wrong"], row["model_inputs"]) == (0, 100)
        size = formula(row["kind"], row["labels"], 1, row["label_bits"], groups=row["groups"])
        assert size._asdict().items() <= row.items()
    assert "numbers that depend on the function" in Path("o/error.svg").read_text()
    assert "K=64 labels of B=2 bits" in capsys.readouterr().out


def test_resolution_reaches_the_error_with_the_fewest_bits():
    found = resolution(waves, 0.2, dim=1, seq=2, most=10_000)
    x = np.random.default_rng(5).random((20_000, 2, 1))
    assert lp_error(found.labels.values[found.cells.lookup(x)], evaluate(waves, x)) == pytest.approx(0.2, rel=0.05)
    loops = found.cells.count * found.bits + 1
    with pytest.raises(ValueError, match=f"eps=0.2: needs more than {loops - 1:,} loops"):
        resolution(waves, 0.2, dim=1, seq=2, most=loops - 1)
    assert resolution(waves, 0.2, dim=1, seq=2, most=loops).cells == found.cells


def test_the_numbers_of_the_chapter():
    page = (ROOT / "docs/constructions.md").read_text()
    folder = ROOT / "results/constructions/memories"
    random = json.loads((folder / "memories.json").read_text())
    waves = json.loads((folder / "compare.json").read_text())
    sizes = ("layers", "loops", "weights", "numbers", "bits")
    for row in random["rows"]:
        grouped = row["kind"] == "grouped"
        columns = (row["layers"], row["loops"], row["width"], *(row[name] for name in sizes[2:]))
        line = f"| {row['kind']} | {row['groups'] if grouped else ''} | ".replace("|  |", "| |")
        line += " | ".join(f"{v:,}" for v in (*columns, row["numbers"] * row["bits"]))
        assert line in page or (grouped and row["groups"] not in (4, 32, 256))
    for row in waves["rows"]:
        name = f"grouped, G={row['groups']}" if row["kind"] == "grouped" else row["kind"]
        line = f"| {name} | " + " | ".join(f"{row[size]:,}" for size in sizes) + " |"
        assert line in page
        assert f"| {row['error']:.4f} | {row['cells']} | {row['labels']:,} | {row['label_bits']} |" in page
    tokens = json.loads((ROOT / "results/constructions/memories-tokens/compare.json").read_text())
    digits, grouped = tokens["rows"][-2:]
    assert (
        f"n = {grouped['cells']} and B = {grouped['label_bits']}: {digits['loops']:,} loops with one number, or" in page
    )
    assert f"{grouped['numbers']} numbers of {grouped['bits']} bits and {grouped['loops']} loops" in page
    for kind in ("modulated", "grouped"):
        first, last = [row for row in waves["rows"] if row["kind"] == kind][-2:]
        exponent = np.log(last["error"] / first["error"]) / np.log(last["depth"] / first["depth"])
        assert f"{exponent:.3f}" in page
    assert not any(
        row["exact_wrong"] or row.get("model_wrong") for row in random["rows"] + waves["rows"] + tokens["rows"]
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("memories --count 2", "count=2: expected 3 to 4096"),
        ("memories --bits 17", "bits=17: expected 1 to 16"),
        ("memories --count 4096 --bits 16 --d 100", "count bits d=6553600: expected at most 200000"),
        ("memories --seed -1", "seed=-1"),
        ("compare waves --eps", "eps=(): expected at least one"),
        ("compare waves --eps 0.3 0.3", "--eps: 0.3 is given twice"),
        ("compare waves --eps 0", "eps=0.0: expected a positive number"),
        ("compare waves --eps nan", "eps"),
        ("compare waves --eps 0.3 0.01 --max-loops 500", "eps=0.01: needs more than 500 loops, the budget; the small"),
        ("compare waves --max-loops 1", "max_loops=1: expected 2 to 200000"),
        ("compare waves --N 0", "N=0"),
        ("compare waves --N 1000000000", "expected n^((N+1)d) to be at most 2^200"),
        ("compare waves --N 100", "needs more than 100,000 loops, the budget; no n is within it"),
        ("compare mixed --d 1", "f: "),
        ("compare other", "expected file.py:name or one of waves"),
    ],
)
def test_mistakes_are_one_line(command: str, message: str, capsys: pytest.CaptureFixture[str]):
    assert theory(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("looped: error: ")
    assert error.count("\n") == 1
    assert message in error
