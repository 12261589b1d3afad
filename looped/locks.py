"""One writer for a folder. The kernel releases the lock also when its process is killed."""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

LOCK = ".lock"
_held: set[int] = set()  # file descriptors of locks


class Writer(NamedTuple):
    """The process that holds the lock of a folder."""

    process: int
    host: str
    start: str
    command: str

    def __str__(self) -> str:
        known = f"process {self.process} on {self.host} (since {self.start}: {self.command})"
        return known if self.process else "another process"

    @property
    def short(self) -> str:
        return f"process {self.process} on {self.host} since {self.start}" if self.process else str(self)


@contextlib.contextmanager
def locked(folder: Path, *parts: str, wait: bool = False) -> Iterator[None]:
    """Make `folder`, if it does not exist, and be its only writer. Readers need no lock.

    The file .lock in the folder exists only while somebody writes, or after a writer was killed. Temporary files of
    such a writer are removed.

    Args:
        parts: folders in `folder` that only its writer writes.
        wait: wait for another process that writes, and say so on standard error.

    Raises:
        ValueError: another process or thread writes into the folder (without `wait`); names its process, host and
            start.
        OSError: the folder cannot be made or written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"{folder}: a file; expected a folder") from None
    descriptor = _acquire(folder, wait)
    _held.add(descriptor)
    try:
        own = [folder, *(folder / part for part in parts if not (folder / part).is_symlink())]
        for leftover in (path for place in own for path in place.glob(".*.tmp")):
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
            for path in made:
                path.rmdir()  # only if nothing was written
        _held.discard(descriptor)
        os.close(descriptor)


def _acquire(folder: Path, wait: bool) -> int:
    path = folder / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held, writer = _has_writer(descriptor), _writer(descriptor)
            described = f"{folder}: {writer} writes into it"
            if held and (not wait or writer.process == os.getpid()):  # this process would wait for itself
                os.close(descriptor)
                raise ValueError(f"{described}; wait, or choose another folder") from None
            if not held:  # somebody asked `writer_of` in this instant
                os.close(descriptor)
                time.sleep(0.005)
                continue
            print(f"{described}; waiting for it", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:  # some network file systems have no locks
            print(f"{path}: no lock on this file system ({error.strerror}); keep other writers away", file=sys.stderr)
        if _is(descriptor, path):
            break
        os.close(descriptor)  # the last holder removed the file before this process locked it
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:500]
    holder = {"process": os.getpid(), "host": socket.gethostname(), "start": started, "command": command}
    with contextlib.suppress(OSError):  # on a full disk the lock holds without a description
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps(holder).encode())
    return descriptor


def writer_of(folder: Path) -> Writer | None:
    """The process that writes into `folder` now, on this host or another one; None if nobody does.

    A writer that starts at the same moment is not disturbed. On a file system without locks nobody is known to write.

    Raises:
        OSError: the lock cannot be read.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _writer(descriptor) if _has_writer(descriptor) else None
    finally:
        os.close(descriptor)


def _has_writer(descriptor: int) -> bool:
    """Whether a writer has the lock. A shared lock for an instant tells: a writer's lock is exclusive.

    The lock is therefore shared until the descriptor is closed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks on this file system: the file may be that of a killed writer
        return False
    return False


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _writer(descriptor: int) -> Writer:
    try:
        found = json.loads(os.read(descriptor, 10_000))
        return Writer(found["process"], found["host"], found["start"], found["command"])
    except (ValueError, KeyError, TypeError):  # it is just being written, or could not be
        return Writer(0, "", "", "")


def _close_in_child() -> None:
    """A forked worker must not keep the lock of a parent that was killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
