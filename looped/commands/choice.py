"""The choice of the command. This module imports nothing heavy, because `looped --help` needs only this."""

from collections.abc import Mapping, Sequence

from looped.strict import nearest


def choose(
    words: Sequence[str], commands: Mapping[str, str], program: str, options: str = "", note: str = ""
) -> tuple[str, list[str]] | None:
    """The command that the words begin with, and the words after it; None if the help was printed instead.

    Args:
        commands: a summary for the help, by command name.
        options: options that may come before the command, as text for the help.
        note: the end of the help.

    Raises:
        ValueError: the command does not exist.
    """
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: {program} {options}COMMAND [...]; `{program} COMMAND --help` tells more\n")
        width = max(map(len, commands)) + 2
        for name, summary in commands.items():
            print(f"  {name:{width}}{summary}")
        print(end=note)
        return None
    name, *rest = words
    if name not in commands:
        kind = program.rpartition(" ")[2].replace("looped", "command")
        raise ValueError(f"{kind} {name!r}: unknown{nearest(name, commands)}; `{program} --help` lists them")
    return name, rest
