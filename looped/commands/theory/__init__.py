"""`looped theory`: tables on the screen; with --out also JSON and figures."""

import functools
import importlib
import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from looped.commands.arguments import call
from looped.commands.choice import choose
from looped.locks import locked

COMMANDS = {
    # algorithms as weights, on the user's input
    "run": "machine",
    "graph": "graphs",
    "sudoku": "sudoku",
    "automaton": "serial_steps",
    "wavefront": "strings",
    # approximation and memorisation
    "approximate": "approximation",
    "memorise": "approximation",
    "moduli": "approximation",
    "rate": "approximation",
    "roughness": "approximation",
    "memories": "memory",
    "compare": "memory",
    "square": "smooth",
    "lipschitz": "smooth",
    "regression": "learning",
    "learners": "learning",
    # checks of the constructions, and their sizes
    "constructions": "catalogue",
    "strings": "strings",
    "machines": "machine",
    "pointers": "machine",
    "graphs": "graph_checks",
    "serial": "serial_steps",
}
"""The module of each command, which is a function there. A command imports no module of another one."""


def main(arguments: Sequence[str]) -> None:
    """Run the theory: approximate functions, memorise labels, execute algorithms written as weights."""
    one = bool(arguments) and arguments[0] in COMMANDS  # then the summaries of all are not needed
    summaries = {name: "" if one else (inspect.getdoc(function(name)) or "").partition("\n")[0] for name in COMMANDS}
    if (chosen := choose(arguments, summaries, "looped theory")) is not None:
        name, words = chosen
        call(_in_folder(function(name)), words, f"looped theory {name}")


def function(name: str) -> Callable[..., None]:
    """The command with that name."""
    return getattr(importlib.import_module(f"{__package__}.{COMMANDS[name]}"), name)


def _in_folder(work: Callable[..., None]) -> Callable[..., None]:
    """The command, with a lock on the folder `out`. It fails before its work if that folder cannot be written."""

    @functools.wraps(work)
    def command(*args: Any, out: Path | None = None, **options: Any) -> None:
        with locked(out) if out else nullcontext():
            work(*args, out=out, **options)

    return command
