"""The command line: `looped COMMAND`. A mistake of the user is one line on standard error and exit code 2."""

import contextlib
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from looped.commands.choice import choose
from looped.launch.parent import end_with_parent
from looped.printing import Messages, one_line
from looped.training.errors import Interrupted, NonFiniteError, OtherError, TrainingError, exit_code, lacks_memory
from looped.user_code import import_code

# The summary of each command in `looped --help`: the first line of the command's own help. It is repeated here because
# `looped --help` must not import the commands. Each command is the module of its name in looped/commands.
COMMANDS = {
    "train": "Train a recipe, with any of its settings changed: looped train p-hop-looped --model.num-loops 4.",
    "plan": "Predict the FLOPs, memory and time of a training, and recommend settings for the memory at hand.",
    "evaluate": "Score a run by group (length, difficulty) and loop count, below and beyond the trained number.",
    "calibrate": "Choose the loop count or exit rule that other commands then use for a run.",
    "compare": "Train and evaluate several recipes over seeds and learning rates, then report them together.",
    "reproduce": "Run a table of the paper (2, 3 or 4) or of a work that it cites, beside the published numbers.",
    "status": "Show which runs of a sweep are done, running, failed or waiting, with their speed and the time left.",
    "report": "Write report.html, report.md, results.csv and figures from run folders.",
    "solve": "Answer your own puzzles, pairs of strings, countdown problems or tables with a trained model.",
    "generate": 'Continue texts with a trained language model: looped generate runs/mine --prompt "Once upon a time".',
    "lm-eval": "Score a language model by tasks of lm-eval, with several loop counts: looped lm-eval RUN --tasks piqa.",
    "inspect": "Measure the inside of a run's loop: loop logits, states, stability, attention and modulation.",
    "show": "Print the content of a run folder: settings, progress, checkpoints, scores.",
    "recipes": "List the recipes: what each trains, and for how long.",
    "tasks": "List the tasks, with an example of each.",
    "construct": "Write an algorithm's weights into a run folder, without training: looped construct edit-distance.",
    "open": "Read a model that others trained into a run folder: looped open MODEL --out runs/mine.",
    "export": "Write a run's model for other programs: looped export runs/mine --to hf --out mine.",
    "loopify": "Turn a standard model into a looped one: looped loopify MODEL --core 13-16 --loops 2 --out RUN.",
    "completion": "Print the completion of commands and options for a shell: source <(looped completion bash).",
    "theory": "Run the theory: approximate functions, memorise labels, execute algorithms written as weights.",
}

NOTE = "\n--import runs your Python code, with all your rights, and so makes its tasks and recipes known.\n"
LONGEST = 5000  # characters of a message; a wrong word or key may have millions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Returns:
        The exit code: 0, 1 (training diverged), 2 (a mistake), 3 (a fault of the program or of the machine),
        130 (Ctrl-C), 143 (SIGTERM) or 129 (SIGHUP).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # torch warns inside its compiler. The user can do nothing about these warnings.
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
    with contextlib.redirect_stderr(Messages(sys.stderr)):
        return _exit_code(words)


def _exit_code(words: list[str]) -> int:
    try:
        _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()
        return 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):  # --help
            return end.code or 0
        return _failed(f"error: {end.code}", 2)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the reader has closed the pipe, so nothing can be written
        return 0
    except (ValueError, OSError) as error:
        text = str(error)
        if isinstance(error, OSError) and (place := error.filename or _unwritable_output()) and error.strerror:
            text = f"{place}: {error.strerror}"
        return _failed(f"error: {text}", exit_code(error))
    except NonFiniteError as error:
        return _failed(str(error), exit_code(error))
    except TrainingError as error:
        details = _saved_traceback(words) if error.__cause__ else ""
        return _failed(f"error: {error}{details}", exit_code(error))
    except OtherError as error:
        return error.code
    except Interrupted as end:
        return 128 + end.signal
    except KeyboardInterrupt as end:
        return _failed("interrupted", exit_code(end))
    except Exception as error:
        if os.environ.get("LOOPED_DEBUG"):
            raise
        return _failed(f"failed: {_named(error)}{_saved_traceback(words)}", exit_code(error))


def _run(words: list[str]) -> None:
    while words and words[0].partition("=")[0] == "--import":
        option, *words = [*words[0].split("=", 1), *words[1:]]
        if not words:
            raise ValueError(f"{option}: expected a Python file or the name of a module")
        import_code(words[0])
        words = words[1:]
    end_with_parent()
    if words == ["--version"]:
        from importlib.metadata import version

        print(f"looped {version('looped')}")
        return
    if (chosen := choose(words, COMMANDS, "looped", "[--version] [--import FILE_OR_MODULE] ", NOTE)) is not None:
        name, rest = chosen
        for number in (signal.SIGTERM, signal.SIGHUP):  # a training has its own handlers, between its steps
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under `nohup`
                signal.signal(number, _interrupt)
        importlib.import_module(f"looped.commands.{name.replace('-', '_')}").main(rest)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def _unwritable_output() -> str:
    """The name of standard output, if it cannot be written. Python would otherwise write it again at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        return ""
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return "standard output"


def _failed(message: str, code: int) -> int:
    """Print a message as one line on standard error, without its middle if it is long. Returns the exit code."""
    text = one_line(message)
    text = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    print(f"looped: {text}", file=sys.stderr)
    return code


def _named(error: Exception) -> str:
    """The first line of an error. torch has an error of several lines when memory is short."""
    text = str(error).partition("\n")[0]
    if lacks_memory(error):
        return "too little memory; expected a smaller batch, model or file"
    return f"{type(error).__name__}: {text}"


def _saved_traceback(words: Sequence[str]) -> str:
    """Write the current traceback to a new file. Returns the part of the message that names it."""
    import shlex  # these three are seldom needed, and `looped --help` should not wait for them
    import tempfile
    import traceback

    try:
        with tempfile.NamedTemporaryFile("w", prefix="looped-", suffix=".txt", delete=False, errors="replace") as file:
            file.write(f"looped {shlex.join(words)}\n{traceback.format_exc()}")
    except OSError as error:
        return f"; the traceback cannot be written ({error.strerror}); LOOPED_DEBUG=1 prints it"
    return f"; the traceback is in {file.name}"


if __name__ == "__main__":
    sys.exit(main())
