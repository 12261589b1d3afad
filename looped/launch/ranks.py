"""`looped train --train.devices N`: N processes on this machine, each with one device."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from looped.launch.parent import PARENT
from looped.launch.world import LISTENER
from looped.user_code import import_words

KILLED_AFTER = 30.0
"""Seconds after the end of a process until others that do not notice it are killed."""


def run_ranks(words: Sequence[str], devices: int) -> int:
    """Run `looped WORDS` in one process for each device, with torchrun's variables. Returns the exit code.

    Signals are passed on to all processes. If one fails, the others end by themselves, or are killed. The first failed
    process gives the exit code.
    """
    listener = socket.create_server(("127.0.0.1", 0))  # for the store in rank 0; not open to other machines
    # A torchrun that started this process has no part in the training: its store is not that of the processes here.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")} | {
        "WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices), PARENT: str(os.getpid()),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(listener.getsockname()[1]),
    }  # fmt: skip
    processes: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        for process in processes:
            process.send_signal(number)

    before = {
        number: signal.signal(number, pass_on)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN  # as under `nohup`
    }
    try:
        for rank in range(devices):
            # Each process has a process group of its own, so Ctrl-C reaches it once, from here.
            command = [sys.executable, "-P", "-m", "looped.cli", *import_words(), *words]
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            handles = () if rank else (listener.fileno(),)
            environment[LISTENER] = "".join(map(str, handles))
            processes.append(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, env=environment, start_new_session=True, pass_fds=handles
                )
            )
            if received:  # before this process was there
                processes[-1].send_signal(received[-1])
        listener.close()
        return _wait(processes, received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()


def _wait(processes: Sequence[subprocess.Popen[bytes]], received: Sequence[int]) -> int:
    """Wait for all processes. Returns the exit code."""
    failed: subprocess.Popen[bytes] | None = None
    since = 0.0
    while any(process.poll() is None for process in processes):
        if failed is None and (ended := [process for process in processes if process.returncode]):
            failed, since = ended[0], time.monotonic()
        if failed is not None and not received and time.monotonic() - since > KILLED_AFTER:
            for process in processes:
                process.kill()
        time.sleep(0.05)
    codes = [process.returncode for process in processes]
    if said := [code for code in codes if code > 0]:  # such a process has printed its message
        return failed.returncode if failed is not None and failed.returncode > 0 else said[0]
    if received and any(codes):
        return 128 + received[-1]
    if failed is None:
        failed = next((process for process in processes if process.returncode), None)
    if failed is None:
        return 0
    name = signal.Signals(-failed.returncode).name
    print(f"looped: error: the process of rank {processes.index(failed)} was killed by {name}", file=sys.stderr)
    return 3
