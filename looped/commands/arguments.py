"""Conversion of command-line words to configurations. A mistake in them is a ValueError of one line."""

import contextlib
import dataclasses
import functools
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from looped.config import RunConfig
from looped.launch.world import find_world
from looped.strict import check


def command(function: Callable[..., None]) -> Callable[[Sequence[str]], None]:
    """Turn the function into a command. It takes the words after the command's name."""

    def main(arguments: Sequence[str]) -> None:
        call(function, arguments, f"looped {function.__name__.replace('_', '-')}")

    return main


def call(function: Callable[..., None], arguments: Sequence[str], program: str) -> None:
    """Call the function with the words of a command line.

    Raises:
        ValueError: one line, for a mistake in the words.
    """

    @functools.wraps(function)
    # The function runs only after parsing, because its own errors are not mistakes in the words.
    def bind(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    parse(bind, arguments, program)()


@dataclasses.dataclass
class Train:
    """Train a recipe into a run folder."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    out: Path
    """The run folder."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Continue the run in that folder if it has begun."""
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """A run, whose best weights are the initial weights. Without a recipe, its settings are the defaults."""


def training_run(name: str, arguments: Sequence[str]) -> tuple[RunConfig, Path, bool]:
    """The run, its folder and whether to continue it, from the words after `looped train`.

    Args:
        name: a recipe; or an option, which is then the first of the `arguments`, and --from names the settings.
    """
    default = None
    if name.startswith("-"):
        default, arguments = _settings_of_start([name, *arguments]), [name, *arguments]
        name = f"{default.recipe}-trained"
    from looped.recipes import complete

    world, words = find_world(), list(arguments)
    if world and "--train.devices" not in map(_option, words):
        words += ["--train.devices", str(world.size)]
    options = _recipe_options(Train, name, words, "looped train", default, out=Path("runs") / name)
    run = complete(options.run)
    if options.source:
        from looped.run_folder import CONFIG, read_config
        from looped.training.checkpoint import start_from

        begun = read_config(options.out).start if options.resume and (options.out / CONFIG).exists() else None
        known = begun is not None and begun.run == str(options.source)  # its best weights may have changed since
        run = dataclasses.replace(run, start=begun if known else start_from(options.source))
    return run, options.out, options.resume


def _settings_of_start(words: Sequence[str]) -> RunConfig:
    """The settings of the run after --from, as those of another run.

    Raises:
        ValueError: the words have no --from, or it names no run.
    """
    given = [word for i, word in enumerate(words) if i and words[i - 1] == "--from"]
    given += [word.removeprefix("--from=") for word in words if word.startswith("--from=")]
    if not given:
        raise ValueError(f"{words[0]}: expected a recipe, or --from RUN with the settings")
    from looped.run_folder import read_config

    return dataclasses.replace(read_config(Path(given[0])), start=None)


def needs_recipe(arguments: Sequence[str], command: str, options: str) -> bool:
    """Whether the words of a command name no recipe; prints its usage then."""
    if arguments and arguments[0] not in ("-h", "--help"):
        return False
    from looped.recipes import RECIPES

    print(f"usage: looped {command} RECIPE {options} [--FIELD VALUE ...]\n")
    print(f"recipes: {', '.join(RECIPES)}")
    print(f"`looped {command} RECIPE --help` lists the fields with the recipe's values.")
    return True


def _recipe_options(
    target: Any, name: str, arguments: Sequence[str], program: str, default: RunConfig | None = None, **others: Any
) -> Any:
    """The options of a command that takes a recipe; `target` has a field `run`, which the caller completes.

    Some recipes need files that only the options name. Their sizes are therefore completed after parsing.

    Args:
        default: the settings without options; None is those of the recipe.
    """
    from looped.recipes import recipe

    default = recipe(name) if default is None else default
    settings = type(default.task)
    for changed, fields in settings.resets.items():
        if f"--task.{changed.replace('_', '-')}" in map(_option, arguments):
            plain = {name: getattr(settings(), name) for name in fields}
            default = dataclasses.replace(default, task=dataclasses.replace(default.task, **plain))
    return parse(target, arguments, f"{program} {name}", default=target(run=default, **others))


SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kMGT]?)(i?)B")


