"""Runs as the tasks of one Slurm array. The file is written without Slurm, and the user submits it."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from looped.files import write_atomic
from looped.launch.job import Job

FILE = "slurm/array.sh"
SECONDS_TO_SAVE = 120
"""Time between the signal and the end of the job."""
SRUN = ("srun", "--kill-on-bad-exit=1")


def slurm_options(words: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` words, or `KEY` for an option without a value, as options of sbatch.

    Raises:
        ValueError: a word has another form, or the key is one that the launcher sets.
    """
    options = {}
    for word in words:
        key, _, value = word.partition("=")
        if not re.fullmatch(r"[a-z][a-z0-9-]+", key) or not word.isprintable():
            raise ValueError(f"--slurm {word}: expected KEY=VALUE, a long option of sbatch such as partition=gpu")
        if key in ("array", "ntasks", "ntasks-per-node") or key in options:
            why = "is given twice" if key in options else "follows from the runs, --jobs and train.devices"
            raise ValueError(f"--slurm {word}: {key} {why}")
        options[key] = value
    return options


def job_options(jobs: Sequence[Job], given: dict[str, str]) -> dict[str, str]:
    """The options of all jobs, with those that the user gave.

    Raises:
        ValueError: the runs train on different numbers of devices.
    """
    devices = {job.run.train.devices for job in jobs}
    if len(devices) > 1:
        raise ValueError(f"train.devices={sorted(devices)}: expected one number of devices in all runs of an array")
    options = {"job-name": "looped", "requeue": "", "open-mode": "append"} | given
    if devices != {1}:
        nodes = given.get("nodes", "1")
        if not nodes.isdecimal() or not int(nodes) or max(devices) % int(nodes):
            raise ValueError(f"--slurm nodes={nodes}: expected a divisor of train.devices={max(devices)}")
        options["ntasks-per-node"] = str(max(devices) // int(nodes))
    return options


def before_train(jobs: Sequence[Job]) -> tuple[str, ...]:
    """The words before the command of a training on many devices: Slurm starts a process for each."""
    return SRUN if jobs[0].run.train.devices > 1 else ()


def write_array(jobs: Sequence[Job], out: Path, at_a_time: int | None, given: dict[str, str]) -> Path:
    """Write the array file into the folder of the sweep; returns its path.

    Raises:
        ValueError: see `job_options`; or a command has a line break.
    """
    if broken := [job for job in jobs if len(job.line.splitlines()) > 1]:
        raise ValueError(f"{broken[0].folder}: a setting has a line break; expected one line with --launcher slurm")
    file = out / FILE
    folder, limit = file.parent.resolve(), f"%{at_a_time}" if at_a_time else ""
    options = {
        "array": f"0-{len(jobs) - 1}{limit}",
        "output": f"{str(folder).replace('%', '%%')}/%A_%a.txt",
        "signal": f"B:USR1@{SECONDS_TO_SAVE}",
    } | job_options(jobs, given)  # fmt: skip
    lines = [f"#SBATCH --{key}{'=' + shlex.quote(value) if value else ''}" for key, value in options.items()]
    program = shlex.join([sys.executable, "-P", "-m", "looped.launch.array_task"])
    number = "${SLURM_ARRAY_TASK_ID:?expected a task of an array; submit this file with sbatch}"
    line = f'"${{runs[{number}]:?expected a task from 0 to {len(jobs) - 1}}}"'
    task = " ".join([program, line, *before_train(jobs)])
    text = f"""\
#!/bin/bash
# Runs, one for each task of the array. To submit them: sbatch {shlex.quote(str(file))}
{chr(10).join(lines)}

cd {shlex.quote(os.getcwd())} || exit 2
export SRUN_CPUS_PER_TASK="${{SLURM_CPUS_PER_TASK:-1}}"

# The commands of --dry-run. They may be repeated: a run continues where it was, and a finished one stays as it is.
mapfile -t runs <<'RUNS'
{chr(10).join(job.line for job in jobs)}
RUNS

# Runs the commands of a line, once more if the machine may be at fault; their output goes to log.txt of the run. Before
# the time limit the training saves, and the task is queued again.
exec {task}
"""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, text)
    return file
