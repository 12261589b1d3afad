"""The hash of a source is remembered as long as nothing says that the source could have changed."""

import json
import os
from pathlib import Path

import pytest

from looped.tasks.text import TextConfig, sources
from looped.tasks.text.corpus import open_corpus


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content was hashed."""
    names: list[str] = []
    inner = sources.sha256

    def counted(path: Path) -> str:
        names.append(path.name)
        return inner(path)

    monkeypatch.setattr(sources, "sha256", counted)
    return names


def text(number: int) -> str:
    return "".join(f"A document number {number + n:04}.\n" for n in range(200))


def settings(folder: Path) -> TextConfig:
    path = folder / "text.txt"
    path.write_text(text(0))
    return TextConfig(train_files=(str(path),), document="line", context=16, cache=str(folder / "cache"))


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[str]):
    monkeypatch.setattr(sources, "SETTLED", 0)
    config = settings(tmp_path)
    found = open_corpus(config).sources
    assert hashed == ["text.txt"]
    assert open_corpus(config).sources == found
    assert hashed == ["text.txt"]
    path = tmp_path / "text.txt"
    os.utime(path)  # another time, the same content
    for _ in range(2):
        assert open_corpus(config).sources == found
    assert hashed == ["text.txt"] * 2  # and the new time is remembered
    before = path.stat()
    path.write_text(text(1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp --preserve` does
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_size == before.st_size
    with pytest.raises(
        ValueError, match=r"text\.txt: changed since .*text-.* was prepared from it; restore it, or delete"
    ):
        open_corpus(config)


def test_a_file_that_just_changed_is_not_remembered(tmp_path: Path, hashed: list[str]):
    config = settings(tmp_path)
    open_corpus(config)
    before = len(hashed)
    folder = open_corpus(config).folder
    assert folder
    assert len(hashed) == before + 1
    assert json.loads((folder / "manifest.json").read_text())["stamps"] == {}


def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[str]):
    monkeypatch.setattr(sources, "SETTLED", 0)
    config = settings(tmp_path)
    folder = open_corpus(config).folder
    assert folder
    os.utime(tmp_path / "text.txt")

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("looped.tasks.text.corpus.write_atomic", refused)
    for _ in range(2):
        open_corpus(config)
    assert hashed == ["text.txt"] * 3
