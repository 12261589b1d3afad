"""The command line: `looped COMMAND`. A user's mistake ends it with one line on standard error and exit code 2."""

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from looped.commands.choice import choose
from looped.training.errors import Interrupted, NonFiniteError, TrainingError
from looped.user_code import import_code

# The summary of each command in `looped --help`: the first line of the command's own help. It is repeated here because
# `looped --help` must not import the commands. Each command is the module of its name in looped/commands.
COMMANDS = {
    "train": "Train a recipe, with any of its settings changed: looped train demo-looped-4 --model.num-loops 8.",
    "evaluate": "Score a run by group (length, difficulty) and loop count, below and beyond the trained number.",
    "calibrate": "Choose the loop count or exit rule that other commands then use for a run.",
    "compare": "Train and evaluate several recipes over seeds and learning rates, then report them together.",
    "reproduce": "Run a table of the paper (2, 3 or 4), as published and corrected, beside the paper's numbers.",
    "report": "Write report.html, report.md, results.csv and figures from run folders.",
    "solve": "Answer your own puzzles, pairs of strings, countdown problems or tables with a trained model.",
    "generate": 'Continue texts with a trained language model: looped generate runs/mine --prompt "Once upon a time".',
    "inspect": "Measure the inside of a run's loop: loop logits, states, stability, attention and modulation.",
    "show": "Print the content of a run folder: settings, progress, checkpoints, scores.",
    "recipes": "List the recipes: what each trains, and for how long.",
    "tasks": "List the tasks, with an example of each.",
    "theory": "Run the theory: approximate a function, memorise labels, measure moduli and rates.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    0, 1 (training diverged), 2 (a mistake), 3 (training failed for another reason), 128 + number of the signal (130
    after Ctrl-C).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # torch warns inside its compiler and about damaged checkpoints. The user can do nothing about these warnings.
    for remark in ("The .grad attribute of a Tensor that is not a leaf", "Detected pickle protocol"):
        warnings.filterwarnings("ignore", remark)
    try:
        while words and words[0] == "--import":
            if len(words) < 2:
                raise ValueError("--import: expected a Python file or the name of a module")
            import_code(words[1])
            words = words[2:]
        if (chosen := choose(words, COMMANDS, "looped", "[--import FILE_OR_MODULE] ")) is not None:
            name, rest = chosen
            if name != "train":  # `train` ends by itself after the current step
                signal.signal(signal.SIGTERM, signal.default_int_handler)
            importlib.import_module(f"looped.commands.{name}").main(rest)
        return 0
    except SystemExit as end:  # --help
        return int(end.code or 0)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the reader has closed the pipe, so nothing can be written
        return 0
    except (ValueError, OSError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            text = f"{error.filename}: {error.strerror}"
        print(f"looped: error: {' '.join(text.split())}", file=sys.stderr)
        return 2
    except NonFiniteError as error:
        print(f"looped: {error}", file=sys.stderr)
        return 1
    except TrainingError as error:
        print(f"looped: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 3
    except Interrupted as end:
        return 128 + end.signal
    except KeyboardInterrupt:
        print("looped: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
