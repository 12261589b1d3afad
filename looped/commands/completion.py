"""`looped completion`."""

import contextlib
import functools
import importlib
import io
import operator
import pkgutil
from collections.abc import Mapping
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, subcommand

from looped.commands.arguments import Train, command

# tyro completes commands, options and choices. These changes of its text add the names of files, such as run folders.
# For zsh, tyro writes a file for a folder of `fpath`. The last change makes a text that can be sourced.
CHANGES = {
    "bash": {
        "complete -F _tyro_looped looped\n": """\
_looped() { _tyro_looped; [[ -n "${COMPREPLY[*]}" ]] || COMPREPLY=(); }
complete -o default -F _looped looped
"""
    },
    "zsh": {
        'if [[ "$completions" ==': 'if [[ -z "$completions" || "$completions" ==',
        '_tyro_looped "$@"\n': "compdef _tyro_looped looped\n",
    },
    "fish": {"complete --no-files": "complete"},
}


def completion(shell: Positional[Literal["bash", "zsh", "fish"]]) -> None:
    """Print the completion of commands and options for a shell: source <(looped completion bash).

    Args:
        shell: bash, zsh or fish; in fish: looped completion fish | source.
    """
    words = ["--tyro-print-completion", shell]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        tyro.cli(_one_of(_commands()), prog="looped", args=words, config=(tyro.conf.AvoidSubcommands,))
    text = printed.getvalue()
    for old, new in CHANGES[shell].items():
        text = text.replace(old, new)
    print(text, end="")


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
    code = {name: importlib.import_module(f"{__package__}.{name}") for name in modules}
    commands = {name: getattr(module, name, None) for name, module in code.items() if hasattr(module, "main")} | own
    return {name.replace("_", "-"): arguments for name, arguments in commands.items()}


def _one_of(commands: Mapping[str, Any]) -> Any:
    """The type of a word that names a command, with its arguments."""
    kinds = (Annotated[Any, subcommand(name, constructor=arguments)] for name, arguments in commands.items())
    return functools.reduce(operator.or_, kinds)


main = command(completion)
