"""Mistakes in tables and their settings: each ends in one clear line and exit code 2, and nothing is lost."""

import csv
import io
import shlex
import shutil
from pathlib import Path

import pytest
from test_bad_input import SMALL, Case, contents, lines, put

from looped.cli import main

RUN = "train in-context-tables-looped --task.points 5 --task.dim 61 --model.num-loops 2 " + SMALL
RUN = RUN.replace("--optim.warmup-steps 2", "")
TABLES = "train in-context-tables-looped --out new --train.workers 0 --task.tables "

CASES = {
    "no model of the answers": Case(
        "train in-context-tree-looped --out new --model.no-causal", ("model.causal=False", "True", "in_context")
    ),
    # To be solved
    "column of words": Case(
        "solve run in.txt", ("in.txt, line 3, column 'b'", "'red'", "number"), lines("a,b,k", "1,2,x", "1,red,y")
    ),
    "missing value": Case(
        "solve run in.txt", ("in.txt, line 2, column 'a'", "missing", "number"), lines("a,b,k", ",2,x", "1,2,y")
    ),
    "too few columns": Case(
        "solve run in.txt", ("in.txt, line 3", "expected 3 columns, not 2"), lines("a,b,k", "1,2,x", "1,2")
    ),
    "no names": Case("solve run in.txt", ("in.txt, line 1", "names of the features"), lines("1,2", "3,4")),
    "nothing to predict": Case("solve run in.txt", ("in.txt", "0 without"), lines("a,b,k", "1,2,x", "3,4,y")),
    "too much context": Case("solve run in.txt", ("in.txt", "1 to 4"), lines("a,k", *["1,x", "2,y"] * 3, "3,")),
    "one class": Case("solve run in.txt", ("in.txt", "classes 'x'", "two"), lines("a,k", "1,x", "2,x", "3,")),
    "index of pandas": Case(
        "solve run in.txt", ("in.txt, line 1", "column 1 has no name", "index=False"), lines(",b,k", "0,2,x", "1,1,")
    ),
    "too large for float32": Case(
        "solve run in.txt", ("in.txt, line 3, column 'a'", "'1e39'", "finite"), lines("a,b,k", "1,2,x", "1e39,1,")
    ),
    "huge cell": Case(
        "solve run in.txt",
        ("in.txt, line 2, column 'b'", "777...777"),
        lines("a,b,k", '1,"' + "7" * 140_000 + '",x', "2,3,"),
    ),
    "undeclared class": Case(
        "solve run in.txt",
        ("in.txt, line 4, column 'k'", "'z'", "['x', 'y']"),
        lines("@attribute a real", "@attribute k {x,y}", "@data", "1,z", "2,?"),
    ),
    # To be trained on
    "data set of OpenML": Case(
        TABLES + "credit-g iris --task.held-out iris", ("'credit-g'", "no such file", "openml.org", "download")
    ),
    "data set nearly": Case(TABLES + "irs wine", ("'irs'", "did you mean 'iris'")),
    "constant column": Case(
        TABLES + "in.txt wine", ("in.txt, column 'a'", "constant"), lines("a,b,k", *["1,2,x", "1,3,y"] * 9)
    ),
    "too few rows": Case(
        TABLES + "in.txt wine", ("in.txt", "rows of two classes", "points=41"), lines("a,b,k", *["1,2,x", "2,3,y"] * 9)
    ),
    "rare class": Case(
        TABLES + "in.txt wine", ("in.txt", "1 rows of class 'y'", "half"), lines("a,b,k", *["1,2,x"] * 9, "2,3,y")
    ),
    "number for a class": Case(TABLES + "diabetes wine", ("'diabetes'", "target_type='number'")),
    "categories": Case(TABLES + "in.txt wine", ("in.txt, column 'a'", "--task.categories"), lines("a,k", "u,x", "v,y")),
    "missing feature": Case(
        TABLES + "in.txt wine", ("in.txt, line 3, column 'b'", "missing value"), lines("a,b,k", "1,2,x", "2,,y")
    ),
    "another target": Case(
        TABLES + "in.txt wine --task.target grade",
        ("in.txt", "['a', 'k']", "grade", "expected one"),
        lines("a,k", "1,x"),
    ),
    "empty table": Case(TABLES + "in.txt wine", ("in.txt", "empty file"), put("in.txt", "")),
    "held out of nothing": Case(TABLES + "iris digits", ("task.held_out='wine'", "iris, digits")),
    "curriculum without steps": Case(
        "train in-context-tree-looped --out new --task.dim-every None", ("task.dim_every=None", "start_dim=5")
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    assert main([*shlex.split(RUN), "--out", str(root / "run")]) == 0
    return root


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a copy of the run."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_mistake_is_one_clear_line(case: Case, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if case.prepare:
        case.prepare()
    before = contents(folder)
    code = main(shlex.split(case.command))
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert err.startswith("looped: error: ")
    assert err.count("\n") == 1, err
    for part in case.says:
        assert part in err
    assert contents(folder) == before


def test_the_last_column_is_filled_in(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines("a,b,kind", "1,5,red", "2,4,blue", "3,3,", "1,4,red", "9,9,", "x,1,red")()
    assert main(shlex.split("solve run in.txt --on-bad-row skip")) == 0
    out, err = capsys.readouterr()
    assert err == "1 bad row skipped\n"
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 2
    assert {row["answer"] for row in rows} <= {"red", "blue"}
    assert all(0.5 <= float(row["confidence"]) <= 1 and row["expected"] == "" for row in rows)


def test_evaluation_leaves_curves_with_baselines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split("evaluate run --examples 8 --loops 1 2 --split validation")) == 0
    assert "accuracy, validation split" in capsys.readouterr().out
    text = (folder / "run/in_context.jsonl").read_text()
    assert all(word in text for word in ('"model"', '"boosted trees"', '"validation"', '"wine"'))
    assert main(shlex.split("report run --out new")) == 0
    assert "Tables in context" in (folder / "new/report.md").read_text()


def test_categories_gaps_and_another_target(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{'yes' if k % 3 else 'no'};{'red' if k % 2 else 'blue'};{k % 7 or ''}" for k in range(60)]
    Path("train.csv").write_text("\n".join(["answer;colour;size", *rows]) + "\n")
    options = "--task.target answer --task.categories onehot --task.missing mean --task.points 5 --model.num-loops 2 "
    options += "--task.tables train.csv wine " + SMALL.replace("--optim.warmup-steps 2", "")
    assert main(shlex.split(f"train in-context-tables-looped --out new {options}")) == 0, capsys.readouterr().err
    Path("train.csv").unlink()
    lines("colour;answer;size", "red;yes;1", "blue;no;", "blue;?;3", "red;;2")()
    capsys.readouterr()
    assert main(shlex.split("solve new in.txt")) == 0, capsys.readouterr().err
    answers = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(answers) == 2
    assert {row["answer"] for row in answers} <= {"yes", "no"}
