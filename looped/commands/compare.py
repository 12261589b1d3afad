"""`looped compare`."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional

from looped.commands.arguments import command, override_words, training_run
from looped.launch.local import run_commands, typed
from looped.recipes import recipe
from looped.report import report


def compare(
    recipes: Positional[tuple[str, ...]],
    out: Path = Path("runs/compare"),
    seeds: tuple[int, ...] = (0,),
    learning_rates: tuple[float, ...] = (),
    jobs: int = 1,
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
        jobs: number of runs at a time; the cores are divided among them.
        dry_run: only print the commands, one line for each run, for any scheduler.
        override: further settings of all runs, as field=value: --override train.steps=500 task.length=8
    """
    for name in recipes:
        recipe(name)
    if not recipes or jobs < 1 or not seeds:
        raise ValueError(f"recipes={recipes}, seeds={seeds}, jobs={jobs}: expected at least one of each")
    options = override_words(override)
    work = list(commands(recipes, out, seeds=seeds, learning_rates=learning_rates, options=options))
    for _, lines in work:  # wrong settings are found before the first run begins
        training_run(lines[0][2], lines[0][3:])
    if dry_run:
        for _, lines in work:
            print(" && ".join(map(typed, lines)))
        return
    failed = run_commands(work, jobs)
    if failed:
        raise ValueError(f"{len(failed)} of {len(work)} runs failed: {'; '.join(failed)}")
    print(report([folder for folder, _ in work], out / "report"))


def commands(
    recipes: Sequence[str], out: Path, *, seeds: Sequence[int], learning_rates: Sequence[float], options: Sequence[str]
) -> Iterator[tuple[Path, list[list[str]]]]:
    """For each recipe, learning rate and seed: the run folder, and the commands that fill it, in order.

    The commands may be repeated: an interrupted run continues, and a finished one stays as it is.
    """
    for name, rate, seed in itertools.product(recipes, learning_rates or [None], seeds):
        folder = out / "-".join([name, *([f"lr{rate:g}"] if rate else []), f"seed{seed}"])
        settings = [*options, "--train.seed", str(seed), *(["--optim.learning-rate", f"{rate:g}"] if rate else [])]
        yield (
            folder,
            [
                ["looped", "train", name, "--out", str(folder), "--resume", *settings],
                ["looped", "evaluate", str(folder)],
            ],
        )


main = command(compare)
