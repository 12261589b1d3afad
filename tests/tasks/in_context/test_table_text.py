"""CSV and ARFF as their rules say, compared with other readers."""

import csv
import gzip
import io
import time
from pathlib import Path

import pytest
import scipy
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import result_or_line
from scipy.io import arff
from sklearn.externals import _arff as liac  # private, and without faults on these files

from looped.tasks.in_context.table_files import Choices, read_table
from looped.tasks.in_context.table_text import Grid, read_grid

OPENML = sorted(Path(sklearn.__file__).parent.glob("datasets/tests/data/openml/*/*.arff.gz"))
SCIPY = sorted(Path(scipy.__file__).parent.glob("io/arff/tests/data/*.arff"))


def cells(*lines: str) -> list[list[str | None]]:
    grid = read_grid(lines, "in")
    return [list(grid.cells(text)) for _, text in grid.rows]


def values(grid: Grid) -> list[list[float | str | None]]:
    numbers = [column.kind == "number" for column in grid.columns]
    return [
        [float(cell) if cell and number else cell for cell, number in zip(grid.cells(text), numbers, strict=True)]
        for _, text in grid.rows
    ]


# Other readers' files


@pytest.mark.skipif(not OPENML, reason="this scikit-learn has no tests in it")
@pytest.mark.parametrize("path", OPENML, ids=lambda path: path.parent.name)
def test_files_of_openml(path: Path):
    text = gzip.decompress(path.read_bytes()).decode()
    expected = list(liac.loads(text, encode_nominal=False)["data"])
    assert len(expected) > 6
    assert values(read_grid(text.splitlines(), "in")) == expected


@pytest.mark.skipif(not SCIPY, reason="this scipy has no tests in it")
@pytest.mark.parametrize("path", SCIPY, ids=lambda path: path.stem)
def test_files_of_scipy(path: Path):
    lines = path.read_text().splitlines()
    if path.stem in ("test3", "test9", "test10"):
        with pytest.raises(ValueError, match=r"in, line 3: @attribute 'attr.*: the type '(?i:crap|relational)'; exp"):
            read_grid(lines, "in")
        return
    grid = read_grid(lines, "in")
    if path.stem in ("test2", "test7", "test8"):  # scipy refuses texts and time zones, and counts dates
        kinds = "number " * 6 + "category " * 4 if path.stem == "test2" else "category " * len(grid.columns)
        assert [column.kind for column in grid.columns] == kinds.split()
        return
    expected, _ = arff.loadarff(path)
    # scipy strips values, quoted or not
    known = [[v.decode() if isinstance(v, bytes) else None if v != v else v for v in row] for row in expected.tolist()]
    assert values(grid) == known


# ARFF

