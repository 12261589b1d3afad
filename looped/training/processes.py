"""The processes of one training: how they meet, what they compare, and how they end together.

All of this uses a store of torch (`TCPStore`) that rank 0 or torchrun holds. It works before the devices are connected,
and while they wait for each other.
"""

import contextlib
import functools
import itertools
import json
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from looped.launch.world import LISTENER, World, find_world
from looped.locks import LOCK
from looped.machine import usable_cores
from looped.tasks.base import Task
from looped.training.errors import OtherError, TrainingError, exit_code

c10d: Any = dist  # its stores have no types

KILLED = "another process of this training has ended without a message, perhaps killed for lack of memory"
MEET = 600.0
"""Seconds in which all processes must come."""
SEEN = 10.0
"""Seconds in which a new file must be seen by all machines."""
SILENT = 30.0
"""Seconds after which a process that says nothing counts as dead."""
UNWIND = 20.0
"""Seconds in which the work of a process may end by itself after another process has ended."""
LINGER = 5.0
"""Seconds of silence after which the process with the store does not wait for another one at the end."""


class Processes:
    """The processes of one training, as one of them sees them.

    A thread says once a second that this process lives, and looks whether another one has failed. It then ends this
    process, whose work may wait for the other one for ever.
    """

    def __init__(self, world: World) -> None:
        """Find rank 0.

        Raises:
            ValueError: it is not at MASTER_ADDR and MASTER_PORT.
        """
        self.world = world
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.store = c10d.PrefixStore(f"looped.{attempt}.{next(_trainings)}", _store(world.rank == 0))
        self.holds = world.rank == 0 and not _of_torchrun()
        """Whether the store is in this process."""
        self.met = False
        self._said = 0
        """The number of values that this process has given to the others."""
        self._heard: list[tuple[bytes, float]] = []
        """In rank 0, the last beat of each process, and when it was first seen."""
        self._beat("")
        self._left = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()
        if "OMP_NUM_THREADS" not in os.environ:
            threads = int(os.environ.get("SLURM_CPUS_PER_TASK", usable_cores() // world.local_size)) or 1
            os.environ["OMP_NUM_THREADS"] = str(threads)  # Fabric and worker processes read it
            torch.set_num_threads(threads)

    def meet(self) -> None:
        """Wait for all other processes, and compare the versions.

        Raises:
            ValueError: a process does not come, or has other versions.
        """
        versions = {"Python": platform.python_version(), "torch": torch.__version__, "looped": version("looped")}
        self.same({"WORLD_SIZE": self.world.size} | versions)
        self.met = True

    # --- Agreement -------------------------------------------------------------------------------------------

    def gather(self, value: Any) -> list[Any]:
        """The JSON values of all processes, in the order of ranks. All processes must call this.

        Raises:
            TrainingError: a process does not come, or has failed.
        """
        self._say(value)
        return [self._said_by(rank) for rank in range(self.world.size)]

    def _say(self, value: Any) -> None:
        self._said += 1
        self.store.set(f"{self._said}.{self.world.rank}", json.dumps(value))

    def _said_by(self, rank: int) -> Any:
        until, wait, name = time.monotonic() + MEET, 0.001, f"{self._said}.{rank}"
        while not self.store.check([name]):
            if self.store.check(["failed"]):
                raise TrainingError("another process has failed")
            if not self.met and time.monotonic() > until:
                raise ValueError(f"WORLD_SIZE={self.world.size}: rank {rank} did not come in {MEET:.0f} s")
            time.sleep(wait)
            wait = min(2 * wait, 0.1)
        return json.loads(self.store.get(name))

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        """Rank 0 does what is inside before the others do, because it may write files that they read."""
        if self.world.rank:
            self.gather(None)
        yield
        if not self.world.rank:
            self.gather(None)

    def same(self, facts: Mapping[str, Any]) -> None:
        """Compare facts with those of rank 0. All processes must call this.

        Raises:
            ValueError: a fact differs; names it.
        """
        host = socket.gethostname()
        self._say([facts, host])
        first, place = self._said_by(0)  # and not by all, because the number of processes may differ
        if difference := _difference(first, json.loads(json.dumps(facts))):
            field, there, here = difference
            raise ValueError(
                f"{field}: {here!r} in rank {self.world.rank} on {host}, but {there!r} in rank 0 on {place}; "
                "expected the same in all processes"
            )
        self.gather(None)

    def check_shared(self, folder: Path) -> None:
        """Check that all processes see the lock that rank 0 holds in the run folder.

        Raises:
            ValueError: this process does not see it.
        """
        path = folder / LOCK
        content = path.read_text() if self.world.rank == 0 else ""
        (content, host), *_ = self.gather([content, socket.gethostname()])
        until = time.monotonic() + SEEN
        while self._read(path) != content:
            if time.monotonic() > until:
                raise ValueError(
                    f"{folder.absolute()}: rank {self.world.rank} on {socket.gethostname()} does not see what rank 0 "
                    f"on {host} writes there; expected a folder that all processes share"
                )
            with contextlib.suppress(OSError):
                os.listdir(folder.parent)  # makes a network file system look again
            time.sleep(0.1)
        self.gather(None)

    @staticmethod
    def _read(path: Path) -> str | None:
        try:
            return path.read_text()
        except OSError:
            return None

    def connect(self, device: torch.device) -> None:
        """Connect the devices: GPUs by nccl, and what is in memory by gloo."""
        gpu = device.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpu else "gloo",
            store=self.store.clone(),  # with a connection of its own, because it waits
            rank=self.world.rank,
            world_size=self.world.size,
            device_id=device if gpu else None,
            timeout=timedelta(hours=1),  # rank 0 may write a large checkpoint; a process that ends is noticed earlier
        )

    # --- The end ---------------------------------------------------------------------------------------------

    def failed(self, code: int) -> tuple[int, bool]:
        """Say that this process ends with an error.

        Returns:
            The exit code of the process that failed first, and whether it is this one.
        """
        try:
            mine = self.store.add("errors", 1) == 1
            if mine:
                self.store.set("failed", str(code))
            code = int(self.store.get("failed"))
        except RuntimeError:  # rank 0 has ended, and the store with it
            mine = self.world.rank == 1
        self.leave()
        return code, mine

    def leave(self) -> None:
        """This process has finished. The process that holds the store ends last."""
        self._left.set()
        until = time.monotonic() + UNWIND
        with contextlib.suppress(RuntimeError):
            self._beat("left")
            while self.holds and min(self._silence(), default=LINGER) < LINGER and time.monotonic() < until:
                time.sleep(0.02)

    def _watch(self) -> None:
        code, said = 0, True
        while not code and not self._left.wait(1):
            try:
                self._beat(str(time.monotonic()))
                if self.store.check(["failed"]):
                    code = int(self.store.get("failed"))
                elif self.met and self.world.rank == 0 and max(self._silence(), default=0) > SILENT:
                    code, said = 3, False
            except RuntimeError:  # rank 0 has ended, and the store with it
                code, said = 3, False
        # The work may end by itself, because its connections are closed. Rank 0 then writes a checkpoint.
        if code and not self._left.wait(1 if said and self.world.rank else UNWIND):
            if self.failed(code)[1]:
                print(f"looped: error: {KILLED}", file=sys.stderr)
            os._exit(code)

    def _beat(self, text: str) -> None:
        self.store.set(f"beat.{self.world.rank}", text)

    def _silence(self) -> list[float]:
        """The seconds for which each process has said nothing, except those that have left. Only rank 0 asks."""
        names = [f"beat.{rank}" for rank in range(self.world.size)]
        now, beats = time.monotonic(), self.store.multi_get(names) if self.store.check(names) else [b""] * len(names)
        heard = self._heard or [(b"", now)] * len(names)
        self._heard = [old if old[0] == new else (new, now) for old, new in zip(heard, beats, strict=True)]
        return [now - since for beat, since in self._heard if beat != b"left"]


_current: Processes | None = None
_trainings = itertools.count()


def _of_torchrun() -> bool:
    """Whether torchrun holds the store, instead of rank 0."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


@functools.cache
def _store(master: bool) -> Any:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    holds = master and not _of_torchrun()
    listener = os.environ.pop(LISTENER, "") if holds else ""
    options: Any = {"master_listen_fd": int(listener)} if listener else {"multi_tenant": True}
    try:
        return c10d.TCPStore(
            address, port, is_master=holds, wait_for_workers=False, timeout=timedelta(seconds=MEET), **options
        )
    except RuntimeError as error:
        problem = "cannot be used by rank 0" if holds else f"found no rank 0 in {MEET:.0f} s"
        reason = str(error).partition("\n")[0]
        raise ValueError(f"MASTER_ADDR={address}, MASTER_PORT={port}: {problem} ({reason})") from None


@contextlib.contextmanager
def together() -> Iterator[Processes | None]:
    """Inside, the processes of a training end together; None if this process trains alone.

    Raises:
        OtherError: another process failed first, and says why.
        ValueError: the processes cannot meet.
    """
    global _current
    world = find_world() if _current is None else None
    if world is None:  # alone, or inside another `together`
        yield _current
        return
    _current = Processes(world)
    try:
        _current.meet()
        yield _current
        _current.gather(None)  # a process that ends with an exit code may end the others
        if dist.is_initialized():
            dist.destroy_process_group()
        _current.leave()
    except BaseException as error:
        if isinstance(error, SystemExit) and not dist.is_initialized():  # --help
            _current.leave()
            raise
        code, first = _current.failed(exit_code(error))
        if not first:
            raise OtherError(code) from error
        if connection_lost(error):
            raise TrainingError(KILLED) from None
        raise
    finally:
        _current = None


def made_together(make: Callable[[], Task]) -> Task:
    """A task whose data is the same in all processes. Rank 0 makes it first.

    Raises:
        ValueError: the data of this process differs from that of rank 0.
    """
    if _current is None:
        return make()
    with _current.first():
        task = make()
    _current.same(task.sources())
    return task


def connection_lost(error: BaseException) -> bool:
    """Whether an error says that another process has ended."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/transport" in str(error))


def _difference(first: Any, other: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The first field that differs, and its two values."""
    if isinstance(first, dict) and isinstance(other, dict):
        found = (_difference(first.get(key), other.get(key), f"{path}.{key}".lstrip(".")) for key in first | other)
        return next(filter(None, found), None)
    return None if first == other else (path, first, other)
