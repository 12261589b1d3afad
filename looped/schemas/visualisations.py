"""The answers to an example after each loop, as `Task.visualise` returns them and answers_by_loop.json stores them."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from looped.schemas.content import Content, check_length
from looped.strict import check, frozen, nearest


class Visualisation(Content):
    """The answers to one example after each loop. The kinds are below."""

    __slots__ = ()
    kind: Any
    loops: tuple[Any, ...]

    @classmethod
    def kind_of(cls, data: dict[str, Any]) -> type[Content]:
        kind = data.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            hint = nearest(kind, KINDS) if isinstance(kind, str) else ""
            raise ValueError(f"kind={kind!r}: expected one of {', '.join(KINDS)}{hint}")
        return KINDS[kind]


def _check_loops(loops: Sequence[Any]) -> None:
    numbers = [frame.loop for frame in loops]
    rising = all(a < b for a, b in zip([0, *numbers], numbers, strict=False))
    check(bool(numbers) and rising, "loops", numbers, "at least one loop, numbered from 1 in rising order")


@frozen
class SlotsFrame(Content):
    """The words after one loop, and their probabilities."""

    measured: ClassVar[tuple[str, ...]] = ("confidence",)
    loop: int
    slots: tuple[str, ...]
    confidence: tuple[float, ...]


@frozen
class Slots(Visualisation):
    """A sequence that is answered in parallel."""

    kind: Literal["slots"]
    title: str
    input: str
    answer: tuple[str, ...]
    """Empty if it is unknown."""
    loops: tuple[SlotsFrame, ...]

    def __post_init__(self) -> None:
        Content.__post_init__(self)
        _check_loops(self.loops)
        count = len(self.answer) or len(self.loops[0].slots)
        for i, frame in enumerate(self.loops):
            check_length(f"loops[{i}].slots", frame.slots, count)
            check_length(f"loops[{i}].confidence", frame.confidence, count)


@frozen
class PointsFrame(Content):
    """The predictions after one loop."""

    measured: ClassVar[tuple[str, ...]] = ("predictions",)
    loop: int
    predictions: tuple[float, ...]


@frozen
class Points(Visualisation):
    """Real values one after another."""

    kind: Literal["points"]
    title: str
    tolerance: float
    """A prediction within it counts as right."""
    truth: tuple[float, ...]
    loops: tuple[PointsFrame, ...]

    def __post_init__(self) -> None:
        Content.__post_init__(self)
        _check_loops(self.loops)
        check(bool(self.truth), "truth", self.truth, "at least one value")
        for i, frame in enumerate(self.loops):
            check_length(f"loops[{i}].predictions", frame.predictions, len(self.truth))


@frozen
class DistributionFrame(Content):
    """Labels and their probabilities after one loop."""

    measured: ClassVar[tuple[str, ...]] = ("probabilities",)
    loop: int
    probabilities: tuple[tuple[str, float], ...]


@frozen
class Distribution(Visualisation):
    """Probabilities of some labels."""

    kind: Literal["distribution"]
    title: str
    input: str
    answer: str
    """'' if it is unknown."""
    loops: tuple[DistributionFrame, ...]

    def __post_init__(self) -> None:
        Content.__post_init__(self)
        _check_loops(self.loops)
        check(bool(self.labels), "loops[0].probabilities", [], "at least one label")
        for i, frame in enumerate(self.loops):
            found = tuple(label for label, _ in frame.probabilities)
            check(
                found == self.labels, f"loops[{i}].probabilities", found, f"the labels of the first loop {self.labels}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """All loops have the same labels in the same order."""
        return tuple(label for label, _ in self.loops[0].probabilities)


@frozen
class BoardFrame(Content):
    """The cells of a board after one loop, row by row, and their probabilities."""

    measured: ClassVar[tuple[str, ...]] = ("confidence",)
    loop: int
    cells: tuple[int, ...]
    confidence: tuple[float, ...]


@frozen
class Board(Visualisation):
    """A Sudoku board; 0 is blank."""

    kind: Literal["board"]
    side: int
    box: int
    given: tuple[int, ...]
    solution: tuple[int, ...]
    rating: str | None = None
    loops: tuple[BoardFrame, ...]

    def __post_init__(self) -> None:
        Content.__post_init__(self)
        _check_loops(self.loops)
        check(self.side == self.box**2 > 0, "side", self.side, f"the square of box={self.box}, at least 1")
        lists = {"given": self.given, "solution": self.solution}
        for i, frame in enumerate(self.loops):
            lists |= {f"loops[{i}].cells": frame.cells, f"loops[{i}].confidence": frame.confidence}
        for name, values in lists.items():
            check_length(name, values, self.side**2)


KINDS: dict[str, type[Visualisation]] = {
    "slots": Slots, "points": Points, "distribution": Distribution, "board": Board,
}  # fmt: skip
