"""Runs through submitit: as a Slurm array, or as processes of this machine if it has no Slurm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from looped.extras import need
from looped.launch.array_task import threads
from looped.launch.job import FAULT, TOO_LONG, Job, JobProcess
from looped.launch.slurm import SECONDS_TO_SAVE, before_train, job_options
from looped.printing import one_line
from looped.run_folder import Failure, read_file

FOREVER = 365 * 24 * 60
"""Minutes. submitit would end a job in 5 minutes, and would not queue again one that met its time limit 3 times."""


class Task:
    """The function of a job. Submitit calls `checkpoint` before the job ends too early."""

    def __init__(self, before_train: Sequence[str]) -> None:
        self.before_train = before_train
        self.process: JobProcess | None = None

    def __call__(self, line: str) -> Failure | None:
        self.process = JobProcess(line, threads(), self.before_train)
        return self.process.run()

    def checkpoint(self, line: str) -> Any:
        if self.process is not None:
            self.process.stop()
            self.process.wait_for_end()
            if not self.process.gets_further():
                raise TimeoutError(self.process.fail(TOO_LONG, FAULT, 1).reason)
        return need("submitit", "--launcher submitit").helpers.DelayedSubmission(Task(self.before_train), line)


def run_submitted(jobs: Sequence[Job], out: Path, at_a_time: int | None, given: dict[str, str]) -> dict[Path, Failure]:
    """Submit the commands of each job and wait for them. Returns the failed runs. An interrupt leaves the jobs alone.

    Raises:
        ValueError: submitit is not installed; no time limit for Slurm, or options without it; the runs train on
            different numbers of devices.
    """
    submitit = need("submitit", "--launcher submitit")
    executor = submitit.AutoExecutor(folder=out / "submitit")
    options = {"signal": f"B:USR2@{SECONDS_TO_SAVE}"} | job_options(jobs, given)
    on_slurm = executor.cluster == "slurm"
    if given and not on_slurm:
        raise ValueError(f"--slurm {min(given)}: has no effect here, because submitit finds no Slurm")
    if on_slurm and "time" not in options:
        raise ValueError("--launcher submitit: expected the time limit of a run, such as --slurm time=4:00:00")
    executor.update_parameters(
        timeout_min=FOREVER, slurm_array_parallelism=at_a_time or len(jobs), slurm_use_srun=False,
        slurm_additional_parameters={key: value or True for key, value in options.items()},
    )  # fmt: skip
    failed, size = {}, len(jobs) if on_slurm else at_a_time or 1
    for part in (jobs[first : first + size] for first in range(0, len(jobs), size)):
        try:
            submitted = executor.map_array(Task(before_train(jobs)), [job.line for job in part])
        except submitit.core.utils.FailedJobError as error:
            raise ValueError(f"--launcher submitit: {one_line(str(error))}") from None
        for job, handle in zip(part, submitted, strict=True):
            if error := handle.exception():  # of submitit: the job was cancelled, or its host died
                written = read_file(job.folder, Failure)
                failed[job.folder] = written or JobProcess(job.line, 1).fail(one_line(str(error)), FAULT, 1)
            elif failure := handle.result():
                failed[job.folder] = failure
    return failed
