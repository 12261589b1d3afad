"""`looped train`."""

import os
import shlex
from collections.abc import Sequence

from looped.commands.arguments import needs_recipe, training_run
from looped.printing import printable
from looped.run_folder import CONFIG
from looped.training.errors import Interrupted
from looped.user_code import import_words


def train(arguments: Sequence[str]) -> None:
    """Train a recipe, with any of its settings changed: looped train p-hop-looped --model.num-loops 4."""
    if needs_recipe(arguments, "train", "[--out FOLDER] [--resume] [--from RUN]"):
        return
    name, *rest = arguments
    run, out, resume = training_run(name, rest)
    from looped.training.trainer import train as train_run

    summary = train_run(run, out, resume=resume and (out / CONFIG).exists())
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        best = summary["best"]
        score = f", best validation {best['metric']} {best['value']:.4f} at step {best['step']}" if best else ""
        print(f"{printable(str(out))}: {summary['finished']} after {summary['steps']} steps{score}")
        if summary["finished"] == "interrupted":
            again = ["looped", *import_words(), "train", *arguments, *([] if resume else ["--resume"])]
            print(f"continue with: {printable(shlex.join(again))}")
    if summary["finished"] == "interrupted":
        raise Interrupted(summary["signal"])


main = train
