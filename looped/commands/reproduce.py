"""`looped reproduce`."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional

from looped.commands.arguments import command, different, override_words, training_run
from looped.commands.output import Table
from looped.commands.sweep import Launcher, check_launch, planned, raise_failures, run_sweep
from looped.locks import locked
from looped.paper.reproduce import all_runs, estimate, work_for, write_table
from looped.paper.tables import paper_table
from looped.paper.tables import work as work_of
from looped.recipes.scales import Scale


def reproduce(
    name: Positional[str],
    scale: Scale | None = None,
    out: Path | None = None,
    seeds: tuple[int, ...] = (0,),
    jobs: int | None = None,
    launcher: Launcher = "local",
    slurm: tuple[str, ...] = (),
    override: tuple[str, ...] = (),
    dry_run: Annotated[bool, FlagCreatePairsOff] = False,
) -> None:
    """Run a table of the paper (2, 3 or 4) or of a work that it cites, beside the published numbers.

    Finished runs are skipped and interrupted ones continue. The report shows all finished runs. The scale `paper` first
    estimates its cost from three measured steps of every run.

    Args:
        name: number of the table, or name of the work.
        scale: demo (minutes), cpu (45 minutes on 2 cores with 2 seeds), gpu (30 minutes on one GPU), or paper. The
            default is demo for a table and cpu for a work, which has only cpu and paper.
        out: folder of the run folders and of the report; the default is runs/table2-cpu or the like.
        seeds: one run for each seed.
        jobs: number of runs at a time, among which cores and GPUs are divided. The default is 1 here, and no limit on a
            cluster.
        launcher: local runs here. slurm writes one array file and prints the `sbatch` line. submitit submits the runs
            and waits for them.
        slurm: options of sbatch: --slurm partition=gpu time=4:00:00 gres=gpu:1
        override: further settings of all runs, as field=value: --override train.steps=500
        dry_run: only print the commands, one line for each run, for any scheduler.
    """
    from looped.report import report

    table = name.isdecimal()
    scale = scale or ("demo" if table else "cpu")
    content = paper_table(int(name), scale) if table else work_of(name, scale)
    out = out or Path("runs") / f"{'table' if table else ''}{name}-{scale}"
    if not seeds:
        raise ValueError("--seeds: expected at least one")
    different(seeds=seeds)
    on_slurm = check_launch(launcher, jobs, slurm)
    options = override_words(override)
    runs = planned(work_for(content, out, seeds, options))
    if dry_run:
        for run in runs:
            print(run.line)
        return
    if scale == "paper":
        _print_cost([(words[0], [*words[1:], *options]) for words in all_runs(content)], len(seeds))
    with locked(out):
        write_table(content, scale, shlex.join(["looped", *sys.argv[1:]]), out, seeds)
        done, failed = run_sweep(runs, out, launcher, jobs, on_slurm)
        if done:
            print(report([out], out / "report"))
    raise_failures(failed, len(runs))


def _print_cost(runs: Sequence[tuple[str, Sequence[str]]], seeds: int) -> None:
    """Print the cost of every run (recipe, options) and the total, from a few measured steps on this machine."""
    from looped.report.number_format import amount

    table = Table("run", "FLOPs", "time", title="Estimated cost of training, one run at a time")
    total = 0.0
    for name, words in runs:
        flops, seconds = estimate(training_run(name, words)[0])
        total += seconds * seeds
        table.add_row(" ".join([name, *words]), amount(flops), f"{seconds / 3600:,.1f} h")
    table.add_row(f"all, {seeds} seed{'s' if seeds > 1 else ''}", "", f"{total / 3600:,.1f} h")
    Console(stderr=True).print(table)


main = command(reproduce)
