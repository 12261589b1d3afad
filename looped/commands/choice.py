"""The command that a command line names first. Imports nothing heavy: `looped --help` needs only this."""

from collections.abc import Mapping, Sequence

from looped.strict import nearest


def choose(
    words: Sequence[str], commands: Mapping[str, str], program: str, options: str = ""
) -> tuple[str, list[str]] | None:
    """The command named first, and the words after it; None after printing the help.

    Args:
        commands: what the help says of each command, by name.
        options: those that may stand before the command, as the help shows them.

    Raises:
        ValueError: for a command that does not exist.
    """
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: {program} {options}COMMAND [...]; `{program} COMMAND --help` tells more\n")
        for name, summary in commands.items():
            print(f"  {name:13}{summary}")
        return None
    name, *rest = words
    if name not in commands:
        kind = program.rpartition(" ")[2].replace("looped", "command")
        raise ValueError(f"{kind} {name!r}: unknown{nearest(name, commands)}; `{program} --help` lists them")
    return name, rest
