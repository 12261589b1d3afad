"""Commands that are stopped before one of their changes to the disk."""

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import looped.training.trainer
from looped.cli import main
from looped.locks import LOCK
from looped.report.read import read_run
from looped.run_folder import CHECKPOINTS, CONFIG
from looped.training.checkpoint import load_run, saved_steps

SMALL = shlex.split(
    "edit-distance-small --task.length 4 --model.d-model 16 --model.num-heads 2 --optim.warmup-steps 2 "
    "--train.batch-size 8 --train.log-every 1 --train.eval-every 2 --train.save-every 1 --train.keep-last 1 "
    "--train.eval-examples 8 --train.device cpu --train.precision fp32 --train.compile False --train.workers 0"
)
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# A run measures the speed of the machine for 0.1 s. It needs this only for one number in metrics.jsonl.
looped.training.trainer.matmul_peak = lambda *_: 1e12


def run(words: Sequence[str], stop_at: int = 0, count_to: str | None = None) -> int:
    """Run a command line; returns its exit code.

    Args:
        stop_at: the process stops (SIGSTOP) before this change to the disk, of those under its lock; 0 is never.
        count_to: file for the number of changes.
    """
    changes = 0
    has_lock = False

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes, has_lock
        if has_lock and (event in CHANGES or (event == "open" and arguments[2] & WRITING)):
            changes += 1
            if changes == stop_at:
                os.kill(os.getpid(), signal.SIGSTOP)
        if event == "fcntl.flock":
            has_lock = True
        elif event == "os.remove" and Path(arguments[0]).name == LOCK:
            has_lock = False  # the next writer may come

    sys.addaudithook(audit)
    code = main(words)
    if count_to:
        Path(count_to).write_text(str(changes))
    return code


def read_and_run(folder: str, words: Sequence[str]) -> int:
    """Read every file that a run folder has, then run a command line; returns its exit code.

    Raises:
        ValueError: a file is not whole.
    """
    run_folder = Path(folder)
    if (run_folder / CONFIG).exists():
        read_run(run_folder)
        for step in (steps := saved_steps(run_folder)):
            load_run(run_folder, step)
        if steps:
            load_run(run_folder, "best")
    elif (run_folder / CHECKPOINTS).exists():
        raise ValueError(f"{folder}: checkpoints without a configuration")
    return main(words)
