"""`looped compare`."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional

from looped.commands.arguments import check_settings, command, different, override_words
from looped.launch.local import raise_failures, run_commands, typed
from looped.locks import locked


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
    from looped.recipes import recipe
    from looped.report import report

    for name in recipes:
        recipe(name)
    if not recipes or jobs < 1 or not seeds:
        raise ValueError(f"recipes={recipes}, seeds={seeds}, jobs={jobs}: expected at least one of each")
    different(recipes=recipes, seeds=seeds, learning_rates=learning_rates)
    options = override_words(override)
    work = list(commands(recipes, out, seeds=seeds, learning_rates=learning_rates, options=options))
    check_settings(work)
    if dry_run:
        for _, lines in work:
            print(" && ".join(map(typed, lines)))
        return
    with locked(out):
        failed = run_commands(work, jobs)
        if finished := [folder for folder, _ in work if folder not in failed]:
            print(report(finished, out / "report"))
    raise_failures(failed, len(work))


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
