"""`looped theory regression` and `looped theory learners`, and the section of the documentation on them."""

import json
import re
from pathlib import Path

import pytest

from looped.cli import main
from looped.theory.learning.regression import scaled_loss

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = (ROOT / "docs/constructions.md").read_text()
SECTION = CHAPTER[CHAPTER.index("## 8.") : CHAPTER.index("## 9.")]
RESULTS = ROOT / "results/constructions"


def stored(name: str) -> dict:
    return json.loads((RESULTS / name).read_text())


def test_learners_equal_numpy_and_scikit_learn(tmp_path, capsys):
    out = tmp_path / "learners"
    assert main(["theory", "learners", "--n", "20", "--d", "3", "--condition", "30", "--out", str(out)]) == 0
    assert "relative error of the weights, condition number k = 30" in capsys.readouterr().out
    content = json.loads((out / "learners.json").read_text())
    differences = {row["learner"]: row["difference"] for row in content["rows"]}
    coarse, fine = differences.pop("logistic, gradient descent"), differences.pop("the same, knots 1/64")
    newton = differences.pop("logistic, Newton, knots 1/64")
    assert len(differences) == 4
    assert max(differences.values()) < 1e-12
    assert max(newton, fine) < 1e-4 < coarse < 0.01
    assert [row["loops"] for row in content["race"]] == [1, 2, 4, 8, 16, 32, 64]
    assert "<svg" in (out / "descent.svg").read_text()


def test_regression_prints_tables_and_writes_them(tmp_path, capsys):
    words = "theory regression --n 40 --d 2 --loops 1 2 --samples 1000 --training-steps 3 --out"
    assert main([*words.split(), str(tmp_path / "r")]) == 0
    printed = capsys.readouterr().out
    assert "n=40, d=2: all entries of A trained" in printed
    content = json.loads((tmp_path / "r/regression.json").read_text())
    one, two = content["rows"]
    assert one["step"] == pytest.approx(1 / (1 + 3 / 40))
    assert one["curvature"]["skew"] > 0 > two["curvature"]["skew"]
    assert content["smallest_n_of_a_rotation"] == {"1": None, "2": 15}
    assert two["best_normal"]["loss"] < two["loss"] == pytest.approx(two["best_symmetric"]["loss"])
    symmetric = two["trained"]["symmetric"]["eigenvalues"]
    assert all(imaginary == 0 for _, imaginary in symmetric)
    assert "<svg" in (tmp_path / "r/eigenvalues.svg").read_text()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("regression --d 1", "d=1: expected 2 to 16"),
        ("regression --n 0", "n=0: expected 1 to 1000"),
        ("regression --n", "n=(): expected at least one"),
        ("regression --n 20 20", "n"),
        ("regression --loops 9", "loops=9: expected 1 to 8"),
        ("regression --samples 10", "samples=10: expected 1,000 to 1,000,000"),
        ("regression --training-steps -1", "training_steps=-1: expected at least 0"),
        ("learners --n 3", "n=3: expected 4 to 200, and at least d"),
        ("learners --d 40", "d=40: expected 1 to 16"),
        ("learners --condition 1", "condition=1.0: expected above 1, at most 10,000"),
        ("learners --seed -1", "seed=-1: expected at least 0"),
    ],
)
def test_mistakes_are_one_line(command, message, capsys):
    assert main(["theory", *command.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_section_names_its_results():
    folders = {
        Path(folder).name for _, folder in re.findall(r"looped theory (\w+)[^`]*?--out (results/[\w/-]+)", SECTION)
    }
    assert folders == {"learners", "regression", "regression-4", "regression-10"}
    assert all("machine" in stored(f"{name}/{name.partition('-')[0]}.json")["environment"] for name in folders)


def test_the_numbers_of_the_section_are_those_of_the_results():
    content = stored("regression/regression.json")
    for row in content["rows"]:
        threshold = content["smallest_n_of_a_rotation"][str(row["loops"])] or "none"
        bend = row["curvature"]["skew"]
        line = f"| {row['n']} | {row['loops']} | {row['step']:.4f} | {row['loss']:.5f} | {bend:.3g} | {threshold} |"
        gain = row["trained"]["free"]["gain"]
        assert f"{line} {gain['mean']:.1e} ({gain['error']:.0e}) |" in SECTION
        if row["loops"] <= 4:
            best = row["best_normal"]
            assert f"{best['loss']:.5f}" in SECTION
            assert row["best_symmetric"]["loss"] == pytest.approx(row["loss"], rel=1e-6)
            assert best["loss"] < row["loss"] - 1e-6 or bend > 0
        symmetric = row["trained"]["symmetric"]
        if row["loops"] <= 6:
            assert symmetric["gain"]["mean"] < 3 * symmetric["gain"]["error"]
        # Exactly, its mean eigenvalue is no better as a step than the best one, also where samples say so.
        mean = sum(value for value, _ in symmetric["eigenvalues"]) / row["dim"]
        assert scaled_loss(mean, row["n"], row["dim"], row["loops"]) > row["loss"]
        if (row["n"], row["loops"]) == (40, 8):
            assert symmetric["gain"]["mean"] > 4 * symmetric["gain"]["error"]
            worse = float(scaled_loss(mean, 40, 5, 8))
            said = f"a = {mean:.4f} has the loss {worse:.5f} and a = {row['step']:.4f} has {row['loss']:.5f}"
            assert said in " ".join(SECTION.split())
    turned = next(r for r in stored("regression-4/regression.json")["rows"] if (r["n"], r["loops"]) == (40, 4))
    assert turned["rotation"]["gain"]["mean"] > 10 * turned["rotation"]["gain"]["error"]
    turned = next(r for r in stored("regression-4/regression.json")["rows"] if (r["n"], r["loops"]) == (20, 3))
    assert turned["curvature"]["skew"] > 0
    assert f"from {turned['loss']:.5f} to {turned['best_normal']['loss']:.5f}" in " ".join(SECTION.split())
    for row in stored("regression-4/regression.json")["rows"]:
        gain = row["rotation"]["gain"]
        assert f"| {row['n']} | {row['loops']} | {row['loss']:.5f} | {row['rotation']['b']:.2f} | " in SECTION
        assert f"{gain['mean']:.1e} ({gain['error']:.0e}) |" in SECTION
    for row in stored("learners/learners.json")["rows"]:
        sizes = " | ".join(str(row[name]) for name in ("registers", "layers", "heads", "units", "loops"))
        assert f"| {row['learner']} | {sizes} | {row['reference']} | {row['difference']:.0e} |" in SECTION
    for row in stored("learners/learners.json")["race"]:
        errors = " | ".join(f"{row[kind]:.1e}" for kind in ("tied", "momentum", "Chebyshev", "Chebyshev_bound"))
        assert f"| {row['loops']} | {errors} |" in SECTION
