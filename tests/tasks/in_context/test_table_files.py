"""Tables from files, and the mistakes in them."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets

from looped.tasks.in_context.table_files import Choices, load_table, prompts_to_solve, read_table, standardise
from looped.tasks.tables import Tables, TablesConfig

CSV = ["height, width,kind", "1,2.5,a", "", '-3,1e2,"b c"', "0.5,4,a"]
ARFF = [
    "% a comment", "@RELATION things", "@attribute height numeric", "@attribute 'the width' REAL",
    "@attribute kind {a, 'b c'}", "@data", "1,2.5,a", "% another", "-3,1e2,'b c'", "0.5,4,a",
]  # fmt: skip


@pytest.mark.parametrize(("lines", "width"), [(CSV, "width"), (ARFF, "the width")])
def test_csv_and_arff(lines, width):
    table, skipped = read_table(lines, "in", Choices("class"))
    assert (table.names, table.labels, skipped) == (("height", width), ("a", "b c"), 0)
    assert table.x.tolist() == [[1, 2.5], [-3, 100], [0.5, 4]]
    assert table.y.tolist() == [0, 1, 0]


def test_numbers_and_unknown_targets():
    table, _ = read_table(["x,y", "1,2", "3,", "4,?"], "in", Choices("number"))
    assert table.y[0] == 2
    assert np.isnan(table.y[1:]).all()


BAD_ROWS = [
    ("red,2,a", "in.csv, line 3, column 'height': 'red'; expected a finite number"),
    ("inf,2,a", "in.csv, line 3, column 'height': 'inf'; expected a finite number"),
    ("1,?,a", "in.csv, line 3, column 'width': missing value; expected a number"),
    ("1,,a", "in.csv, line 3, column 'width': missing value; expected a number"),
    ("1,a", "in.csv, line 3: expected 3 columns, not 2"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows_are_named_or_skipped_and_counted(row, message):
    lines = ["height,width,kind", "1,2,a", row, "3,4,b"]
    with pytest.raises(ValueError, match="^" + message.replace("?", r"\?")):
        read_table(lines, "in.csv", Choices("class"))
    table, skipped = read_table(lines, "in.csv", Choices("class"), on_bad_row="skip")
    assert (len(table.y), skipped) == (2, 1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "in: empty file"),
        (
            ["1,2,3", "4,5,6"],
            "in, line 1: the name of column 1 is .1.; expected the names of the features",
        ),
        (["x,y"], "in: no row of numbers in it"),
        (["@relation x", "@attribute a real"], "in: expected a line @data"),
        (["x,y", "1,"], "in, line 2, column 'y': missing value; expected a class"),
    ],
)
def test_bad_files(lines, message):
    with pytest.raises(ValueError, match=message):
        read_table(lines, "in", Choices("class"), unknown=False)


def test_data_sets_of_scikit_learn():
    wine = load_table("wine", Choices("class"))
    assert wine.x.shape == (178, 13)
    assert wine.labels == ("class_0", "class_1", "class_2")
    assert (wine.x == datasets.load_wine(return_X_y=True)[0]).all()
    digits = load_table("digits", Choices("class"))
    assert digits.x.shape == (1797, 61)
    assert (digits.x.std(0) > 0).all()
    assert load_table("diabetes", Choices("number")).x.shape == (442, 10)
    with pytest.raises(ValueError, match="tables='diabetes': its target is a number; expected target_type='number'"):
        load_table("diabetes", Choices("class"))


def test_an_unknown_name_says_what_to_download():
    with pytest.raises(ValueError, match=r"tables='credit-g': no such file.*https://www.openml.org/search.*credit-g"):
        load_table("credit-g", Choices("class"))


def test_rows_to_solve():
    table, _ = read_table(["a,b,y", "1,5,no", "3,5,yes", "2,5,", "1,5,no"], "in", Choices("class"))
    (prompt,) = prompts_to_solve(table, "in", dim=4, points=5, standardised=True)
    assert prompt.labels == ("no", "yes")
    assert prompt.y[:3].tolist() == [-1, 1, -1]
    assert math.isnan(prompt.y[3])
    assert (prompt.x[:, [0, 1, 3]] == 0).all(), "padded on the left; a constant column is only centred"
    mean, deviation = 5 / 3, np.std([1, 3, 1])
    np.testing.assert_allclose(prompt.x[:, 2], (np.array([1, 3, 1, 2]) - mean) / deviation, rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1,2,", "3,4,"], "0 rows with a target and 2 without; expected 1 to 3"),
        (["1,2,a", "3,4,b"], "2 rows with a target and 0 without"),
        (["1,2,a", "3,4,b"] * 2 + ["1,1,"], "4 rows with a target"),
        (["1,2,a", "3,4,b", "5,6,c", "7,8,"], "classes 'a', 'b', 'c'; expected two"),
    ],
)
def test_rows_that_cannot_be_solved(rows, message):
    table, _ = read_table(["p,q,kind", *rows], "in", Choices("class"))
    with pytest.raises(ValueError, match=f"in: {message}"):
        prompts_to_solve(table, "in", dim=2, points=4)
    with pytest.raises(ValueError, match="in: 2 features; expected 1 to dim=1"):
        prompts_to_solve(table, "in", dim=1, points=4)


def test_standardise():
    x = np.random.default_rng(0).normal(3, 5, (40, 3))
    done = standardise(x, x[:30])
    np.testing.assert_allclose(done[:30].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(done[:30].std(0), 1)


# What is a number, a class, a missing value, a category

FAR = "1" + "0" * 400


@pytest.mark.parametrize(
    "cell", ["1_2", "١٢", "0x10", "inf", "-inf", "1e39", "-4e38", "1e400", FAR, "1,5", "1 2", "+", "."]
)
@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_what_is_no_number(cell, delimiter):
    lines = [delimiter.join(row) for row in (["a", "k"], ["1", "x"], [cell, "y"])]
    with pytest.raises(
        ValueError, match=r"^in, line 3, column 'a': '.{1,40}'; expected a finite number \(at most 3.4e38\)$"
    ):
        read_table(lines, "in", Choices("class"))
    answers = [delimiter.join(row) for row in (["a", "y"], ["1", "2"], ["2", cell])]
    with pytest.raises(ValueError, match=r"^in, line 3, column 'y': '.{1,40}'; expected a finite number"):
        read_table(answers, "in", Choices("number"))


@pytest.mark.parametrize("cell", ["1", "+1", "1.", "1e0", "10E-1", " 1 ", '"1"', "0001"])
def test_what_is_a_number(cell):
    table, _ = read_table(["a,k", f"{cell},x", "3.4028234e38,y", ".5,x", "-0,y"], "in", Choices("class"))
    assert table.x[:, 0].tolist() == [1, 3.4028234e38, 0.5, 0]


def test_a_cell_of_any_length_is_one_line():
    with pytest.raises(
        ValueError, match=r"^in, line 2, column 'b': '7{12}\.\.\.7{13}'; expected a finite number.{1,20}$"
    ):
        read_table(["a,b,class", '1,"' + "7" * 140_000 + '",x', "2,3,y"], "in", Choices("class"))


def test_names_of_missing_values_are_classes_unless_numbers_are_expected():
    lines = ["a,k", "1,none", "2,NA", "3,", "4,?", '5,""']
    table, _ = read_table(lines, "in", Choices("class"))
    assert table.labels == ("NA", "none")
    assert table.y[:2].tolist() == [1, 0]
    assert np.isnan(table.y[2:]).all()
    table, _ = read_table(["a,y", "1,2", "2,NA", "3,nan", "4,None", "5,", "6,?"], "in", Choices("number"))
    assert np.isnan(table.y).tolist() == [False] + [True] * 5


def test_declared_classes_of_arff():
    head = ["@attribute a numeric", "@attribute k {soft, none, hard}", "@data"]
    table, _ = read_table([*head, "1,none", "2,soft", "3,?"], "in", Choices("class"))
    assert (table.labels, table.y[:2].tolist()) == (("soft", "none"), [1, 0]), "those that occur, as declared"
    assert np.isnan(table.y[2])
    for row, message in [
        ("3,Soft", "in, line 4, column 'k': 'Soft'; expected one of those declared: ['soft', 'none', 'hard']"),
        ("3,''", "in, line 4, column 'k': ''; expected one of those declared"),
        ("NA,soft", "in, line 4, column 'a': 'NA'; expected a finite number"),
        ("?,soft", "in, line 4, column 'a': missing value; expected a number"),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            read_table([*head, row], "in", Choices("class"))
    with pytest.raises(ValueError, match="in, column 'k': declared as categories; expected numbers"):
        read_table([*head, "1,soft"], "in", Choices("number"))


def test_an_open_quote_takes_no_rows_into_a_class():
    with pytest.raises(ValueError, match=r"in, line 2, column 'k': .*; expected one line: is a quote not closed"):
        read_table(["a,k", '1,"x', "2,y", '3,x"', "4,y"], "in", Choices("class"))


def test_one_number_is_one_class():
    with pytest.raises(ValueError, match=r"in: the classes '1' and '1.0' are one number; expected one spelling"):
        read_table(["a,k", "1,1", "2,1.0", "3,0"], "in", Choices("class"))


@pytest.mark.parametrize("start", ["k,a,b", "a,k,b", "a,b,k"])
def test_the_target_has_a_name(start):
    place = start.split(",").index("k")
    rows = [["1", "2"], ["3", "4"]]
    for row, answer in zip(rows, "xy", strict=True):
        row.insert(place, answer)
    table, _ = read_table([start, *map(",".join, rows)], "in", Choices("class", target=("other", "k")))
    assert (table.names, table.labels, table.x.tolist()) == (("a", "b"), ("x", "y"), [[1, 2], [3, 4]])
    for names, count in ((("z",), 0), (("a", "k"), 2)):
        with pytest.raises(ValueError, match=f"in: {count} of the columns .* are in target=.*; expected one"):
            read_table([start, *map(",".join, rows)], "in", Choices("class", target=names))


CATEGORIES = ["colour,size,name,k", "red,1,ann,x", "blue,2,bob,y", "red,,cy,x", ",4,ann,y"]


def test_categories_are_refused_encoded_or_dropped():
    with pytest.raises(
        ValueError, match=r"in, column 'colour': categories; expected numbers .*--task.categories onehot or"
    ):
        read_table(CATEGORIES, "in", Choices("class", missing="mean"))
    with pytest.raises(ValueError, match="in, line 4, column 'size': missing value; expected a number"):
        read_table(CATEGORIES, "in", Choices("class", categories="onehot"))
    table, _ = read_table(CATEGORIES, "in", Choices("class", categories="drop", missing="mean"))
    np.testing.assert_array_equal(table.x, [[1], [2], [np.nan], [4]])
    table, _ = read_table(CATEGORIES, "in", Choices("class", categories="onehot", missing="mean"))
    assert table.names == ("colour=blue", "colour=red", "size", "name=ann", "name=bob", "name=cy")
    np.testing.assert_array_equal(table.x[:, :3], [[0, 1, 1], [1, 0, 2], [0, 1, np.nan], [np.nan, np.nan, 4]])
    with pytest.raises(ValueError, match="in: 6 features; expected 1 to dim=5"):
        read_table(CATEGORIES, "in", Choices("class", categories="onehot", missing="mean", dim=5))


def test_categories_of_arff_keep_their_order_and_texts_are_sorted():
    head = ["@attribute size {small, big, huge}", "@attribute name string", "@attribute k {x, y}", "@data"]
    table, _ = read_table([*head, "big,z,x", "small,'a b',y"], "in", Choices("class", categories="onehot"))
    assert table.names == ("size=small", "size=big", "name=a b", "name=z")
    assert table.x.tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]


def test_columns_without_use():
    with pytest.raises(ValueError, match="in, column 'b': no value; expected at least one"):
        read_table(["a,b,k", "1,,x", "2,,y"], "in", Choices("class", missing="mean"))
    with pytest.raises(ValueError, match="in: no column of numbers in it"):
        read_table(["a,k", "u,x", "v,y"], "in", Choices("class", categories="drop"))
    with pytest.raises(ValueError, match="in: one column; expected features and a target"):
        read_table(["@attribute a numeric", "@data", "1"], "in", Choices("class"))


def test_a_first_line_of_categories_is_no_line_of_names():
    with pytest.raises(
        ValueError, match="in: each name is also a value of its column; expected names in the first line"
    ):
        read_table(["red,x", "red,y", "blue,x"], "in", Choices("class", categories="onehot"))


def test_row_names_without_a_name():
    with pytest.raises(ValueError, match=r"in, line 2: expected 2 columns, not 3 \(has the first column, of row names"):
        read_table(["a,k", "1,5,x"], "in", Choices("class"))


def test_missing_values_become_the_mean_of_the_context():
    x = np.array([[1.0, np.nan], [3.0, 4.0], [np.nan, 6.0]])
    done = standardise(x, x[:2])
    np.testing.assert_allclose(done, [[-1, 0], [1, 0], [0, 2]])


def test_far_rows_are_refused_instead_of_infinite():
    table, _ = read_table(["a,k", "1e-150,x", "0,y", "3e38,"], "in", Choices("class"))
    with pytest.raises(ValueError, match="in: a row is too far from the others"):
        prompts_to_solve(table, "in", dim=1, points=4, standardised=True)


def test_numbers_to_solve_are_standardised_and_answers_are_not():
    table, _ = read_table(["a,y", "1,1000", "2,3000", "3,"], "in", Choices("number"))
    (prompt,) = prompts_to_solve(table, "in", dim=1, points=4, standardised=True)
    assert prompt.y[:2].tolist() == [-1, 1]
    assert prompt.text(0.5) == 2500
    (raw,) = prompts_to_solve(table, "in", dim=1, points=4)
    assert (raw.y[:2].tolist(), raw.text(0.5)) == ([1000, 3000], 0.5)


# Files as tables to train on


def write(path: Path, rows: list[str]) -> str:
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def random_rows(count: int, target: str, seed: int = 0) -> list[str]:
    x = np.random.default_rng(seed).normal(size=(count, 2))
    answers = [f"{a - b:.3f}" if target == "number" else "xy"[int(a > b)] for a, b in x]
    return ["p,q,answer", *(f"{a:.4f},{b:.4f},{answer}" for (a, b), answer in zip(x, answers, strict=True))]


@pytest.mark.parametrize("target", ["class", "number"])
def test_files_are_trained_and_tested_on(target, tmp_path):
    files = tuple(write(tmp_path / f"{i}.csv", random_rows(80, target, i)) for i in range(2))
    task = Tables(TablesConfig(tables=files, held_out=files[1], target_type=target, dim=3, points=20))
    assert task.metric == ("accuracy" if target == "class" else "squared_error")
    batch = task.batch("train", 0, 50, seed=0)
    assert (batch.inputs[:, ::2, 0] == 0).all()
    assert batch.inputs[:, ::2, 1:].std() == pytest.approx(1, abs=0.15)
    assert batch.targets[batch.mask].std() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (random_rows(30, "class"), {}, "bad.csv: 26 rows of two classes for training; expected at least points=29"),
        (random_rows(90, "class"), {"min_rows": 91}, "bad.csv: 90 rows; expected 91 to any number"),
        (random_rows(90, "class"), {"max_rows": 89}, "bad.csv: 90 rows; expected 1 to 89"),
        (random_rows(90, "class"), {"min_features": 3}, "bad.csv: 2 features; expected 3 to dim=64"),
        (["p,q,k", *["1,2,a", "2,1,a"] * 30], {}, "bad.csv: one class, 'a'; expected at least two"),
        (["p,q,k", *["1,2,a"] * 9, *["2,1,b"] * 31], {}, "9 rows of class 'a', 31 of 'b'; expected the rarest class"),
        (["p,q,k", *["1,2,a", "1,1,b"] * 30], {}, "bad.csv, column 'p': constant; expected at least two different"),
        (["p,q,k", "1,2,a", "1,,b"], {}, "bad.csv, line 3, column 'q': missing value; expected a number"),
        ([""], {}, "bad.csv: empty file"),
    ],
)  # fmt: skip
def test_tables_that_are_no_use(rows, changes, message, tmp_path):
    file = write(tmp_path / "bad.csv", rows)
    with pytest.raises(ValueError, match=message) as caught:
        Tables(TablesConfig(tables=(file, "iris"), held_out=file, points=29, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "cells", [("1,5", "-0,25"), ("1.234,5", "2,0"), ("1,128.8", "2,019"), ("5%", "7.5 %"), ("1_2", "3_4")]
)
@pytest.mark.parametrize("categories", ["refuse", "onehot", "drop"])
def test_numbers_in_another_spelling_are_no_categories(cells, categories):
    with pytest.raises(ValueError, match=f"in, column 'b': '{re.escape(cells[0])}'; expected categories, or numbers"):
        read_table(["a;b;k", f"1;{cells[0]};x", f"2;{cells[1]};y"], "in", Choices("class", categories=categories))


def test_dates_and_ranges_are_categories():
    lines = ["a,b,c,k", "1,2024-01-05,18-25,x", "2,2024-02-05,26-30,y"]
    assert read_table(lines, "in", Choices("class", categories="onehot"))[0].x.shape == (2, 5)


@pytest.mark.parametrize(("name", "start"), [("index", 0), ("id", 1), ("rownames", 1), ("Row.Names", 1)])
def test_row_numbers_are_no_feature(name, start):
    lines = [f"{name},a,k", *(f"{start + k},{k % 3},{'xy'[k % 2]}" for k in range(5))]
    with pytest.raises(ValueError, match=f"in, column '{name}': counts the rows; expected features.*index=False"):
        read_table(lines, "in", Choices("class"))
    lines[1], lines[2] = lines[2], lines[1]  # in another order they are no row numbers
    assert read_table(lines, "in", Choices("class"))[0].names == (name, "a")
