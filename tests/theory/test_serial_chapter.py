"""The numbers of docs/constructions.md on serial steps and on squaring are those of the files of its commands."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = (ROOT / "docs/constructions.md").read_text()


def stored(name: str) -> dict:
    folder = f"results/constructions/{Path(name).parent}"
    assert f"--out {folder}\n" in CHAPTER
    for figure in (ROOT / folder).glob("*.svg"):
        assert f"](../{folder}/{figure.name})" in CHAPTER
        assert figure.stat().st_size < 300_000
    return json.loads((ROOT / "results/constructions" / name).read_text())


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |\n"


def test_serial_steps():
    facts = stored("serial-s5/automaton.json")
    assert facts["model_right"] == facts["prefixes"][-1] == facts["serial_last"][-1] == 1
    units, weights = facts["cost"]["units"], facts["cost"]["non_zeros"]
    assert f"{facts['cost']['registers']} registers, {units} units and {weights} nonzero weights" in CHAPTER
    text = " ".join(CHAPTER.split())
    assert f"After {facts['loops'] - 1} loops {facts['prefixes'][-2]:.1%} of the prefixes are right" in text
    assert f"and {facts['last'][-2]:.1%} of the last ones" in text
    assert f"another word is right with {facts['chance']:.1%}" in text
    content = stored("serial/serial.json")
    assert [r["n"] for r in content["checks"] if r["circuit"] == "S5"] == [1, 2, 5, 16, 63, 64, 255, 1024]
    for r in content["checks"]:
        assert r["wrong"] == r["wrong_model"] == 0
        fewer = "" if r["last_with_one_fewer"] is None else f"{r['last_with_one_fewer']:.1%}"
        assert row(r["circuit"], r["n"], r["examples"], r["loops"], 0, 0, fewer) in CHAPTER
    for r in content["formats"]:
        n, *shares = r.values()
        assert row(n, *(f"{share:.1%}" for share in shares)) in CHAPTER
    for r in content["rows"]:
        spare = 2 if r["problem"] == "shortest paths" else 0
        assert r["needed"] == r["loops"] - spare


def test_squaring():
    content = stored("squaring/square.json")
    for r in content["rows"]:
        errors = (f"{r[key]:.3g}" for key in ("bound", "exact", "float64", "float32"))
        assert row(r["loops"], *errors, r["tied"], r["untied"]) in CHAPTER
        assert r["exact"] == r["bound"]
        assert r["least"] >= 0
    for r in content["functions"]:
        sizes = (r[key] for key in ("function", "registers", "units", "non_zeros", "loops"))
        assert row(*sizes, f"{r['error']:.3g}") in CHAPTER
    content = stored("squaring-lipschitz/lipschitz.json")
    for r in content["rows"]:
        cells = (r["dim"], r["cells"], f"{r['loops']:,}", f"{r['error']:.4f}", f"{r['bound']:.4f}", f"{r['bits']:,}")
        assert row(*cells, f"{r['table_numbers']:,}", f"{r['table_error']:.4f}") in CHAPTER
        assert r["error"] <= r["bound"]
        assert r["difference"] in (0, None)
    slopes = content["slopes"]
    text = " ".join(CHAPTER.split())
    assert f"exponents {slopes['d=1']:.3f} for d = 1 and {slopes['d=2']:.3f} for d = 2" in text


def test_cups():
    content = json.loads((ROOT / "results/constructions/serial-cups/cups.json").read_text())
    assert f"for {content['steps']:,} steps" in CHAPTER
    for name, values in content["accuracy"].items():
        assert row(name.replace(" 1 loops", " 1 loop"), *(f"{value:.3f}" for value in values)) in CHAPTER
