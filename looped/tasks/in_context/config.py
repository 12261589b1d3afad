"""The settings of the task in_context."""

from typing import Literal

from looped.strict import check, forbid_unused, frozen, positive
from looped.tasks.registry import TaskConfig


@frozen
class InContextConfig(TaskConfig):
    """Predict a function's value at a point from its values at earlier points of the prompt."""

    name = "in_context"

    function: Literal["linear", "noisy_linear", "sparse_linear", "decision_tree", "relu"] = "decision_tree"
    dim: int = 20
    """Number of coordinates of a point."""
    points: int = 101
    """Number of points in a prompt; all but the last are context for the last one."""
    start_dim: int | None = None
    """Number of coordinates in use at the first training step; the others are zero. None is all."""
    dim_step: int = 1
    dim_every: int | None = None
    """Every `dim_every` steps, `dim_step` more coordinates are used."""
    start_points: int | None = None
    """Number of points in a prompt at the first training step; None is all."""
    points_step: int = 1
    points_every: int | None = None
    truncation: Literal["corrected", "published"] = "corrected"
    """corrected: a function depends only on the coordinates in use. published: trees ignore start_dim, and sparse
    functions use any coordinates, so early ones can be zero everywhere."""

    def __post_init__(self) -> None:
        positive(self, "dim", "start_dim", "dim_step", "dim_every", "start_points", "points_step", "points_every")
        check(self.points >= 2, "points", self.points, "at least 2")
        for size in ("dim", "points"):
            start, every, full = getattr(self, f"start_{size}"), getattr(self, f"{size}_every"), getattr(self, size)
            if start is None:
                forbid_unused(self, f"start_{size}=None", f"{size}_step", f"{size}_every")
            else:
                check(start <= full, f"start_{size}", start, f"at most {size}={full}")
                check(every is not None, f"{size}_every", None, f"a number of steps with start_{size}={start}")
        if self.start_dim is None:
            forbid_unused(self, "start_dim=None", "truncation")
        elif self.function not in ("sparse_linear", "decision_tree"):
            forbid_unused(self, f"function={self.function!r}", "truncation")
