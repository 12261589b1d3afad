"""Tables of numbers from CSV and ARFF files and from scikit-learn. Errors name row and column."""

import hashlib
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from looped.files import sha256
from looped.reading import read_text
from looped.strict import LARGEST, nearest
from looped.tasks.in_context.prompts import Prompt
from looped.tasks.in_context.table_text import INDEX, Cell, Column, Grid, read_grid, shown

TargetType = Literal["class", "number"]
BUNDLED: dict[str, TargetType] = {
    "iris": "class", "wine": "class", "breast_cancer": "class", "digits": "class", "diabetes": "number",
}  # fmt: skip
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
OTHER_NUMBER = re.compile(r"[+-]?[0-9]*[0-9.,_]*[0-9]\s*%?")  # decimal commas, separated thousands, per cent
COUNTERS = ("index", "id", "row", "rownames", "row.names")  # names of a column of row numbers in a CSV


class Choices(NamedTuple):
    """How the columns of a table become features and targets. `TablesConfig` explains them."""

    target_type: TargetType
    target: tuple[str, ...] = ()
    categories: Literal["refuse", "onehot", "drop"] = "refuse"
    missing: Literal["refuse", "mean"] = "refuse"
    dim: int | None = None
    """The largest number of features; None is no limit."""


class Table(NamedTuple):
    """Rows of features, with a target for each row."""

    names: tuple[str, ...]
    """Names of the features."""
    x: Float[np.ndarray, "rows features"]
    """NaN is a missing value."""
    y: Float[np.ndarray, " rows"]
    """Values, or indices of classes in `labels`; NaN if unknown."""
    labels: tuple[str, ...]
    """The classes that occur, in the order of their declaration, or else sorted."""


def load_table(name: str, choices: Choices) -> Table:
    """A table from a file or a scikit-learn data set, without missing targets and without constant columns.

    Raises:
        ValueError: the table is unusable; one line names file, row and column, and what was expected.
    """
    if name in BUNDLED:
        if BUNDLED[name] != choices.target_type:
            kind = BUNDLED[name]
            raise ValueError(f"tables={name!r}: its target is a {kind}; expected target_type={kind!r}")
        return _bundled(name)
    if not os.path.exists(name):
        raise ValueError(
            f"tables={name!r}: no such file, and no data set of scikit-learn{nearest(name, BUNDLED)}: "
            f"{', '.join(BUNDLED)}; for one of OpenML download its ARFF from "
            f"https://www.openml.org/search?type=data&q={Path(name).stem} and give the path of the file"
        )
    table, _ = read_table(re.split("\r\n|\r|\n", read_text(Path(name))), name, choices, unknown=False)
    if constant := [
        n for n, values in zip(table.names, table.x.T, strict=True) if np.nanmin(values) == np.nanmax(values)
    ]:
        raise ValueError(f"{name}, column {shown(constant[0])}: constant; expected at least two different values")
    return table


def content_hash(name: str) -> str:
    """The sha256 of a table's file, or of the content of a scikit-learn data set.

    Raises:
        ValueError: the file cannot be read.
    """
    if name in BUNDLED:
        table = _bundled(name)
        words = "\0".join((*table.names, "", *table.labels)).encode()
        return hashlib.sha256(words + table.x.astype("<f8").tobytes() + table.y.astype("<f8").tobytes()).hexdigest()
    return sha256(Path(name))


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
    choices: Choices,
    *,
    unknown: bool = True,
    on_bad_row: Literal["stop", "skip"] = "stop",
) -> tuple[Table, int]:
    """Read a CSV table (names in the first line) or an ARFF table. Returns it with the number of skipped rows.

    Args:
        unknown: whether the target may be missing.

    Raises:
        ValueError: damaged names, a bad row (on_bad_row=stop), a column that is no feature, or no good row.
    """
    grid = read_grid(lines, source)
    if len(grid.columns) < 2:
        raise ValueError(f"{source}: one column; expected features and a target")
    rows, bad = _rows_of_cells(grid)
    if rows and all(any(cells[k] == c.name for cells in rows.values()) for k, c in enumerate(grid.columns)):
        raise ValueError(f"{source}: each name is also a value of its column; expected names in the first line")
    first = grid.columns[0]
    named = first.kind == "undeclared" and first.name.lower() in COUNTERS
    if named and len(rows) > 1 and _counts([cells[0] for cells in rows.values()]):
        raise ValueError(f"{source}, column {shown(first.name)}: counts the rows; expected features. {INDEX}")
    at = _target_column(grid.columns, choices.target, source)
    target = _typed_target(grid.columns[at], choices.target_type, source)
    columns = {
        k: _typed(column, grid.missing, (cells[k] for cells in rows.values()), source)
        for k, column in enumerate(grid.columns)
        if k != at
    }
    if choices.categories == "drop":
        columns = {k: column for k, column in columns.items() if column.kind == "number"}
    for column in columns.values():
        if column.kind == "category" and choices.categories == "refuse":
            raise ValueError(
                f"{source}, column {shown(column.name)}: categories; expected numbers (the task tables also takes "
                "categories, with --task.categories onehot or drop)"
            )
    good: list[list[Any]] = []
    fill = choices.missing == "mean"
    for number, cells in rows.items():
        try:
            values = [_value(cells[k], column, grid.missing, fill) for k, column in columns.items()]
            answer = _value(cells[at], target, grid.missing, unknown)
            good.append([*values, cells[at] if choices.target_type == "class" else answer])
        except ValueError as error:
            bad[number] = str(error)
    if bad and on_bad_row == "stop":
        number = min(bad)
        raise ValueError(f"{source}, line {number}{bad[number]}")
    if not good or not columns:
        raise ValueError(f"{source}: no {'row' if columns else 'column'} of numbers in it ({len(bad)} bad rows)")
    *features, answers = zip(*good, strict=True)
    names, x = _features(list(columns.values()), features, source, choices.dim)
    labels, y = ((), answers) if choices.target_type == "number" else _classes(answers, target, source)
    return Table(names, x, np.array(y, np.float64), labels), len(bad)


