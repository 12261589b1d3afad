"""One task of a Slurm array: `python -m looped.launch.array_task LINE [WORDS BEFORE THE TRAINING]`."""

import os
import signal
import subprocess
import sys

from looped.launch.job import FAULT, TOO_LONG, JobProcess


def main(line: str, *before_train: str) -> int:
    """Run the commands of a line. Returns the exit code of the last one.

    At SIGUSR1, which announces the time limit, the training saves, and the task is queued again. SIGTERM is a job that
    is cancelled or preempted; Slurm itself queues the latter again.
    """
    process = JobProcess(line, threads(), before_train, say=lambda text: print(text, file=sys.stderr, flush=True))
    stopped_by = 0

    def stop(number: int, frame: object) -> None:
        nonlocal stopped_by
        stopped_by = number
        process.stop()

    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, stop)
    failure = process.run()
    if stopped_by == signal.SIGUSR1 and not failure:
        if process.gets_further():
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        else:
            failure = process.fail(TOO_LONG, FAULT, 1)
    if failure:
        print(f"{process.folder}: {failure.reason}", file=sys.stderr)
        return failure.code
    return 128 + stopped_by if stopped_by else 0


def threads() -> int:
    """The cores of a task on a cluster."""
    return int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
