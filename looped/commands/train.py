"""`looped train`."""

import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from looped.commands.arguments import needs_recipe, training_run
from looped.config import RunConfig
from looped.launch.ranks import run_ranks
from looped.launch.world import find_world
from looped.printing import printable
from looped.run_folder import CONFIG
from looped.training.errors import Interrupted
from looped.user_code import import_words


def train(arguments: Sequence[str]) -> None:
    """Train a recipe, with any of its settings changed: looped train p-hop-looped --model.num-loops 4."""
    if needs_recipe(arguments, "train", "[--out FOLDER] [--resume] [--from RUN]"):
        return
    if find_world() is None:
        run, out, resume = training_run(arguments[0], arguments[1:])
        if run.train.devices > 1:
            raise SystemExit(run_ranks(["train", *arguments], run.train.devices))
        summary = _trained(arguments, run, out, resume)
    else:
        from looped.training.processes import together

        with together() as processes:
            assert processes is not None
            if processes.world.rank:  # rank 0 speaks for all
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115  open until the process ends
                warnings.simplefilter("ignore")
            with processes.first():  # it may prepare a text, which the others then find
                run, out, resume = training_run(arguments[0], arguments[1:])
            summary = _trained(arguments, run, out, resume)
            sys.stdout.flush()  # the end of another process may end this one
    if summary["finished"] == "interrupted":
        raise Interrupted(summary["signal"])


def _trained(arguments: Sequence[str], run: RunConfig, out: Path, resume: bool) -> dict[str, Any]:
    """Train, and say how it ended. Returns the summary."""
    from looped.training.trainer import train as train_run

    summary = train_run(run, out, resume=resume and (out / CONFIG).exists())
    best = summary["best"]
    score = f", best validation {best['metric']} {best['value']:.4f} at step {best['step']}" if best else ""
    print(f"{printable(str(out))}: {summary['finished']} after {summary['steps']} steps{score}")
    if summary["finished"] == "interrupted" and find_world() and "--train.devices" not in arguments:
        print("continue with the same command and --resume")  # that of torchrun or srun
    elif summary["finished"] == "interrupted":
        again = ["looped", *import_words(), "train", *arguments, *([] if resume else ["--resume"])]
        print(f"continue with: {printable(shlex.join(again))}")
    return summary


main = train
