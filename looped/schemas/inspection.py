"""The measurements of `looped inspect`, as inspect.json stores them.

Lists go by loop, from loop 1 unless `loop` says otherwise. None stands for a number that is not finite.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from looped.schemas.content import Content, Environment, InFile, check_length
from looped.strict import at_least, check, frozen

Values = tuple[float | None, ...]
CLASSES = ("final", "target", "agrees", "entropy")
"""The fields of a `Lens` if the answers are classes."""


@frozen
class Scores(Content):
    """The score after each loop, with 95% intervals; `beyond` is the change after the last loop of training."""

    value: Values
    low: Values
    high: Values
    beyond: tuple[float | None, float | None]


@frozen
class Lens(Content):
    """The answers by loop: `distance` for real numbers, the others for classes."""

    final: Values | None = None
    target: Values | None = None
    agrees: Values | None = None
    entropy: Values | None = None
    distance: Values | None = None


@frozen
class Band(Content):
    """The 10%, 50% and 90% quantiles."""

    low: Values
    middle: Values
    high: Values

    def __post_init__(self) -> None:
        Content.__post_init__(self)
        check_length("low", self.low, len(self.middle))
        check_length("high", self.high, len(self.middle))


@frozen
class Channels(Band):
    """Quantiles over channels, and the root mean square."""

    size: Values


@frozen
class Motion(Content):
    """The movement of the state."""

    change: Band
    cosine: Band
    turn: Band


@frozen
class Jacobian(Content):
    """Spectral radius and norm at some loops."""

    loop: tuple[int, ...]
    examples: int
    radius: Band
    norm: Band


@frozen
class Start(Content):
    """The effect of another initial state."""

    start: str
    distance: Band
    cosine: Band
    answers: Values


@frozen
class Starts(Content):
    """The effects of other initial states."""

    free: bool
    examples: int
    unrelated: float | None
    rows: tuple[Start, ...]


@frozen
class Path(Content):
    """The path of one position in the plane of two principal components."""

    example: int
    position: int
    points: tuple[tuple[float | None, float | None], ...]


@frozen
class Components(Content):
    """Principal components of the states."""

    explained: tuple[float | None, float | None]
    examples: int
    paths: tuple[Path, ...]


@frozen
class AttentionMaps(Content):
    """Maps by shown loop, row (a head or a layer), query and key; the effective number of keys by layer and loop."""

    loop: tuple[int, ...]
    kind: str
    rows: tuple[str, ...]
    shown: tuple[int, ...]
    maps: tuple[tuple[tuple[Values, ...], ...], ...]
    positions: int
    keys: tuple[Values, ...] | None = None

    def __post_init__(self) -> None:
        Content.__post_init__(self)
        check_length("maps", self.maps, len(self.shown))
        for i, by_row in enumerate(self.maps):
            check_length(f"maps[{i}]", by_row, len(self.rows))
            for j, queries in enumerate(by_row):
                for k, keys in enumerate(queries):
                    check_length(f"maps[{i}][{j}][{k}]", keys, len(queries))
                check_length(f"maps[{i}][{j}]", queries, len(self.maps[0][0]))
        check(bool(self.maps and self.rows and self.maps[0][0]), "maps", "[]", "at least one loop, row and key")
        for i, layer in enumerate(self.keys or ()):
            check_length(f"keys[{i}]", layer, len(self.loop))


@frozen
class Inspection(InFile):
    """The measurements of `looped inspect` and the facts of the run."""

    file: ClassVar[str] = "inspect.json"
    run: str
    recipe: str
    task: str
    metric: str
    lower_is_better: bool
    group: str | None
    split: str
    step: int
    seed: int
    examples: int
    trained_loops: int
    loops: int
    score: Scores
    answers: Lens
    layers: Lens | None
    """By core layer in the last loop of training."""
    motion: Motion
    jacobian: Jacobian
    starts: Starts
    components: Components
    attention: AttentionMaps | None
    modulation: dict[str, tuple[Channels, ...]] | None
    environment: Environment

    def __post_init__(self) -> None:
        Content.__post_init__(self)
        at_least(1, loops=self.loops, trained_loops=self.trained_loops)
        lists: dict[str, Sequence[Any]] = {
            f"score.{name}": getattr(self.score, name) for name in ("value", "low", "high")
        }
        for f in dataclasses.fields(Lens):
            lists |= {f"answers.{f.name}": values} if (values := getattr(self.answers, f.name)) is not None else {}
        lists |= {f"motion.{name}": getattr(self.motion, name).middle for name in ("change", "cosine")}
        for i, row in enumerate(self.starts.rows):
            lists |= {f"starts.rows[{i}].{name}": getattr(row, name).middle for name in ("distance", "cosine")}
            lists |= {f"starts.rows[{i}].answers": row.answers}
        for name, layers in (self.modulation or {}).items():
            check(bool(layers), f"modulation.{name}", "[]", "at least one layer")
            for i, layer in enumerate(layers):
                lists |= {f"modulation.{name}[{i}].{key}": getattr(layer, key) for key in ("middle", "size")}
        for name, values in lists.items():
            check_length(name, values, self.loops)
        if self.layers is not None:
            for name in CLASSES:
                check_length(f"layers.{name}", getattr(self.layers, name) or (), len(self.layers.final or ()) or 1)
        check_length("motion.turn.middle", self.motion.turn.middle, self.loops - 1)
        for i, path in enumerate(self.components.paths):
            check_length(f"components.paths[{i}].points", path.points, self.loops + 1)
        at = min(self.trained_loops, self.loops)
        counted = {"jacobian": self.jacobian.loop} | ({"attention": self.attention.loop} if self.attention else {})
        for name, loop in counted.items():
            rising = all(a < b <= self.loops for a, b in zip((0, *loop), loop, strict=False))
            check(rising and at in loop, f"{name}.loop", loop, f"loops in rising order, with loop {at}")
        for name in ("radius", "norm"):
            check_length(f"jacobian.{name}.middle", getattr(self.jacobian, name).middle, len(self.jacobian.loop))
        classes = self.answers.distance is None
        needed = CLASSES if classes else ("distance",)
        if missing := [name for name in needed if getattr(self.answers, name) is None]:
            raise ValueError(f"answers: missing {', '.join(missing)}")
        check(bool(self.starts.rows), "starts.rows", "[]", "at least one row")
        if self.modulation is not None and len({len(layers) for layers in self.modulation.values()}) != 1:
            raise ValueError("modulation: expected as many layers for each name, and at least one name")
