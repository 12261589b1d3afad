"""Tables of numbers from CSV and ARFF files and from scikit-learn. Errors name row and column."""

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from looped.reading import read_text
from looped.strict import nearest
from looped.tasks.in_context.prompts import Prompt

Target = Literal["class", "number"]
BUNDLED: dict[str, Target] = {
    "iris": "class", "wine": "class", "breast_cancer": "class", "digits": "class", "diabetes": "number",
}  # fmt: skip
MISSING = {"", "?", "na", "n/a", "nan", "null", "none"}


class Table(NamedTuple):
    """Rows of features, with a target for each row."""

    names: tuple[str, ...]
    """Names of the features."""
    x: Float[np.ndarray, "rows features"]
    y: Float[np.ndarray, " rows"]
    """Values, or indices of classes in `labels`; NaN if unknown."""
    labels: tuple[str, ...]


def load_table(name: str, target: Target) -> Table:
    """A table from a file or a scikit-learn data set, without missing targets and without constant columns.

    Raises:
        ValueError: the table is unusable; one line names file, row and column, and what was expected.
    """
    if name in BUNDLED:
        if BUNDLED[name] != target:
            raise ValueError(f"tables={name!r}: its target is a {BUNDLED[name]}; expected target={BUNDLED[name]!r}")
        return _bundled(name)
    path = Path(name)
    if not path.exists():
        raise ValueError(
            f"tables={name!r}: no such file, and no data set of scikit-learn{nearest(name, BUNDLED)}: "
            f"{', '.join(BUNDLED)}; for one of OpenML download its ARFF from "
            f"https://www.openml.org/search?type=data&q={path.stem} and give the path of the file"
        )
    table, _ = read_table(read_text(path).splitlines(), name, target, unknown=False)
    if constant := [n for n, values in zip(table.names, table.x.T, strict=True) if (values == values[0]).all()]:
        raise ValueError(f"{name}, column {constant[0]!r}: constant; expected at least two different values")
    return table


def _bundled(name: str) -> Table:
    from sklearn import datasets  # takes a second, which other tasks should not spend

    data = getattr(datasets, f"load_{name}")()
    varies = data.data.std(0) > 0  # three pixels of the digits are always blank
    names = tuple(str(n) for n, kept in zip(data.feature_names, varies, strict=True) if kept)
    labels = tuple(str(label) for label in data.target_names) if "target_names" in data else ()
    return Table(names, data.data[:, varies].astype(np.float64), data.target.astype(np.float64), labels)


def read_table(
    lines: Sequence[str],
    source: str,
    target: Target,
    *,
    unknown: bool = True,
    on_bad_row: Literal["stop", "skip"] = "stop",
) -> tuple[Table, int]:
    """Read a CSV table (commas, names in the first line) or an ARFF table. Returns it with the number of skipped rows.

    The target is the last column.

    Args:
        unknown: whether the target may be missing.

    Raises:
        ValueError: a bad row (on_bad_row=stop), or no good row.
    """
    numbered = [(n, line.strip()) for n, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise ValueError(f"{source}: empty file")
    names, rows = _arff(numbered, source) if numbered[0][1][0] in "@%" else (_cells(numbered[0][1]), numbered[1:])
    if len(names) < 2 or all(map(_is_number, names)):
        raise ValueError(f"{source}, line {numbered[0][0]}: expected the names of the features and of the target")
    good: list[tuple[list[float], float | str]] = []
    skipped = 0
    for number, line in rows:
        try:
            good.append(_row(_cells(line), names, target, unknown))
        except ValueError as error:
            if on_bad_row == "stop":
                raise ValueError(f"{source}, line {number}{error}") from None
            skipped += 1
    if not good:
        raise ValueError(f"{source}: no row of numbers in it ({skipped} bad rows)")
    labels = tuple(sorted({answer for _, answer in good if isinstance(answer, str)}))
    y = [labels.index(answer) if isinstance(answer, str) else answer for _, answer in good]
    x = np.array([features for features, _ in good])
    return Table(tuple(names[:-1]), x, np.array(y, np.float64), labels), skipped


def _arff(numbered: Sequence[tuple[int, str]], source: str) -> tuple[list[str], list[tuple[int, str]]]:
    """The attributes' names, and the numbered lines of the data section."""
    names: list[str] = []
    content = [(n, line) for n, line in numbered if not line.startswith("%")]
    for place, (number, line) in enumerate(content):
        word, _, rest = line.partition(" ")
        if word.lower() == "@data":
            return names, content[place + 1 :]
        if word.lower() == "@attribute":
            match = re.match(r"""\s*(?:'([^']*)'|"([^"]*)"|(\S+))""", rest)
            if match is None:
                raise ValueError(f"{source}, line {number}: expected @attribute NAME TYPE")
            names.append(next(filter(None, match.groups()), ""))
    raise ValueError(f"{source}: expected a line @data, as ARFF files have")


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("'") for cell in next(csv.reader([line], skipinitialspace=True))]