HEAD = ["@relation r", "@attribute a numeric", "@attribute b numeric", "@attribute k {n, y, 'x y'}", "@data"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("1,2,y", ["1", "2", "y"]),
        (" 1 ,\t2 , y ", ["1", "2", "y"]),
        ("1\t2\ty", ["1", "2", "y"]),
        ("1 2 'x y'", ["1", "2", "x y"]),
        ('1,2,"x y"', ["1", "2", "x y"]),
        ("1,2,y % a comment", ["1", "2", "y"]),
        ("?,2,?", [None, "2", None]),
        ("1,2,'?'", ["1", "2", "?"]),
        (r"1,2,'it\'s'", ["1", "2", "it's"]),
        (r'1,2,"a \"b\" \\ \t \u00e9 \101"', ["1", "2", 'a "b" \\ \t é A']),
        ("1,2,'50% of {a, b}'", ["1", "2", "50% of {a, b}"]),
        ("{0 1.5, 2 y}", ["1.5", "0", "y"]),
        ("{}", ["0", "0", "n"]),
        ("{ 2 'x y' , 1 ? } % sparse", ["0", None, "x y"]),
    ],
)
def test_rows_of_arff(row, expected):
    assert cells(*HEAD, row) == [expected]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,,y", "'': expected one value between commas"),
        ("1,2 3,y", "'2 3': expected one value between commas"),
        ("1,2,it's", "a quote that is not closed, or one inside a value"),
        ("1,2,'x", "a quote that is not closed"),
        ("1,2,{y}", "{ inside a row; quote it"),
        ("{0 1", "a sparse row without }"),
        ("{3 1}", "'3 1': expected COLUMN VALUE, with different columns from 0 to 2"),
        ("{0 1, 0 2}", "'0 2': expected COLUMN VALUE"),
        ("{0 1,}", "'': expected COLUMN VALUE"),
        ("{0}", "'0': expected COLUMN VALUE"),
        ("{-1 2}", "'-1 2': expected COLUMN VALUE"),
        ("{a 2}", "'a 2': expected COLUMN VALUE"),
        ("{" + "9" * 5000 + " 1}", "expected COLUMN VALUE"),
        (r"1,2,'\ud800'", "half a character"),
    ],
)
def test_damaged_rows_of_arff(row, message):
    with pytest.raises(ValueError, match=r"^[^\n]{1,300}$") as error:
        cells(*HEAD, row)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("declaration", "expected"),
    [
        ("@ATTRIBUTE\tk\tREAL", ("k", "number", ())),
        ("@attribute k Integer % whole", ("k", "number", ())),
        ("@attribute 'a b' numeric", ("a b", "number", ())),
        ('@attribute "it\'s" string', ("it's", "category", ())),
        ('@attribute k date "yyyy-MM-dd"', ("k", "category", ())),
        ("@attribute k date", ("k", "category", ())),
        ("@attribute k{b,a,?, 'c,d'}", ("k", "category", ("b", "a", "?", "c,d"))),
        ("@attribute k { none , NA } ", ("k", "category", ("none", "NA"))),
    ],
)
def test_declarations_of_arff(declaration, expected):
    assert tuple(read_grid(["% c", "@relation 'a b'", declaration, "@DATA % here"], "in").columns[0]) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("@attribute k", "in, line 1: @attribute 'k': expected @attribute NAME TYPE"),
        ("@attribute", "expected @attribute NAME TYPE"),
        ("@attribute '' real", "expected @attribute NAME TYPE"),
        ("@attribute k relational", "the type 'relational'; expected numeric"),
        ("@attribute k numeric 5", "the type 'numeric 5'; expected"),
        ("@attribute k integer [0,9]", "the type 'integer [0 , 9]'; expected"),
        (
            "@attribute k {a, b",
            "the type '{ a , b'; expected numeric",
        ),
        ("@attribute k {a b}", "'a b': expected one value between commas"),
        ("@attribute k {a,,b}", "'': expected one value between commas"),
        ("@data", "'@data': expected @relation, @attribute or @data"),
        ("@relation r\n1,2", "in, line 2: '1,2': expected @relation, @attribute or @data"),
        ("@relation r", "in: expected a line @data"),
        ("@attribute k real\n@attribute k real\n@data", "in: 2 columns with the name 'k'"),
    ],
)
def test_damaged_declarations_of_arff(line, message):
    with pytest.raises(ValueError, match=r"^[^\n]{1,300}$") as error:
        read_grid(line.split("\n"), "in")
    assert message in str(error.value)


