"""`looped theory` as a reader of the paper uses it, and as one who makes mistakes."""

import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from theory_cases import shorten_search

from looped.cli import main
from looped.commands.theory import COMMANDS
from looped.theory import continuity, rates
from looped.theory.cells import Cells
from looped.theory.functions import waves
from looped.training import load_run

OPTIONS = {
    "constructions": {"out"},
    "compare": {"d", "N", "eps", "max-loops", "out"},
    "memories": {"count", "d", "bits", "seed", "out"},
    "approximate": {"d", "N", "n", "kind", "samples", "slope", "radix-bits", "paper-size", "max-loops",
                    "all-sequences", "out"},
    "automaton": {"length", "examples", "seed", "out"},
    "lipschitz": {"n", "samples", "out"},
    "learners": {"n", "d", "condition", "seed", "out"},
    "memorise": {"count", "d", "bits", "digit", "seed", "out"},
    "moduli": {"d", "N", "deltas", "p", "grid", "num-loops", "out"},
    "rate": {"d", "N", "n", "kinds", "p", "samples", "out"},
    "regression": {"n", "d", "loops", "samples", "training-steps", "seed", "out"},
    "roughness": {"n", "samples", "out"},
    "run": {"input", "machine", "loops", "out"},
    "machines": {"programs", "model-programs", "softmax-programs", "seed", "out"},
    "pointers": {"out"},
    "graph": {"source", "undirected", "out"},
    "graphs": {"count", "seed", "out"},
    "sudoku": {"singles-only", "box", "sample", "loops", "seed", "on-bad-row", "beside", "out"},
    "serial": {"sizes", "examples", "seed", "out"},
    "square": {"loops", "out"},
    "strings": {"pairs", "examples", "seed", "out"},
    "wavefront": {"gap", "replace", "out"},
}  # fmt: skip
FILE = """
import torch
def good(x): return x.mean(1, keepdim=True) * x
def ordered(x): return x * torch.arange(1, x.shape[1] + 1)[:, None]
def infinite(x): return 1 / (x - x)
def imaginary(x): return 1j * x
def leaves(x): raise SystemExit(7)
def doubles(x): return x.mul_(2)
def huge(x): return 1e300 * x
def nearly(x): return torch.where((x > 0.4) & (x < 0.40001), torch.nan, x)
def flat(x): return x.sum(-1)
def jumps(x): return torch.floor(2 * x)
number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "f.py").write_text(FILE)
    (tmp_path / "broken.py").write_text("import nowhere\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def theory(command: str) -> int:
    return main(["theory", *command.split()])


def svg(path: Path) -> str:
    text = path.read_text()
    assert text.startswith("<?xml")
    assert "mathdefault" not in text
    return text


@pytest.mark.parametrize("loops", ["plain", "tuned", "radix", "modulated"])
def test_approximate(folder: Path, loops: str, short_search, capsys: pytest.CaptureFixture[str]):
    assert theory(f"approximate f.py:good --n 3 --kind {loops} --samples 50 --all-sequences --out o") == 0
    facts = json.loads((folder / "o/approximate.json").read_text())
    assert facts["exact_right"] == facts["exact_sequences"] == 9
    assert facts["largest_difference_to_semantics"] < 1e-12
    assert 0 < facts["l2_error"] < 0.4
    assert {row["kind"] for row in facts["rows"]} == {"plain", loops}
    assert "loops" in svg(folder / "o/error.svg")
    assert "beta0" in svg(folder / "o/life.svg")
    out = capsys.readouterr().out
    assert out.index("prediction for pure float64") < out.index("model, ")
    assert "loop by loop" in out


def test_precision_is_said_before_it_runs(folder: Path, short_search, capsys: pytest.CaptureFixture[str]):
    for size, said, right in (("--n 2", "right", "100.0%"), ("--n 3", "fails", "")):
        assert theory(f"approximate waves {size} --samples 400 --paper-size") == 0
        out = capsys.readouterr().out
        assert f"prediction for pure float64: {said}" in out
        assert "dimension 26 and width 74" in out
        share = re.search(r"every loop\): ([\d.]+%)", out)
        assert share is not None
        assert share[1] == right if right else share[1] != "100.0%"


def test_memorise(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert theory("memorise --count 20 --d 2 --bits 4 --digit 2 --out o") == 0
    content = json.loads((folder / "o/memorise.json").read_text())
    rows = {row["variant"]: row for row in content["rows"]}
    assert rows["modulated, selecting"]["float64"] == 0
    for row in rows.values():
        assert row["exact"] <= row["bound"] * (1 + 1e-9) + 1e-12
    assert rows["radix"]["float64"] > 2 * rows["radix"]["bound"]
    shares = {row["count"]: row for row in content["curve"]}
    assert [shares[14]["float32"], shares[28]["float64"], shares[200]["exact"]] == [1.0, 1.0, 1.0]
    assert shares[200]["float32"] < shares[200]["float64"] < 0.4
    assert "exact" in svg(folder / "o/precision.svg")
    assert "prediction" in capsys.readouterr().out


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> Callable[..., continuity.Modulus]:
    """The search for moduli, with few pairs and steps wherever it is called."""
    return shorten_search(monkeypatch, samples=128, steps=10)


def test_moduli_of_functions(folder: Path, short_search, capsys: pytest.CaptureFixture[str]):
    assert theory("moduli waves --deltas 0.1 0.2 --grid 10 --p 1 --out o") == 0
    assert "(lower bound)" in capsys.readouterr().out
    content = json.loads((folder / "o/moduli.json").read_text())
    values = {(row["side"], row["kind"], row["delta"]): row["value"] for row in content["rows"]}
    assert len(values) == len(content["rows"]) == 2 * 3 * 2
    for kind, delta in itertools.product(continuity.KINDS, (0.1, 0.2)):
        found = short_search(waves, kind, delta, seq=2, dim=1, p=1.0).value
        grid = continuity.on_grid(waves, kind, delta, seq=2, dim=1, p=1.0, grid=10).value
        assert values["lower bound", kind, delta] == found >= 0.99 * grid
        assert values["exact on the grid", kind, delta] == grid
        assert values["lower bound", kind, 0.1] < values["lower bound", kind, 0.2]
    assert theory("moduli f.py:good --N 1 --deltas 0.1") == 0
    assert "no other token" in capsys.readouterr().out


def test_moduli_of_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch):
    short_search = shorten_search(monkeypatch, samples=8, steps=2)
    settings = (
        "--task.length 4 --model.num-loops 2 --model.d-model 8 --model.num-heads 2 --optim.warmup-steps 1 "
        "--train.steps 2 "
        "--train.batch-size 4 --train.eval-examples 4 --train.device cpu --train.precision fp32 "
        "--train.compile False --train.workers 0"
    )
    assert main(["train", "edit-distance-small", "--out", "run", *settings.split()]) == 0
    model = load_run(Path("run"))[1]
    dim, values = model.config.vocab_size or 0, {}
    assert dim > 10
    for loops, words in ((2, ""), (1, "--num-loops 1")):
        assert theory(f"moduli run --deltas 0.1 --N 3 {words} --out o") == 0
        content = json.loads((folder / "o/moduli.json").read_text())
        assert (content["dim"], content["seq"]) == (dim, 3)
        values[loops] = {row["kind"]: row["value"] for row in content["rows"]}
        assert values[loops] == {
            kind: short_search(rates.function_of(model, loops), kind, 0.1, seq=3, dim=dim).value
            for kind in continuity.KINDS
        }
    assert all(0 < values[1][kind] != values[2][kind] for kind in continuity.KINDS)


def test_rate_and_roughness(folder: Path, short_search, capsys: pytest.CaptureFixture[str]):
    assert theory("rate waves --n 2 4 --kinds plain modulated --samples 500 --out o") == 0
    out = capsys.readouterr().out
    content = json.loads((folder / "o/rate.json").read_text())
    rows = {(row["cells"], row["kind"]): row for row in content["rows"]}
    assert len(rows) == len(content["rows"]) == 4
    expected = [
        row for n in (2, 4) for row in rates.measure(waves, Cells(1, 2, n), kinds=("plain", "modulated"), samples=500)
    ]
    assert content["rows"] == json.loads(json.dumps(expected))
    for kind, value in content["slopes"].items():
        assert rows[4, kind]["error"] < rows[2, kind]["error"]
        fallen = math.log(rows[4, kind]["error"] / rows[2, kind]["error"])
        assert value == pytest.approx(fallen / math.log(rows[4, kind]["loops"] / rows[2, kind]["loops"]))
        assert f"{kind}: error falls as loops^{value:.3f}" in out
    svg(folder / "o/error.svg")
    assert theory("roughness --n 3 --samples 50 --out o") == 0
    rough = json.loads((folder / "o/roughness.json").read_text())["rows"]
    assert rough == json.loads(json.dumps(rates.roughness(n=3, samples=50)))
    assert [row["roughness"] for row in rough] == [0, 0.25, 0.5, 1]
    assert rough[-1]["plain"] > 2 * rough[-1]["modulated"]
    svg(folder / "o/stall.svg")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("approximate f.py:ordered", "permutation-equivariant function, but permuting the tokens"),
        ("approximate f.py:infinite", "finite values, got others at"),
        ("approximate f.py:flat", "expected values of shape"),
        ("approximate f.py:number", "expected a function named 'number'"),
        ("approximate f.py:nothing", "expected a function named 'nothing'"),
        ("approximate none.py:f", "none.py: no such file"),
        ("approximate broken.py:f", "broken.py: ModuleNotFoundError"),
        ("approximate other", "expected file.py:name or one of waves"),
        ("approximate waves --n 1", "n=1: expected a whole number, at least 2"),
        ("approximate waves --d 0", "d=0"),
        ("approximate waves --n x", "--n"),
        ("approximate waves --n 99", "largest n within it is 36"),
        ("approximate waves --n 8 --max-loops 100", "largest n within it is 3"),
        ("approximate waves --n 8 --slope 1", "slope=1: expected 2 to"),
        ("approximate waves --kind other", "other"),
        ("approximate rough --N 3", "two tokens"),
        ("approximate waves --samples 0", "samples=0"),
        ("approximate waves --n 17 --N 3 --kind modulated --all-sequences", "at most 4,096 sequences"),
        ("approximate f.py:imaginary", "complex values"),
        ("approximate f.py:leaves", "f: SystemExit at an input"),
        ("approximate f.py:huge", "values up to 1e+100"),
        ("approximate waves --N 1000000000", "expected n^((N+1)d) to be at most 2^200"),
        ("memorise --count 0", "count=0: expected 2 to 1000"),
        ("memorise --count 1", "count=1"),
        ("memorise --bits 0", "bits=0"),
        ("memorise --bits 100000", "bits=100000: expected 1 to 40"),
        ("memorise --seed -1", "seed=-1: expected at least 0"),
        ("moduli waves --deltas", "deltas=(): expected at least one"),
        ("moduli waves --p 1e300", "p=1e+300: expected 1 to 32, or inf"),
        ("moduli waves --grid 0 --deltas 0.1", "grid=0: expected at least 1"),
        ("moduli waves --num-loops 3", "num_loops=3: expected a run folder"),
        ("moduli waves --N 1000000000", "N d=1000000000: expected at most 16384"),
        ("moduli f.py:nearly --deltas 0.1", "f: expected finite values, got others"),
        ("moduli waves --out f.py", "f.py: a file; expected a folder"),
        ("rate waves --n", "n=(): expected at least one"),
        ("rate waves --n 2 2", "--n: 2 is given twice"),
        ("rate waves --kinds", "kinds=(): expected at least one"),
        ("rate waves --n 2 --N 1000000000", "expected n^((N+1)d) to be at most 2^200"),
        ("moduli waves --deltas 0", "delta=0"),
        ("moduli waves --p 0.5", "p=0.5"),
        ("moduli waves --grid 9999", "grid=9999"),
        ("moduli .", "no"),
        ("rate waves --n 2 999", "at most 2^24 labels"),
        ("rate waves --samples 0", "samples=0"),
        ("roughness --n 1", "n=1"),
        ("approximat", "did you mean"),
        ("wavefront abc ABC", "second='ABC': expected 1 to 60 of the letters a-z"),
        ("strings --pairs 0", "pairs=0: expected 1 to 100,000"),
        ("strings --examples 1000000000000", "examples=1000000000000: expected 1 to 100,000"),
        ("machines --programs 1000000000000", "programs=1000000000000: expected 1 to 100,000"),
        ("wavefront abc abd --gap 1000000000", "gap=1000000000: expected 1 to 100"),
        ("wavefront abc abd --replace 5", "replace=5: expected 0 to 4, because two gaps of 2 replace a letter"),
    ],
)
def test_mistakes_are_one_line(command: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert theory(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("looped: error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_jump_is_a_warning(folder: Path, short_search, capsys: pytest.CaptureFixture[str]):
    assert theory("approximate f.py:jumps --n 2 --samples 20") == 0
    assert re.fullmatch(r"looped: warning: f seems to jump by 1 near .*\n", capsys.readouterr().err)


def test_a_function_may_change_its_input(folder: Path, short_search, capsys: pytest.CaptureFixture[str]):
    assert theory("moduli f.py:doubles --deltas 0.1") == 0
    assert "0.2 (lower bound)" in capsys.readouterr().out


def test_the_largest_norm(folder: Path, short_search, capsys: pytest.CaptureFixture[str]):
    assert theory("moduli waves --deltas 0.1 --p inf --out m") == 0
    stored = json.loads((folder / "m/moduli.json").read_text(), parse_constant=pytest.fail)  # Infinity is no JSON
    assert stored["p"] == "inf"
    assert rates.lp_error(np.array([[[1.0], [3.0]]]), np.zeros((1, 2, 1)), float("inf")) == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_the_options(command: str, capsys: pytest.CaptureFixture[str]):
    assert theory(f"{command} --help") == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    told = set(re.findall(r"--(?!no-)([A-Za-z][a-z-]*)", text)) - {"help"}
    assert ("file.py:name" in text) == ("file is run as Python" in text)
    assert {name for name in told if name in OPTIONS[command]} == OPTIONS[command]
    assert set(OPTIONS) == set(COMMANDS)
    assert torch.get_default_dtype() == torch.float32


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]):
    for words in ([], ["--help"]):
        assert main(["theory", *words]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == list(COMMANDS)
