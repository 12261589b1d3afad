"""`looped completion`."""

import functools
import importlib
import operator
import pkgutil
from collections.abc import Mapping
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, subcommand

from looped.commands.arguments import Train, command


def completion(shell: Positional[Literal["bash", "zsh"]]) -> None:
    """Print the completion of commands and options for a shell: source <(looped completion bash).

    Args:
        shell: bash or zsh.
    """
    words = ["--tyro-print-completion", shell]
    tyro.cli(_one_of(_commands()), prog="looped", args=words, config=(tyro.conf.AvoidSubcommands,))


def _commands() -> dict[str, Any]:
    """By name, each command as a type or function with its arguments. Those of `train` are the fields of a recipe."""
    from looped.commands.construct import Options, default_options
    from looped.commands.theory import COMMANDS as THEORY
    from looped.commands.theory import function
    from looped.recipes import recipe

    theory = _one_of({name: function(name) for name in THEORY})
    own = {
        "construct": functools.partial(Options, **vars(default_options("edit-distance"))),
        "theory": make_dataclass("Theory", [("command", Annotated[theory, tyro.conf.arg(name="")])]),
        "train": functools.partial(Train, run=recipe("p-hop-looped"), out=Path("runs")),
    }
    modules = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    commands = {name: importlib.import_module(f"{__package__}.{name}") for name in modules}
    return {
        name.replace("_", "-"): own.get(name) or getattr(code, name)
        for name, code in commands.items()
        if hasattr(code, "main")
    }


def _one_of(commands: Mapping[str, Any]) -> Any:
    """The type of a word that names a command, with its arguments."""
    kinds = (Annotated[Any, subcommand(name, constructor=arguments)] for name, arguments in commands.items())
    return functools.reduce(operator.or_, kinds)


main = command(completion)
