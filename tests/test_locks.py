"""A folder has one writer. The lock ends with its process, also after kill -9."""

import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from looped.locks import LOCK, locked, writer_of

HOLD = """
import sys, time
from pathlib import Path
from looped.locks import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""
FORK = """
import os, sys, time
from pathlib import Path
from looped.locks import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # by now the child has closed the lock
    time.sleep(60)
"""


@contextmanager
def running(code: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has the lock, and the line that it printed."""
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_the_second_writer_is_refused_and_told_who_writes(tmp_path: Path):
    folder = tmp_path / "run"
    with running(HOLD, folder) as (process, _):
        expected = f"{folder}: process {process.pid} on .* wait, or choose"
        with pytest.raises(ValueError, match=expected) as told, locked(folder):
            pass
        assert f"on {os.uname().nodename} (since 20" in str(told.value)
        assert "\n" not in str(told.value)
    assert (folder / LOCK).exists()  # what a killed process leaves does not lock anything
    with locked(folder):
        assert json.loads((folder / LOCK).read_text())["process"] == os.getpid()
    assert not (folder / LOCK).exists()


def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path):
    with running(FORK, tmp_path) as (process, child):
        process.kill()
        process.wait()
        try:
            os.kill(int(child), 0)  # it lives
            with locked(tmp_path):
                assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
        finally:
            os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize("wait", [False, True])
def test_the_same_process_is_not_admitted_twice(wait: bool, tmp_path: Path):
    with locked(tmp_path), pytest.raises(ValueError, match=f"process {os.getpid()} "), locked(tmp_path, wait=wait):
        pass


def test_a_lock_holds_on_a_full_disk(tmp_path: Path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with locked(tmp_path), pytest.raises(ValueError, match="another process writes into it"), locked(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_folders_that_stay_empty_are_removed(tmp_path: Path):
    (tmp_path / "old").mkdir()
    with locked(tmp_path / "old"), locked(tmp_path / "new/deep"):
        (tmp_path / "old/deep").mkdir()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "old"]
    with locked(tmp_path / "new/deep"):
        (tmp_path / "new/deep/file").touch()
    assert (tmp_path / "new/deep/file").exists()


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path):
    (tmp_path / LOCK).symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path):
        pass
    assert not (tmp_path / "outside").exists()


def test_a_link_in_place_of_a_part_is_not_cleaned(tmp_path: Path):
    """A temporary file of a killed writer is removed, also in the parts, but not in a folder that a link names."""
    run, outside = tmp_path / "run", tmp_path / "outside"
    for folder in (outside, run / "figures"):
        folder.mkdir(parents=True)
        (folder / ".mine.tmp").touch()
    (run / "checkpoints").symlink_to(outside)
    with locked(run, "checkpoints", "figures"):
        pass
    assert not (run / "figures/.mine.tmp").exists()
    assert (outside / ".mine.tmp").exists()


def test_a_file_in_place_of_the_folder(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="a file; expected a folder"), locked(tmp_path / "file"):
        pass


def test_who_writes_is_known_from_the_lock_and_not_from_its_file(tmp_path: Path):
    assert writer_of(tmp_path / "none") is None
    with running(HOLD, tmp_path) as (process, _):
        writer = writer_of(tmp_path)
        assert writer is not None
        assert (writer.process, writer.host) == (process.pid, os.uname().nodename)
        os.truncate(tmp_path / LOCK, 0)  # the instant in which a writer describes itself
        assert str(writer_of(tmp_path)) == "another process"
    assert (tmp_path / LOCK).exists()
    assert writer_of(tmp_path) is None


def test_asking_disturbs_no_writer(tmp_path: Path):
    """Two processes that ask all the time, and one that keeps its question open for a while."""
    asking = "import pathlib, sys; from looped.locks import writer_of\nprint(flush=True)\n"
    asking += "while True: writer_of(pathlib.Path(sys.argv[1]))"
    (tmp_path / LOCK).touch()
    with running(asking, tmp_path), running(asking, tmp_path):
        for _ in range(300):
            with locked(tmp_path):
                with pytest.raises(ValueError, match=f"process {os.getpid()} "), locked(tmp_path):
                    pass
                writer = writer_of(tmp_path)
                assert writer is not None
                assert writer.process == os.getpid()
    (tmp_path / LOCK).touch()
    question = os.open(tmp_path / LOCK, os.O_RDONLY)
    fcntl.flock(question, fcntl.LOCK_SH)
    threading.Timer(0.3, os.close, [question]).start()
    began = time.monotonic()
    with locked(tmp_path):
        assert time.monotonic() - began > 0.2


def test_without_locks_nobody_is_known_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On such a file system a run whose writer was killed must not wait for it."""

    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with locked(tmp_path):
        assert writer_of(tmp_path) is not None
        monkeypatch.setattr(fcntl, "flock", no_locks)
        assert writer_of(tmp_path) is None
        with locked(tmp_path):
            pass
