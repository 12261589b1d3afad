"""Commands that are stopped before one of their changes to the disk."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import looped.training.trainer
from looped.cli import main

SMALL = (
    "demo-looped-2 --task.length 4 --model.d-model 16 --model.num-heads 2 --optim.warmup-steps 2 --train.batch-size 8 "
    "--train.log-every 1 --train.eval-every 2 --train.save-every 1 --train.keep-last 1 --train.eval-examples 8 "
    "--train.device cpu --train.precision fp32 --train.compile False --train.workers 0"
).split()
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# A run measures the speed of the machine for 0.1 s. It needs this only for one number in metrics.jsonl.
looped.training.trainer.matmul_peak = lambda *_: 1e12


def run(commands: Sequence[Sequence[str]], stop_at: int, count_to: str | None) -> int:
    """Run command lines one after the other; returns the first exit code that is not 0.

    Args:
        stop_at: the process stops (SIGSTOP) before this change to the disk since it got its first lock; 0 is never.
        count_to: file for the number of changes.
    """
    changes = 0
    has_lock = False

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes, has_lock
        has_lock = has_lock or event == "fcntl.flock"
        if has_lock and (event in CHANGES or (event == "open" and arguments[2] & WRITING)):
            changes += 1
            if changes == stop_at:
                os.kill(os.getpid(), signal.SIGSTOP)

    sys.addaudithook(audit)
    code = next(filter(None, map(main, commands)), 0)
    if count_to:
        Path(count_to).write_text(str(changes))
    return code
