"""The numbers of docs/constructions.md about machines and pointers are those of the files that its commands wrote."""

import json
import re
from pathlib import Path

import pytest

from looped.commands.theory import COMMANDS
from looped.theory.computer.programs import PROGRAMS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/constructions.md").read_text()


def stored(name: str) -> dict:
    return json.loads((ROOT / "results/constructions" / name).read_text())


def sizes() -> list[str]:
    return [
        f"| {row['machine']} | {row['registers']} | {row['heads']} of size {row['head_size']} | {row['units']} "
        f"| {row['non_zeros']} | {row['loops_per_instruction']} |"
        for row in stored("machines/machines.json")["sizes"]
    ]


def random() -> list[str]:
    return [
        f"| {row['machine']} | {row['tokens']} | {row['programs']:,} | {row['wrong']} | {row['programs_in_model']} "
        f"| {row['wrong_in_model']} |"
        for row in stored("machines/machines.json")["random"]
    ]


def softmax() -> list[str]:
    rows = stored("machines/machines.json")["softmax"]
    lines = ["| machine | tokens | " + " | ".join(dict.fromkeys(f"{r['inverse_temperature']:g}" for r in rows)) + " |"]
    for kind, tokens in dict.fromkeys((row["machine"], row["tokens"]) for row in rows):
        wrong = [row["wrong"] for row in rows if (row["machine"], row["tokens"]) == (kind, tokens)]
        lines.append(f"| {kind} | {tokens} | {' | '.join(map(str, wrong))} |")
    return lines


def programs() -> list[str]:
    return [
        f"| {row['program']} | " + " | ".join(f"{row[f'{kind}_instructions']}, {row[f'{kind}_executed']:,}" for kind in
        ("subleq", "four")) + " |"
        for row in stored("machines/machines.json")["examples"] if "subleq_executed" in row
    ]  # fmt: skip


def pointers() -> list[str]:
    content = stored("pointers/pointers.json")
    lines = []
    for limit in content["largest"]:
        rows = [r for r in content["temperatures"] if r["encoding"] == limit["encoding"] and r["n"] in (16, 256, 2048)]
        size, gap = (" / ".join(dict.fromkeys(f"{row[key]:.3g}" for row in rows)) for key in ("head_size", "gap"))
        needed = " / ".join(
            f"{t:.1f}" if t < 100 else f"{t:,.0f}" for t in (row["inverse_temperature"] for row in rows)
        )
        largest = " | ".join(f"{limit[kind]:,}" for kind in ("bf16", "fp16", "fp32"))
        lines.append(f"| {limit['encoding']} | {size} | {gap} | {needed} | {largest} |")
    return lines


def run_line(name: str) -> str:
    facts = stored(f"{name}/run.json")
    done = len(facts["trace"]["counter"])
    return f"{facts['loops']:,} loops execute {done:,} instructions, in {facts['model_seconds']:.1f} s"


@pytest.mark.parametrize("rows", [sizes, random, softmax, programs, pointers])
def test_tables(rows):
    assert len(rows()) >= 3
    for row in rows():
        assert row in PAGE


def test_everything_was_right():
    facts = stored("machines/machines.json")
    assert all(row["wrong"] == row["wrong_in_model"] == 0 for row in facts["random"])
    assert sum(row["programs"] for row in facts["random"]) == 9000
    for row in facts["softmax"]:
        enough = 28 if row["machine"] == "four" else 12
        assert (row["wrong"] == 0) == (row["inverse_temperature"] >= enough)


def test_runs_and_commands():
    page = " ".join(PAGE.split())
    for name in ("sort", "tower"):
        assert run_line(name) in page
    commands = re.findall(r"looped theory (run|machines|pointers)[^\n`]*--out (results/constructions/[\w-]+)", PAGE)
    assert {name for name, _ in commands} == {"run", "machines", "pointers"} <= set(COMMANDS)
    assert all((ROOT / folder).is_dir() for _, folder in commands)
    assert ", ".join(PROGRAMS) in page
    assert PROGRAMS["gcd"].read_text() in PAGE
