"""Many runs: what `compare` and `reproduce` have in common."""

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from looped.commands.arguments import training_run
from looped.launch.job import Job
from looped.launch.local import run_local
from looped.launch.slurm import slurm_options, write_array
from looped.launch.submitted import run_submitted
from looped.locks import writer_of
from looped.run_folder import Failure, Sweep, write_file

Launcher = Literal["local", "slurm", "submitit"]


def planned(work: Iterable[tuple[Path, list[list[str]]]]) -> list[Job]:
    """The runs of a sweep, from the folder and the commands of each. All settings are checked before the first begins.

    A run that the user gave files outside the working folder may also use them in its evaluation.

    Raises:
        ValueError: a setting is wrong.
    """
    from looped.run_data import outside_paths

    jobs = []
    for folder, (train, evaluate) in work:
        run, _, _ = training_run(train[2], train[3:])
        allowed = ["--allow-outside"] if outside_paths(run.task) else []
        jobs.append(Job(folder, [train, [*evaluate, *allowed]], run))
    return jobs


def check_launch(launcher: Launcher, jobs: int | None, slurm: Sequence[str]) -> dict[str, str]:
    """The options of Slurm.

    Raises:
        ValueError: an option of the launching is wrong or has no effect.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs {jobs}: expected at least one run at a time")
    if slurm and launcher == "local":
        raise ValueError(f"--slurm {slurm[0]}: has no effect with --launcher local; expected slurm or submitit")
    return slurm_options(slurm)


def run_sweep(
    jobs: Sequence[Job], out: Path, launcher: Launcher, at_a_time: int | None, options: dict[str, str]
) -> tuple[list[Path], dict[Path, Failure]]:
    """Run what is left to do, or write the file that does. Returns the folders of the runs that are done or failed.

    The caller has locked `out`.
    """
    runs = [
        {"folder": job.folder.name, "recipe": job.run.recipe, "steps": job.run.train.steps, "commands": job.line}
        for job in jobs
    ]
    write_file(out, Sweep, {"command": shlex.join(["looped", *sys.argv[1:]]), "runs": runs})
    left, failed = [job for job in jobs if not job.is_done()], {}
    if launcher == "local":
        failed = run_local(left, at_a_time or 1)
    else:
        going_on = [job for job in left if writer_of(job.folder)]
        left = [job for job in left if job not in going_on]
        if going_on:
            print(f"runs that go on elsewhere: {len(going_on)}", file=sys.stderr)
        if left and launcher == "submitit":
            failed = run_submitted(left, out, at_a_time, options)
        elif left:
            print(f"sbatch {shlex.quote(str(write_array(left, out, at_a_time, options)))}")
            again = f"this command again writes the report; `looped status {shlex.quote(str(out))}` shows the runs"
            print(f"runs left: {len(left)}. When they are done, {again}.", file=sys.stderr)
    return [job.folder for job in jobs if job.is_done()], failed


def raise_failures(failed: Mapping[Path, Failure], runs: int) -> None:
    """Raise ValueError if some of the runs failed; names each with its reason."""
    if failed:
        reasons = (f"{folder}: {found.reason}{' (2 tries)' * (found.tries > 1)}" for folder, found in failed.items())
        raise ValueError(f"{len(failed)} of {runs} runs failed: {'; '.join(reasons)}")
