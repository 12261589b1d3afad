"""`looped compare`."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional

from looped.commands.arguments import command, different, override_words
from looped.commands.sweep import Launcher, check_launch, planned, raise_failures, run_sweep
from looped.locks import locked


def compare(
    recipes: Positional[tuple[str, ...]],
    out: Path = Path("runs/compare"),
    seeds: tuple[int, ...] = (0,),
    learning_rates: tuple[float, ...] = (),
    jobs: int | None = None,
    launcher: Launcher = "local",
    slurm: tuple[str, ...] = (),
    dry_run: Annotated[bool, FlagCreatePairsOff] = False,
    override: tuple[str, ...] = (),
) -> None:
    """Train and evaluate several recipes over seeds and learning rates, then report them together.

    Finished runs are skipped and interrupted ones continue. Each run has its own folder and its own command.

    Args:
        recipes: names, see `looped recipes`.
        out: folder of the run folders and of the report.
        seeds: one run for each seed.
        learning_rates: one run for each; the default is the recipe's own.
        jobs: number of runs at a time, among which cores and GPUs are divided. The default is 1 here, and no limit on a
            cluster.
        launcher: local runs here. slurm writes one array file and prints the `sbatch` line. submitit submits the runs
            and waits for them.
        slurm: options of sbatch: --slurm partition=gpu time=4:00:00 gres=gpu:1
        dry_run: only print the commands, one line for each run, for any scheduler.
        override: further settings of all runs, as field=value: --override train.steps=500 task.length=8
    """
    from looped.recipes import recipe
    from looped.report import report

    for name in recipes:
        recipe(name)
    if not recipes or not seeds:
        raise ValueError(f"recipes={recipes}, seeds={seeds}: expected at least one of each")
    different(recipes=recipes, seeds=seeds, learning_rates=learning_rates)
    on_slurm = check_launch(launcher, jobs, slurm)
    options = override_words(override)
    runs = planned(commands(recipes, out, seeds=seeds, learning_rates=learning_rates, options=options))
    if dry_run:
        for run in runs:
            print(run.line)
        return
    with locked(out):
        done, failed = run_sweep(runs, out, launcher, jobs, on_slurm)
        if done:
            print(report(done, out / "report"))
    raise_failures(failed, len(runs))


def commands(
    recipes: Sequence[str], out: Path, *, seeds: Sequence[int], learning_rates: Sequence[float], options: Sequence[str]
) -> Iterator[tuple[Path, list[list[str]]]]:
    """For each recipe, learning rate and seed: the run folder, and the commands that fill it, in order.

    The commands may be repeated: an interrupted run continues, and a finished one stays as it is.
    """
    for name, rate, seed in itertools.product(recipes, learning_rates or [None], seeds):
        folder = out / "-".join([name, *([] if rate is None else [f"lr{rate!r}"]), f"seed{seed}"])
        rates = [] if rate is None else ["--optim.learning-rate", repr(rate)]
        settings = [*options, "--train.seed", str(seed), *rates]
        yield (
            folder,
            [
                ["looped", "train", name, "--out", str(folder), "--resume", *settings],
                ["looped", "evaluate", str(folder)],
            ],
        )


main = command(compare)
