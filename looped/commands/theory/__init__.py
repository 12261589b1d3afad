"""`looped theory`: tables on the screen; with --out also JSON and figures."""

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from looped.commands.arguments import call
from looped.commands.choice import choose
from looped.commands.theory.approximation import approximate, memorise, moduli, rate, roughness
from looped.commands.theory.catalogue import constructions
from looped.commands.theory.graph_checks import graphs
from looped.commands.theory.graphs import graph
from looped.commands.theory.learning import learners, regression
from looped.commands.theory.machine import machines, pointers, run
from looped.commands.theory.memory import compare, memories
from looped.commands.theory.serial_steps import automaton, serial
from looped.commands.theory.smooth import lipschitz, square
from looped.commands.theory.strings import strings, wavefront
from looped.commands.theory.sudoku import sudoku
from looped.locks import locked

COMMANDS = {
    function.__name__: function
    for function in (
        # algorithms as weights, on the user's input
        run,
        graph,
        sudoku,
        automaton,
        wavefront,
        # approximation and memorisation
        approximate,
        memorise,
        moduli,
        rate,
        roughness,
        memories,
        compare,
        square,
        lipschitz,
        regression,
        learners,
        # checks of the constructions, and their sizes
        constructions,
        strings,
        machines,
        pointers,
        graphs,
        serial,
    )
}


def main(arguments: Sequence[str]) -> None:
    """Run the theory: approximate functions, memorise labels, execute algorithms written as weights."""
    summaries = {name: (inspect.getdoc(function) or "").partition("\n")[0] for name, function in COMMANDS.items()}
    if (chosen := choose(arguments, summaries, "looped theory")) is not None:
        name, words = chosen
        call(_in_folder(COMMANDS[name]), words, f"looped theory {name}")


def _in_folder(function: Callable[..., None]) -> Callable[..., None]:
    """The command, with a lock on the folder `out`. It fails before its work if that folder cannot be written."""

    @functools.wraps(function)
    def command(*args: Any, out: Path | None = None, **options: Any) -> None:
        with locked(out) if out else nullcontext():
            function(*args, out=out, **options)

    return command
