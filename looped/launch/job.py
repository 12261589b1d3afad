"""A run of a sweep as one line of commands, and the processes that carry it out. Every launcher uses these."""

import contextlib
import itertools
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from looped.config import RunConfig
from looped.files import open_to_append
from looped.launch.parent import PARENT
from looped.locks import LOCK, locked, writer_of
from looped.run_folder import LOG, EvalRow, Failure, Summary, open_run, read_file, read_rows, write_file
from looped.strict import to_dict
from looped.user_code import import_words

WAIT = 120.0
"""Seconds to wait for another writer: one that is about to end, or whose host died. A lock over NFS outlives its host
by the lease, which is 90 s on most servers."""
MISTAKE, FAULT = 2, 3
MACHINE = {FAULT, *range(129, 256)}
"""Exit codes for which the machine may be at fault; 128 + N is signal N."""
TOO_LONG = "the evaluation takes longer than the time limit of a job"
CLUSTER_SIGNALS = {signal.SIGUSR1, signal.SIGUSR2}
"""A cluster announces the end of a job with one of them. They would end a process that does not know them."""


class Job(NamedTuple):
    """A run of a sweep."""

    folder: Path
    commands: list[list[str]]
    """Training and evaluation. They may be repeated: a run continues, and a finished one stays as it is."""
    run: RunConfig

    @property
    def line(self) -> str:
        """The commands as the user types them: `looped train ... && looped evaluate ...`."""
        return " && ".join(shlex.join([name, *import_words(), *words]) for name, *words in self.commands)

    def is_done(self) -> bool:
        """Whether nothing is left to do. Where a writer was killed, the commands still have to remove what it left."""
        try:
            done = open_run(self.run, self.folder, resume=True) is not None and is_evaluated(self.folder)
        except ValueError:  # not begun, damaged, or another run: the commands say so
            return False
        return done and not (self.folder / LOCK).exists()


class JobProcess:
    """The commands of a line as processes, one after the other, with their output in log.txt of the run's folder.

    They are repeated once if the machine may be at fault: the process was killed by a signal, or ended with exit code
    3. A mistake (2) or a training that diverges (1) would only come again. A run that failed has a failure.json.
    """

    def __init__(
        self,
        line: str,
        threads: int,
        before_train: Sequence[str] = (),
        gpus: Sequence[str] = (),
        say: Callable[[str], object] = print,
    ) -> None:
        """
        Args:
            line: `Job.line`.
            threads: threads of each process.
            gpus: the only GPUs that the commands see; () is all.
            before_train: the words before the training's command, such as `srun`.
            say: gets a message for each event, such as a second try.
        """
        split = itertools.groupby(shlex.split(line), "&&".__ne__)
        self.train, self.evaluate = [list(words) for is_command, words in split if is_command]
        self.folder = Path(self.train[self.train.index("--out") + 1])
        self.environment = os.environ | {"OMP_NUM_THREADS": str(threads), PARENT: str(os.getpid())}
        if gpus:
            self.environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        self.before_train, self.say = before_train, say
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False
        self._was_trained = False

    def run(self) -> Failure | None:
        """Run the commands. Returns why they failed; None also if they were stopped."""
        tries, self._was_trained = 1, is_trained(self.folder)
        try:
            if writer := self._other_writer():
                return None if self.stopped else failure_of(f"{writer} writes into it", MISTAKE, tries)
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / Failure.file).unlink(missing_ok=True)
            code, reason = self._run_both()
            if code in MACHINE and not self.stopped:
                self.say(f"{self.folder.name}: {reason}; it begins again")
                tries = 2
                code, reason = self._run_both()
        except OSError as error:
            code, reason = MISTAKE, f"{error.filename or self.folder}: {error.strerror}"
        if code == 0 or self.stopped:
            return None
        return self.fail(reason, code, tries)

    def fail(self, reason: str, code: int, tries: int) -> Failure:
        """Write failure.json and return its content."""
        failure = failure_of(reason, code, tries)
        # If another process writes into the folder, the run goes on there. If the file cannot be written, that is it.
        with contextlib.suppress(ValueError, OSError), locked(self.folder):
            write_file(self.folder, Failure, to_dict(failure))
        return failure

    def gets_further(self) -> bool:
        """Whether the job, stopped now and started again, would get further. An evaluation begins anew each time."""
        return not self._was_trained or is_evaluated(self.folder)

    def stop(self) -> None:
        """End the current process as with SIGTERM, after which a training saves; no other one begins."""
        self.stopped = True
        if self.process is not None:
            self.process.terminate()

    def wait_for_end(self) -> None:
        """Wait until the current process has ended. A handler of a signal may call this while `run` waits too."""
        if self.process is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)

    def _run_both(self) -> tuple[int, str]:
        code, reason = self._run(self.train, self.before_train)
        if code == 0 and not self.stopped and not is_evaluated(self.folder):
            code, reason = self._run(self.evaluate)
        return code, reason

    def _run(self, command: list[str], before: Sequence[str] = ()) -> tuple[int, str]:
        """The exit code of a command, 128 + N after signal N, and the reason if it is not 0."""
        # With -P a file such as json.py in the working folder does not take the place of a library.
        words = [*before, sys.executable, "-P", "-m", "looped.cli", *command[1:]]
        with open_to_append(self.folder / LOG) as log:
            begin = log.tell()
            # The child gets its own process group: Ctrl-C reaches only this process, which passes it on once.
            before_it = signal.pthread_sigmask(signal.SIG_BLOCK, CLUSTER_SIGNALS)
            try:
                self.process = subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self.environment, start_new_session=True
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before_it)
        if self.stopped:  # it began too late to be ended with the others
            self.process.terminate()
        code = self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = code if code >= 0 else 128 - code
        with contextlib.suppress(ValueError):
            return code, f"killed by {signal.Signals(code - 128).name}"
        return code, _last_line(self.folder / LOG, begin)

    def _other_writer(self) -> str:
        """The process that writes into the folder, if it does so for `WAIT` seconds."""
        end, writer = time.monotonic() + WAIT, writer_of(self.folder)
        if writer:
            self.say(f"{self.folder.name}: waits for {writer}")
        while writer and time.monotonic() < end and not self.stopped:
            time.sleep(0.2)
            writer = writer_of(self.folder)
        return str(writer or "")


def is_trained(folder: Path) -> bool:
    """Whether the training has ended; an interrupted one has not."""
    try:
        summary = read_file(folder, Summary)
    except ValueError:  # damaged: the training says so
        return False
    return summary is not None and summary.finished != "interrupted"


def is_evaluated(folder: Path) -> bool:
    """Whether the scores belong to the checkpoint that an evaluation would take: the best one, or else the last."""
    try:
        summary, rows = read_file(folder, Summary), read_rows(folder, EvalRow)
    except ValueError:  # damaged: evaluate again
        return False
    step = None if summary is None else summary.best.step if summary.best else summary.steps
    return bool(rows) and all(row.step == step for row in rows)


def failure_of(reason: str, code: int, tries: int) -> Failure:
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    return Failure(reason=reason, code=code, tries=tries, host=socket.gethostname(), date=date)


def _last_line(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
