"""Many runs in one folder: what `compare` and `reproduce` want to run, and why a run failed."""

from pathlib import Path
from typing import ClassVar

from looped.schemas.content import Content, InFile
from looped.strict import check, frozen


@frozen
class SweepRun(Content):
    """A run of a sweep."""

    positive: ClassVar[tuple[str, ...]] = ("steps",)
    folder: str
    """Its name in the folder of the sweep."""
    recipe: str
    steps: int
    commands: str
    """The line that `--dry-run` prints."""

    def __post_init__(self) -> None:
        check(self.folder not in ("", ".", "..") and Path(self.folder).name == self.folder, "folder", self.folder,
              "a name without /")  # fmt: skip
        super().__post_init__()


@frozen
class Sweep(InFile):
    """The runs of a sweep. Its file is in the folder that contains the run folders."""

    file: ClassVar[str] = "sweep.json"
    command: str
    runs: tuple[SweepRun, ...]


@frozen
class Failure(InFile):
    """Why a run of a sweep failed. The file is removed when the run begins again."""

    file: ClassVar[str] = "failure.json"
    positive: ClassVar[tuple[str, ...]] = ("tries", "code")
    reason: str
    code: int
    """The exit code of the last command; 128 + N after signal N."""
    tries: int
    host: str
    date: str