def _rows_of_cells(grid: Grid) -> tuple[dict[int, Sequence[Cell]], dict[int, str]]:
    """The cells of each good row and the fault of each bad row, by the row's line."""
    rows: dict[int, Sequence[Cell]] = {}
    bad: dict[int, str] = {}
    width = len(grid.columns)
    for number, text in grid.rows:
        try:
            cells = grid.cells(text)
        except ValueError as error:
            bad[number] = f": {error}"
            continue
        if len(cells) == width:
            rows[number] = cells
        else:
            hint = " (has the first column, of row names, no name in the first line?)" * (len(cells) == width + 1)
            bad[number] = f": expected {width} columns, not {len(cells)}{hint}"
    return rows, bad


def _counts(cells: Sequence[Cell]) -> bool:
    """Whether the cells are 0, 1, 2, ... or 1, 2, 3, ..."""
    return any(cells == [str(k) for k in range(start, start + len(cells))] for start in (0, 1))


def _target_column(columns: Sequence[Column], wanted: Sequence[str], source: str) -> int:
    """The index of the target, which is the last column unless names are `wanted`."""
    found = [k for k, column in enumerate(columns) if column.name in wanted] if wanted else [len(columns) - 1]
    if len(found) != 1:
        names = shown([column.name for column in columns])
        raise ValueError(f"{source}: {len(found)} of the columns {names} are in target={shown(wanted)}; expected one")
    return found[0]


def _typed_target(column: Column, target_type: TargetType, source: str) -> Column:
    if column.kind == "undeclared":
        return column._replace(kind="category" if target_type == "class" else "number")
    if column.kind == "category" and target_type == "number":
        raise ValueError(f"{source}, column {shown(column.name)}: declared as categories; expected numbers")
    return column


def _typed(column: Column, missing: frozenset[str], cells: Iterable[Cell], source: str) -> Column:
    """The column with its kind. A CSV column is of categories if no cell of it is a number.

    Raises:
        ValueError: its cells are numbers in a spelling that is not read, such as 1,5.
    """
    if column.kind != "undeclared":
        return column
    present = [cell for cell in cells if cell is not None and cell.lower() not in missing]
    if not present or any(map(NUMBER.fullmatch, present)):
        return column._replace(kind="number")
    if all(map(OTHER_NUMBER.fullmatch, present)):
        raise ValueError(
            f"{source}, column {shown(column.name)}: {shown(present[0])}; expected categories, or numbers such as "
            "-1234.5 (with a decimal point, and nothing else between or after the digits)"
        )
    return column._replace(kind="category")


def _value(cell: Cell, column: Column, missing: frozenset[str], may_be_missing: bool) -> float | str | None:
    """The value of a cell. NaN is a missing number, and None a missing category."""
    number = column.kind == "number"
    if cell is None or (number and cell.lower() in missing):
        if may_be_missing:
            return math.nan if number else None
        raise ValueError(f", column {shown(column.name)}: missing value; expected a {'number' if number else 'class'}")
    if not number:
        if "\n" in cell:
            raise ValueError(f", column {shown(column.name)}: {shown(cell)}; expected one line: is a quote not closed?")
        if column.values and cell not in column.values:
            declared = shown(list(column.values))
            raise ValueError(
                f", column {shown(column.name)}: {shown(cell)}; expected one of those declared: {declared}"
            )
        return cell
    value = float(cell) if NUMBER.fullmatch(cell) else math.inf
    if not abs(value) <= LARGEST:
        raise ValueError(f", column {shown(column.name)}: {shown(cell)}; expected a finite number (at most 3.4e38)")
    return value