def _row(cells: list[str], names: Sequence[str], target: Target, unknown: bool) -> tuple[list[float], float | str]:
    """The features and the target, which is NaN if it is missing."""
    if len(cells) != len(names):
        raise ValueError(f": expected {len(names)} columns, not {len(cells)}")
    features = [_number(cell, name) for cell, name in zip(cells[:-1], names[:-1], strict=True)]
    if unknown and cells[-1].lower() in MISSING:
        return features, math.nan
    if target == "number":
        return features, _number(cells[-1], names[-1])
    if cells[-1].lower() in MISSING:
        raise ValueError(f", column {names[-1]!r}: missing value; expected a class")
    return features, cells[-1]


def _number(cell: str, name: str) -> float:
    if cell.lower() in MISSING:
        raise ValueError(f", column {name!r}: missing value; expected a number")
    if not _is_number(cell):
        raise ValueError(f", column {name!r}: {cell!r}; expected a finite number")
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def prompts_to_solve(table: Table, source: str, dim: int, points: int, *, standardised: bool = False) -> list[Prompt]:
    """One prompt for each row without a target. Its context is the rows with a target.

    Raises:
        ValueError: too many features, no row without a target, too many or too few rows with one, or not two classes.
    """
    check_width(table, source, 1, dim)
    known = ~np.isnan(table.y)
    if not 1 <= known.sum() < points or known.all():
        raise ValueError(
            f"{source}: {known.sum()} rows with a target and {(~known).sum()} without; expected 1 to {points - 1} "
            "that show the model what to do, and at least one to predict"
        )
    labels = None
    y = table.y
    if table.labels:
        if len(table.labels) != 2:
            raise ValueError(f"{source}: classes {', '.join(table.labels)}; expected two")
        labels, y = (table.labels[0], table.labels[1]), 2 * y - 1
    x = left_padded(standardise(table.x, table.x[known]) if standardised else table.x, dim)
    context, values = x[known], y[known]
    return [
        Prompt(np.vstack([context, row]), np.append(values, np.nan).astype(np.float32), labels) for row in x[~known]
    ]


def check_width(table: Table, source: str, least: int, most: int) -> None:
    if not least <= len(table.names) <= most:
        raise ValueError(f"{source}: {len(table.names)} features; expected {least} to dim={most}")


def standardise(x: Float[np.ndarray, "rows features"], of: Float[np.ndarray, "some features"]) -> np.ndarray:
    """`x` standardised by the means and deviations of the rows `of`; a constant feature is only centred."""
    deviation = of.std(0)
    return (x - of.mean(0)) / np.where(deviation > 0, deviation, 1)


def left_padded(x: Float[np.ndarray, "rows features"], dim: int) -> Float[np.ndarray, "rows dim"]:
    return np.pad(x, ((0, 0), (dim - x.shape[1], 0))).astype(np.float32)
