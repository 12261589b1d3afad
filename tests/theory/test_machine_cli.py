"""`looped theory run` and the checks of the machines, as a user calls them."""

import json
from pathlib import Path

import numpy as np
import pytest

from looped.cli import main
from looped.commands.theory.machine import run
from looped.theory.computer.assembler import assemble
from looped.theory.computer.execution import execute
from looped.theory.computer.programs import PROGRAMS
from looped.theory.computer.tracing import expected_states, follow


def theory(*words: str) -> int:
    return main(["theory", *words])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_examples_are_named_in_the_help():
    assert f"an example: {', '.join(PROGRAMS)}." in " ".join((run.__doc__ or "").split())
    assert set(PROGRAMS) > {"multiply", "fibonacci", "gcd", "sort", "primes", "matrix", "triangle", "tower"}


def test_run(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert theory("run", "multiply", "--input", "-4", "6", "--out", "o") == 0
    out = capsys.readouterr().out
    assert "multiply.asm: 7 instructions, 7 tokens. Machine 'subleq': one layer, 19 registers" in out
    assert "product: 0 -> -4" in out
    assert "(8 more instructions)" in out
    assert "38 loops for 38 instructions" in out
    facts = json.loads((folder / "o/run.json").read_text())
    assert (facts["result"], facts["halted"], facts["loops"], facts["units"]) == ({"product": [-24]}, True, 38, 28)
    assert len(facts["trace"]["counter"]) == 38
    assert facts["trace"]["counter"][-1] == 6
    text = (folder / "o/memory.svg").read_text()
    assert "mathdefault" not in text
    assert "product" in text


def test_other_machines_and_pictures(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert theory("run", "3 + 4 * 5") == 0
    assert "37 loops" in capsys.readouterr().out
    assert theory("run", "3 + 2 * -2", "--machine", "four") == 0
    assert "result │ -1" in capsys.readouterr().out
    text = "machine self-modifying\npicture p 3 1 0 0 2*0 1\ncell x\nput: sub -1 p+1\nsub -3 put+1\nsub x x put\nhalt\n"
    (folder / "cross.asm").write_text(text.replace("sub x x put\n", "sub -1 x\n"))
    assert theory("run", "cross.asm") == 0
    out = capsys.readouterr().out
    assert "\n##\n  #\n" in out
    assert "line 4, word 1: 13 -> 16" in out
    assert "8 loops for 4 instructions" in out


@pytest.mark.parametrize("loops", [1, 7])
def test_a_program_that_has_not_halted(loops: int, capsys: pytest.CaptureFixture[str]):
    assert theory("run", "sum", "--loops", str(loops)) == 2
    out, error = capsys.readouterr()
    assert f"{loops} loops for {loops // 2} instructions" in out
    assert error == f"looped: error: sum.asm: has not halted after --loops {loops}\n"


def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "endless.asm").write_text("input x 1\nloop: sub -1 x\n sub 1 x\n jump loop\n")
    (folder / "large.asm").write_text("cell a 5000*1\nhalt\n")
    (folder / "off.asm").write_text("cell a\nadd 1 a\n")
    for words, message in {
        ("endless.asm",): "endless.asm: does not halt within 100,000 loops; expected --loops N with the most loops",
        ("large.asm",): "large.asm: cells or instructions=5001: expected at most 4,096",
        ("off.asm",): "off.asm:2: the program can run off its end; expected a jump or halt as the last line",
        ("multply",): "program 'multply': no such file (did you mean 'multiply'?); expected a file, an expression",
        ("3 / 4",): "expression '3 / 4': '3 / 4': expected whole numbers, +, -, * and parentheses",
        ("sort", "--loops", "0"): "loops=0: expected 1 to 1,000,000",
        ("endless.asm", "--loops", "1000000001"): "loops=1000000001: expected 1 to 1,000,000",
        ("1*" * 2000,): f"expression '{'1*' * 2000}': expected whole numbers, +, -, * and parentheses",
        ("gcd", "--input", "1", "2", "3"): "input: 3 numbers; expected at most 2: a, b",
    }.items():
        assert theory("run", *words) == 2
        out, error = capsys.readouterr()
        assert error.startswith(f"looped: error: {message}"), error
        assert error.count("\n") == 1
        assert not out


@pytest.mark.parametrize("kind", ["subleq", "self-modifying"])
def test_the_model_stops_by_itself_when_the_program_halts(kind: str):
    """Also if that is at the end of a call of the model, one instruction before it, or one after it."""
    for count in range(1, 7):
        image = assemble("cell x\n" + "sub -1 x\n" * count + "halt", "f", kind)
        machine = image.machine()
        events = follow(image, 100)
        assert len(events) == count + 1
        states = np.concatenate(list(execute(machine, machine.inputs(image.memory, image.code), 500, chunk=4)))
        assert len(states) == machine.loops * len(events)
        cells = states[:, :, machine.program.circuit.registers.index("m")]
        assert (cells == np.array([memory for memory, _ in expected_states(image, machine, events)])).all()


def test_checks(folder: Path, capsys: pytest.CaptureFixture[str]):
    words = ("--programs", "2", "--model-programs", "1", "--softmax-programs", "0", "--out", "o")
    assert theory("machines", *words) == 0
    facts = json.loads((folder / "o/machines.json").read_text())
    assert all(row["wrong"] == row["wrong_in_model"] == 0 for row in facts["random"])
    assert {row["programs"] for row in facts["random"]} == {2}