def _features(
    columns: Sequence[Column], values: Sequence[Sequence[Any]], source: str, dim: int | None
) -> tuple[tuple[str, ...], Float[np.ndarray, "rows features"]]:
    """Names and values of the features. A column of categories has one for each that occurs, which is 1 or 0."""
    parts: list[tuple[Column, Sequence[Any], str | None]] = []
    for column, cells in zip(columns, values, strict=True):
        if all(cell is None or cell != cell for cell in cells):
            raise ValueError(f"{source}, column {shown(column.name)}: no value; expected at least one")
        categories = [None] if column.kind == "number" else _in_order(cells, column)
        parts += [(column, cells, category) for category in categories]
    check_width(len(parts), source, 1, dim or len(parts))
    x = [
        cells if category is None else [math.nan if cell is None else float(cell == category) for cell in cells]
        for _, cells, category in parts
    ]
    names = tuple(column.name if category is None else f"{column.name}={category}" for column, _, category in parts)
    return names, np.array(x, np.float64).T.copy()


def _classes(cells: Sequence[Cell], column: Column, source: str) -> tuple[tuple[str, ...], list[float]]:
    """The classes that occur, and the class of each cell, NaN if it is missing."""
    labels = _in_order(cells, column)
    numbers: dict[float, str] = {}
    for label in filter(NUMBER.fullmatch, labels):
        if (other := numbers.setdefault(float(label), label)) != label:
            raise ValueError(
                f"{source}: the classes {shown(other)} and {shown(label)} are one number; expected one spelling"
            )
    index: dict[Cell, float] = {label: float(k) for k, label in enumerate(labels)}
    return tuple(labels), [math.nan if cell is None else index[cell] for cell in cells]


def _in_order(cells: Iterable[Cell], column: Column) -> list[str]:
    """The categories that occur, in the order of their declaration, or else sorted."""
    present = {cell for cell in cells if cell is not None}
    return [value for value in column.values if value in present] if column.values else sorted(present)


def prompts_to_solve(table: Table, source: str, dim: int, points: int, *, standardised: bool = False) -> list[Prompt]:
    """One prompt for each row without a target. Its context is the rows with a target.

    Args:
        standardised: whether the means and deviations of the context standardise features and targets.

    Raises:
        ValueError: too many features, no row without a target, too many or too few rows with one, or not two classes.
    """
    check_width(len(table.names), source, 1, dim)
    known = ~np.isnan(table.y)
    if not 1 <= known.sum() < points or known.all():
        raise ValueError(
            f"{source}: {known.sum()} rows with a target and {(~known).sum()} without; expected 1 to {points - 1} "
            "that show the model what to do, and at least one to predict"
        )
    labels, y, offset, scale = None, table.y, 0.0, 1.0
    if table.labels:
        if len(table.labels) != 2:
            raise ValueError(f"{source}: classes {', '.join(map(shown, table.labels[:9]))}; expected two")
        labels, y = (table.labels[0], table.labels[1]), 2 * y - 1
    elif standardised:
        offset, scale = float(y[known].mean()), float(y[known].std()) or 1.0
        y = (y - offset) / scale
    x = left_padded(standardise(table.x, table.x[known]) if standardised else table.x, dim, source)
    context, values = x[known], y[known]
    return [
        Prompt(np.vstack([context, row]), np.append(values, np.nan).astype(np.float32), labels, offset, scale)
        for row in x[~known]
    ]


def check_width(count: int, source: str, least: int, most: int) -> None:
    """Raise ValueError if a table has too few or too many features."""
    if not least <= count <= most:
        raise ValueError(f"{source}: {count} features; expected {least} to dim={most}")


def standardise(x: Float[np.ndarray, "rows features"], of: Float[np.ndarray, "some features"]) -> np.ndarray:
    """`x` standardised by the means and deviations of the rows `of`.

    A missing value (NaN) counts as the mean, and a constant feature is only centred.
    """
    if np.isnan(x).any():
        mean = np.nansum(of, 0) / np.maximum((~np.isnan(of)).sum(0), 1)
        x, of = np.where(np.isnan(x), mean, x), np.where(np.isnan(of), mean, of)
    deviation = of.std(0)
    with np.errstate(over="ignore"):  # `left_padded` refuses infinite values
        return (x - of.mean(0)) / np.where(deviation > 0, deviation, 1)


def left_padded(x: Float[np.ndarray, "rows features"], dim: int, source: str) -> Float[np.ndarray, "rows dim"]:
    """The features in float32 with zeros on their left.

    Raises:
        ValueError: a value is too large for float32.
    """
    if np.abs(x).max(initial=0) > LARGEST:
        raise ValueError(f"{source}: a row is too far from the others; expected standardised values of at most 3.4e38")
    return np.pad(x, ((0, 0), (dim - x.shape[1], 0))).astype(np.float32)
