"""Files that are written whole or not at all, and that no link leads elsewhere."""

import secrets
from pathlib import Path

import pytest

from looped.files import open_to_append, replacing, write_atomic


def test_two_writers_do_not_tear_a_file(tmp_path: Path):
    path = tmp_path / "file"
    with replacing(path) as one, replacing(path) as other:
        one.write_text("first " * 1000)
        other.write_text("second")
    assert path.read_text() == "first " * 1000  # the context that ends last
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    monkeypatch.setattr(secrets, "token_hex", lambda size: "guessed")
    (tmp_path / ".file.guessed.tmp").symlink_to(outside)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "file", "theirs")
    assert outside.read_text() == "mine"
    assert not (tmp_path / "file").exists()


def test_a_link_in_place_of_a_file_that_grows_is_not_followed(tmp_path: Path):
    (tmp_path / "file").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"):
        open_to_append(tmp_path / "file")
    assert not (tmp_path / "outside").exists()
    with open_to_append(tmp_path / "outside") as file:
        file.write(b"line\n")
    with open_to_append(tmp_path / "outside") as file:
        assert file.tell() == 5


def test_an_error_names_the_file_that_is_at_fault(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    for name in ("folder", "no-such-folder/file"):
        with pytest.raises(OSError, match=f"'{tmp_path / name}'$"):
            write_atomic(tmp_path / name, "content")
    with pytest.raises(IsADirectoryError, match=f"'{tmp_path / 'folder'}'$"), replacing(tmp_path / "file"):
        (tmp_path / "folder").read_bytes()  # another file, which the content comes from
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
