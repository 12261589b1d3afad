"""The settings of the task tables."""

from typing import ClassVar, Literal

from looped.strict import check, frozen, ordered, positive
from looped.tasks.registry import TaskConfig


@frozen
class TablesConfig(TaskConfig):
    """Predict one column of a table's row from the others, given whole rows. The model is tested on a held-out table.

    The published filter of OpenML tables is min_features=5, dim=20, min_rows=1000, max_rows=10000.
    """

    name = "tables"

    paths: ClassVar[tuple[str, ...]] = ("tables", "held_out")

    tables: tuple[str, ...] = ("iris", "breast_cancer", "digits", "wine")
    """CSV files (with a line of names), ARFF files, or data sets of scikit-learn: iris, wine, breast_cancer, digits
    (classes), diabetes (numbers). Files may be compressed."""
    held_out: str = "wine"
    """The one of `tables` that is not used in training."""
    target: tuple[str, ...] = ()
    """Names of target columns. A file has exactly one of them. Without names the target is the last column."""
    target_type: Literal["class", "number"] = "class"
    """Type of the target. With class, each prompt has two of the classes."""
    categories: Literal["refuse", "onehot", "drop"] = "refuse"
    """The use of a column of categories. onehot: each one that occurs becomes a feature, which is 1 or 0."""
    missing: Literal["refuse", "mean"] = "refuse"
    """The use of a missing feature: an empty cell or ?, in numbers of a CSV also NA, N/A, NaN, null or none. mean:
    it becomes the mean of the context rows, so standardised it is 0."""
    dim: int = 64
    """Width of an input row; rows with fewer features have zeros on their left."""
    points: int = 41
    """Number of rows in a prompt; all but the last are context for the last one."""
    min_features: int = 1
    min_rows: int = 1
    max_rows: int | None = None
    split_seed: int = 2021
    """Seed that selects the 5% of rows that are queries only in validation and test."""

    def __post_init__(self) -> None:
        positive(self, "dim", "min_features", "min_rows", "max_rows")
        ordered(self, "rows")
        check(self.min_features <= self.dim, "min_features", self.min_features, f"at most dim={self.dim}")
        check(self.points >= 2, "points", self.points, "at least 2")
        check(self.split_seed >= 0, "split_seed", self.split_seed, "at least 0")
        check(self.held_out in self.tables, "held_out", self.held_out, f"one of tables={', '.join(self.tables)}")
        check(len(set(self.tables)) > 1, "tables", self.tables, "one to hold out, and others to train on")
        check(len(set(self.tables)) == len(self.tables), "tables", self.tables, "different tables")
