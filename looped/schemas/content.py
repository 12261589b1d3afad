"""The base of everything that files hold, and the facts about the machine."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from looped.strict import Measured, at_least, check, frozen


class Content(Measured):
    """The base of everything in a file. Numbers are finite, counts are not negative, and low is at most high."""

    __slots__ = ()
    measured: ClassVar[tuple[str, ...]] = ()
    """Fields that may be infinite or NaN, because a model that diverges has such scores."""
    positive: ClassVar[tuple[str, ...]] = ()
    """Counts that are at least 1."""

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        for name, value in values.items():
            _check_numbers(name, value, name in self.measured)
        at_least(1, **{name: values[name] for name in self.positive})
        low, high = values.get("low"), values.get("high")
        if isinstance(low, float) and isinstance(high, float):
            check(not low > high, "low", low, f"at most high={high}")

    @classmethod
    def kind_of(cls, data: dict[str, Any]) -> type["Content"]:
        """The class of some content, where several are possible."""
        return cls


def _check_numbers(name: str, value: Any, measured: bool) -> None:
    if isinstance(value, tuple | dict):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            _check_numbers(f"{name}.{key}" if isinstance(value, dict) else f"{name}[{key}]", part, measured)
    elif isinstance(value, float):
        check(measured or math.isfinite(value), name, value, "a finite number")
    elif isinstance(value, int):
        check(value >= 0, name, value, "at least 0")


def check_length(name: str, value: Sequence[Any], length: int) -> None:
    """Raise ValueError unless the named list has this length."""
    if len(value) != length:
        raise ValueError(f"{name}: {len(value)} values, expected {length}")


class InFile(Content):
    """The content of a file, or a row of it."""

    __slots__ = ()
    file: ClassVar[str]


@frozen
class Environment(InFile):
    """The machine and the program that produced a result."""

    file: ClassVar[str] = "environment.json"
    command: str
    date: str
    machine: str
    python: str
    torch: str
    looped: str
    threads: int
    precision: str
    device: str
    devices: int = 1
    nodes: int = 1
    """Number of machines."""
    strategy: str | None = None
    """Only with several devices (train.strategy)."""
    matmul_peak: float | None = None
    """Measured FLOPs per second of a large matrix product, over all devices together."""