# CSV


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_quotes_of_csv(delimiter):
    rows = [
        ["a b", "it's", "k"],
        ["1", " 2 ", 'say "x", y; z\tz'],
        ["", "?", "two\nlines"],
        ["NA", "none", " "],
        ["#1", "2%", "3"],
    ]
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    grid = read_grid(["\ufeff" + buffer.getvalue().split("\n")[0], *buffer.getvalue().split("\n")[1:]], "in")
    assert [column.name for column in grid.columns] == rows[0]
    found = [(number, grid.cells(text)) for number, text in grid.rows]
    assert found == [
        (2, ["1", " 2 ", 'say "x", y; z\tz']),
        (3, [None, None, "two\nlines"]),
        (5, ["NA", "none", None]),
        (6, ["#1", "2%", "3"]),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x", "'x': no delimiter between the names"),
        ("x;y,z", "comma and semicolon between the names"),
        ("x,,z", "column 2 has no name"),
        ('"",x,k', "column 1 has no name"),
        (",x,k", "to_csv(index=False)"),
        ("Unnamed: 0,x,k", "column 1 has no name"),
        ("?,x,k", "column 1 has no name"),
        ("x,5,k", "the name of column 2 is '5'"),
        ("x,nan,k", "the name of column 2 is 'nan'"),
        ("x,1e3,k", "the name of column 2 is '1e3'"),
        ("x,y,x", "in: 2 columns with the name 'x'"),
        ("# x,y,k", "'# x': a CSV has no comments"),
        ('x,"y', "a quote that is not closed"),
    ],
)
def test_damaged_names_of_csv(line, message):
    with pytest.raises(ValueError, match=r"^[^\n]{1,300}$") as error:
        read_grid([line, "1,2,3"], "in")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('1,"2,x', "a quote that is not closed, or one inside a cell"),
        ('1,5" nail,x', "a quote that is not closed, or one inside a cell"),
        ('1,"2"3,x', "a quote that is not closed, or one inside a cell"),
        ("1,2,x # note", "'x # note': a CSV has no comments"),
        ("1,2,% note", "a CSV has no comments"),
    ],
)
def test_a_damaged_row_of_csv_takes_no_other_with_it(row, message):
    lines = ["a,b,k", "1,2,x", row, "3,4,y", "5,6,x"]
    with pytest.raises(ValueError, match="in, line 3: ") as error:
        read_table(lines, "in", Choices("class"))
    assert message in str(error.value)
    table, skipped = read_table(lines, "in", Choices("class"), on_bad_row="skip")
    assert (table.x[:, 0].tolist(), skipped) == ([1, 3, 5], 1)


# Anything

PIECES = st.one_of(
    st.sampled_from(
        [*"@%#,;\t\"'{}\\?\n \ufeff", "@data", "@attribute ", "numeric", "1e39", "-0", "1_2", "NA", "x", "y", "\n1,2,x"]
    ),
    st.text(max_size=3),
)
STARTS = st.sampled_from(["", "a,b,k\n1,2,x\n", "a;k\n", "\n".join(HEAD) + "\n1,2,y\n", "@attribute k {a}\n"])


@given(
    STARTS, st.lists(PIECES, max_size=30), st.sampled_from(["refuse", "onehot", "drop"]), st.booleans(), st.booleans()
)
@settings(deadline=None, max_examples=1000)
def test_any_text_gives_a_table_or_one_clear_line(start, pieces, categories, number, skip):
    choices = Choices("number" if number else "class", (), categories, "mean" if skip else "refuse", dim=50)
    lines = (start + "".join(pieces)).split("\n")
    result_or_line(read_table, lines, "in", choices, on_bad_row="skip" if skip else "stop")


LONG = 50_000
LINES = {
    "spaces and a quote": " " * LONG + 'a"',
    "commas and spaces": ", " * LONG,
    "quotes": '"' * LONG,
    "single quotes": "'" * LONG,
    "open quotes": '1,"2,x\n' * 10_000,
    "backslashes": "'" + "\\" * LONG,
    "braces": "{" * LONG,
    "sparse": "{" + "0 1," * LONG + "}",
    "comments": "x #" * LONG,
    "digits": "1" * LONG + ",2,x",
}


@pytest.mark.parametrize("start", ["a,b,k\n1,2,x\n", "\n".join([*HEAD, "1,2,y\n"]), ""])
@pytest.mark.parametrize("text", LINES.values(), ids=LINES)
def test_long_lines_take_no_quadratic_time(start, text):
    began = time.process_time()
    result_or_line(read_table, (start + text).split("\n"), "in", Choices("class"), on_bad_row="skip")
    assert time.process_time() - began < 5  # in quadratic time it would take minutes


@given(st.lists(st.text("ab,;\t\"'#% 1\n", max_size=6), min_size=2, max_size=4))
@settings(deadline=None, max_examples=300)
def test_quoted_csv_equals_the_csv_module(row):
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([[f"n{k}" for k in range(len(row))], row])
    lines = buffer.getvalue().split("\n")[:-1]
    if all(line.strip() for line in lines):  # blank lines are ignored, also in a cell
        assert cells(*lines) == [[None if cell.strip() in ("", "?") else cell for cell in row]]
