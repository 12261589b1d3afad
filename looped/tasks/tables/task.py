"""Tables learned in context: training on some tables, test on a held-out one."""

from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as shown  # cuts what is long
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from looped.files import write_atomic
from looped.tasks.base import SPLITS, Split
from looped.tasks.in_context.prompts import Prompt, PromptTask
from looped.tasks.in_context.table_files import (
    Choices,
    Table,
    check_width,
    content_hash,
    left_padded,
    load_table,
    prompts_to_solve,
    read_table,
    standardise,
)
from looped.tasks.registry import register
from looped.tasks.tables.config import TablesConfig

QUERY_EVERY = 20  # one row in 20 is a query in validation or test and never used in training


class Rows(NamedTuple):
    """A table from which prompts are drawn."""

    x: Float[np.ndarray, "rows dim"]
    """Standardised features, with zeros on the left."""
    y: Float[np.ndarray, " rows"]
    labels: tuple[str, ...]
    split: Int[np.ndarray, " rows"]
    """Index in SPLITS of the split in which a row may be the query. Context rows are always of the first split."""
    same: Int[np.ndarray, " rows"]
    """Equal for rows with equal features and target."""


@register("tables")
class Tables(PromptTask):
    """Rows of a table with their targets, and one more row whose target is the question.

    Example: 40 irises with their measures and names (`setosa` or `virginica`), and the measures of one more.

    Each prompt draws a table and distinct rows of it. For classes it also draws two of the table's classes in random
    order, so the names cannot be learned. `split_seed` divides the rows of each class: 95% are context rows, and
    queries in training; 2.5% each (at least one) are queries in validation and test. The held-out table (the only
    group) is never used in training, so all its rows may be context rows or queries. Equal rows are in one split, and
    the context never shows a copy of the query. A table with few rows gives few independent prompts. Means and
    deviations of the 95% standardise the features, and the targets if these are numbers.
    """

    Config = TablesConfig
    title = "Tables in context"
    metric = "accuracy"
    classes = True

    @classmethod
    def example_config(cls, folder: Path) -> TablesConfig:
        """Two tables of random numbers, so no data set need be read."""
        rng, files = np.random.default_rng(0), (str(folder / "fruits.csv"), str(folder / "flowers.csv"))
        for file in files:
            sizes = rng.uniform(0, 10, (80, 2)).tolist()
            rows = [f"{width:.1f},{height:.1f},{'small' if width < 5 else 'large'}" for width, height in sizes]
            write_atomic(Path(file), "\n".join(["width,height,size", *rows]))
        return TablesConfig(tables=files, held_out=files[1], dim=2, points=6)

    def __init__(self, config: TablesConfig) -> None:
        self._prepare(config)
        self.rows = {name: self._rows(name) for name in config.tables}

    @classmethod
    def load(cls, config: TablesConfig, folder: Path) -> "Tables":
        """A task that answers without the files: a table to solve brings its own context."""
        task = cls.__new__(cls)
        task._prepare(config)
        task.rows = {}
        return task

    def _prepare(self, config: TablesConfig) -> None:
        super().__init__(config)
        self.choices = Choices(config.target_type, config.target, config.categories, config.missing, config.dim)
        if config.target_type == "number":
            self.classes, self.metric, self.lower_is_better = False, "squared_error", True
        self.groups = (config.held_out,)

    def sources(self) -> dict[str, str]:
        """The sha256 of each table's file, and of the content of a data set of scikit-learn."""
        return {name: content_hash(name) for name in self.config.tables}

    @property
    def question(self) -> str:
        return f"in-context {'classes' if self.classes else 'numbers'} of a table"

    def _rows(self, name: str) -> Rows:
        table, config = load_table(name, self.choices), self.config
        check_width(len(table.names), name, config.min_features, config.dim)
        count = len(table.y)
        if not config.min_rows <= count <= (config.max_rows or count):
            raise ValueError(f"{name}: {count} rows; expected {config.min_rows} to {config.max_rows or 'any number'}")
        if self.classes:
            self._check_classes(name, table)
        classes = table.y.astype(np.int64) if self.classes else np.zeros(count, np.int64)
        contents: dict[bytes, int] = {}
        rows = np.column_stack([table.x, table.y]) + 0.0  # no negative zeros
        same = np.array([contents.setdefault(row.tobytes(), len(contents)) for row in rows])
        split, rng = np.zeros(count, np.int64), np.random.default_rng(config.split_seed)
        for each in np.unique(classes):
            members = rng.permutation(np.flatnonzero(classes == each))
            different = same[members[np.sort(np.unique(same[members], return_index=True)[1])]]
            queries = max(2, len(different) // QUERY_EVERY)
            split[np.isin(same, different[:queries])] = 2
            split[np.isin(same, different[: queries // 2])] = 1
        first = split == 0
        fewest = int(np.sort(np.bincount(classes[first], minlength=classes.max() + 1))[:2].sum())
        copies = int(np.bincount(same).max()) - 1  # a query's copies are no context for it
        if fewest - copies < self.points:
            of = "rows of two classes" if self.classes else "rows"
            repeated = f" ({copies} of them may repeat the query)" if copies else ""
            raise ValueError(
                f"{name}: {fewest} {of} for training{repeated}; expected at least points={self.points} for a prompt"
            )
        y = table.y if self.classes else standardise(table.y[:, None], table.y[first, None])[:, 0]
        x = left_padded(standardise(table.x, table.x[first]), self.dim, name)
        return Rows(x, y, table.labels, split, same)

    def _check_classes(self, name: str, table: Table) -> None:
        counts = np.bincount(table.y.astype(np.int64))
        if len(counts) < 2:
            raise ValueError(f"{name}: one class, {shown(table.labels[0])}; expected at least two")
        if 2 * counts.min() < counts.max():
            rare, common = shown(table.labels[counts.argmin()]), shown(table.labels[counts.argmax()])
            raise ValueError(
                f"{name}: {counts.min()} rows of class {rare}, {counts.max()} of {common}; expected "
                "the rarest class to have at least half the rows of the commonest"
            )

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> Sequence[Prompt]:
        """Draw `size` prompts of the held-out table (group) or of the others (group=None).

        Raises:
            ValueError: the group is unknown.
        """
        if group is not None and group not in self.groups:
            raise ValueError(f"group={group!r}: expected one of {', '.join(self.groups)}")
        names = [name for name in self.rows if (name in self.groups) == (group is not None)]
        return [self._prompt(names[rng.integers(len(names))], split, rng) for _ in range(size)]

    def _prompt(self, name: str, split: Split, rng: np.random.Generator) -> Prompt:
        rows = self.rows[name]
        allowed, y, labels = np.ones(len(rows.y), bool), rows.y, None
        if self.classes:
            low, high = rng.permutation(len(rows.labels))[:2]
            allowed, labels = (y == low) | (y == high), (rows.labels[low], rows.labels[high])
            y = np.where(y == high, 1.0, -1.0)
        everywhere = name in self.groups
        queries = np.flatnonzero(allowed & (everywhere | (rows.split == SPLITS.index(split))))
        last = rng.choice(queries)
        known = np.flatnonzero(allowed & (everywhere | (rows.split == 0)))
        context = rng.choice(known[rows.same[known] != rows.same[last]], self.points - 1, replace=False)
        chosen = np.append(context, last)
        return Prompt(rows.x[chosen], y[chosen].astype(np.float32), labels)

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[list[Prompt], int]:
        """Read a CSV or ARFF table. Rows without a target are the problems; rows with one are their context."""
        table, skipped = read_table(lines, source, self.choices, on_bad_row=on_bad_row)
        return prompts_to_solve(table, source, self.dim, self.points, standardised=True), skipped