def memory_size(text: str) -> int:
    """The bytes of a size such as 8GB or 512 MiB.

    Raises:
        ValueError: the text is no size.
    """
    if not (match := SIZE.fullmatch(text)):
        raise ValueError(f"--memory {text}: expected a size such as 8GB, 512MB or 7.5GiB")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kMGT".index(unit or " "))


@dataclasses.dataclass
class Plan:
    """Predict the FLOPs, memory and time of a training, and recommend settings for the memory at hand."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    memory: str | None = None
    """The memory at hand, such as 8GB; by default the free memory of this machine or its GPU, or all of `--gpu`."""
    gpu: Literal["a100", "h100", "h200", "b200"] | None = None
    """Plan on paper for many GPUs of this kind, eight in a machine, instead of for this machine."""
    gpus: tuple[int, ...] = ()
    """Numbers of GPUs with `--gpu`; by default train.devices if there are several, otherwise 8, 64 and 512."""
    out: Path | None = None
    """A JSON file for the plan."""

    @property
    def bytes(self) -> int | None:
        """The memory at hand in bytes."""
        return None if self.memory is None else memory_size(self.memory)


def planned_run(name: str, arguments: Sequence[str]) -> Plan:
    """The options after `looped plan`, with a complete run.

    A plan for `--gpu` needs no task, and therefore no files, if the recipe has all sizes.
    """
    from looped.recipes import complete

    options = _recipe_options(Plan, name, arguments, "looped plan")
    check(options.gpu is not None or not options.gpus, "--gpus", options.gpus, "none without --gpu")
    check(all(number >= 1 for number in options.gpus), "--gpus", options.gpus, "numbers of at least 1")
    different(gpus=options.gpus)
    if options.gpu is not None and options.run.model.sized:
        return options
    return dataclasses.replace(options, run=complete(options.run))


def _option(word: str) -> str:
    """The option that a word of a command line gives. tyro takes `_` in its name as `-`."""
    return word.partition("=")[0].replace("_", "-")


def different(**values: Sequence[Any]) -> None:
    """Raise ValueError if one of the named lists has a value twice."""
    for name, items in values.items():
        if twice := [item for item in items if list(items).count(item) > 1]:
            raise ValueError(f"--{name.replace('_', '-')}: {twice[0]} is given twice; expected different values")


def override_words(override: Sequence[str]) -> list[str]:
    """`field=value` items as the words that `looped train` takes."""
    if bad := [item for item in override if "=" not in item]:
        raise ValueError(f"--override {bad[0]}: expected field=value")
    return [word for item in override for word in (f"--{item.split('=')[0]}", item.split("=", 1)[1])]


# The part of tyro's messages that names the mistake in one line.
TIDIED = (
    (r" For full helptext.*", ""),
    (r" Argument helptext: (--\S+ (?:\[.*\]|\S+)).*", r" (expected \1)"),
    (r" Perhaps you meant: (--\S+).*", r" (did you mean \1?)"),
    (r"^Error parsing run\.(\w+): ", r"\1."),
)


def parse(target: Any, arguments: Sequence[str], program: str, **options: Any) -> Any:
    """Parse the arguments into `target` with tyro.

    Raises:
        ValueError: one line, for a mistake in the arguments.
    """
    given = [_option(word) for word in arguments if word.startswith("--")]
    if twice := [word for word in given if given.count(word) > 1]:  # only the last one would count
        raise ValueError(f"{twice[0]}: given {given.count(twice[0])} times; expected once, followed by all its values")
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(target, args=list(arguments), prog=program, config=(tyro.conf.AvoidSubcommands,), **options)
    except SystemExit as end:
        if not end.code:  # --help
            raise
        # tyro prints a title and several parts between rules, in a box if the terminal can draw one.
        lines = [line.strip("│ ") for line in messages.getvalue().splitlines()]
        text = " ".join(line for line in lines[1:] if line.strip("╭─╮╰╯-"))
        for pattern, plain in TIDIED:
            text = re.sub(pattern, plain, text)
        raise ValueError(f"{text.removesuffix('.')}; `{program} --help` lists what is allowed") from None
