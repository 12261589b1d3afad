"""Checks of configurations that hold for every class made by `frozen`."""

from typing import Literal

import pytest

from looped.strict import check, frozen


@frozen
class Base:
    kind: Literal["plain", "fancy"] = "plain"
    size: Literal[1, 2] | None = None
    name: str = "anything"


@frozen
class Derived(Base):
    loops: int = 1

    def __post_init__(self) -> None:
        check(self.loops >= 1, "loops", self.loops, "at least 1")


@pytest.mark.parametrize("cls", [Base, Derived])
def test_choices_are_checked_when_one_is_made(cls):
    assert cls(kind="fancy", size=2, name="else").size == 2
    with pytest.raises(ValueError, match=r"kind='fency': expected one of plain, fancy \(did you mean 'fancy'\?\)"):
        cls(kind="fency")
    with pytest.raises(ValueError, match="size=3: expected one of 1, 2, None"):
        cls(size=3)


def test_own_checks_still_run():
    with pytest.raises(ValueError, match="loops=0: expected at least 1"):
        Derived(loops=0)
