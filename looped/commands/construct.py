"""`looped construct`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

from looped.commands.arguments import parse
from looped.commands.choice import choose
from looped.commands.output import say
from looped.config import RunConfig, TrainConfig
from looped.strict import check
from looped.tasks import TASKS
from looped.tasks.base import Task
from looped.tasks.registry import TaskConfig
from looped.tasks.strings import StringTask
from looped.theory import edit_distance, sudoku
from looped.theory.arithmetic import LIMITS
from looped.theory.circuit import Program

MOST_EXAMPLES = 100_000


class Construction(NamedTuple):
    summary: str
    task: str
    program: Callable[[Task, int | None, float | None], Program]
    """For a task, a number of loops (None is the default), and an inverse temperature (None is hardmax)."""
    largest_number: Callable[[int, int], int]
    """A bound on all numbers, for sequences of so many positions and so many loops."""


def _of_strings(make: Callable[..., Program]) -> Callable[[Task, int | None, float | None], Program]:
    def program(task: Task, loops: int | None, temperature: float | None) -> Program:
        assert isinstance(task, StringTask)
        check(task.version == "corrected", "task.version", task.version, "corrected")
        loops = edit_distance.loops_for(2 * task.longest + 2) if loops is None else loops
        return make(task.spec.output_size, loops, plateau=temperature is not None)

    return program


def _sudoku(task: Task, loops: int | None, temperature: float | None) -> Program:
    check(temperature is None, "inverse_temperature", temperature, "None, because Sudoku is written for hardmax")
    box: Any = task.config.box  # pyright: ignore[reportAttributeAccessIssue]: of SudokuConfig
    return sudoku.program(box, loops=SUDOKU_LOOPS[box] if loops is None else loops)


SUDOKU_LOOPS = {2: 64, 3: 128}
"""By the side of a box; hard puzzles take more, but a solved board does not change."""
CONSTRUCTIONS = {
    "edit-distance": Construction(
        "The weighted edit distance of two strings of any lengths, exactly.",
        "edit_distance",
        _of_strings(edit_distance.edit_distance),
        edit_distance.largest_number,
    ),
    "lcs": Construction(
        "The longest common subsequence of two strings of any lengths, exactly.",
        "lcs",
        _of_strings(edit_distance.lcs),
        edit_distance.largest_number,
    ),
    "sudoku": Construction(
        "Sudoku by singles and complete search; boards that take more loops stay unsolved.",
        "sudoku",
        _sudoku,
        lambda seq, loops: sudoku.largest_number(isqrt(isqrt(seq))),
    ),
}


@dataclass
class Options:
    """Write the weights of an algorithm into a run folder, which all commands then read like a trained run."""

    task: TaskConfig
    out: Path
    """The run folder."""
    num_loops: int | None = None
    """Number of loops; the default is enough for every pair of strings of the task, and for most Sudoku boards."""
    inverse_temperature: float | None = None
    """Softmax attention, whose scores are multiplied by this number (12 is enough for 100 letters); the default is
    hardmax."""
    examples: int = 128
    """Number of validation examples."""


def construct(arguments: Sequence[str]) -> None:
    """Write an algorithm's weights into a run folder, without training: looped construct edit-distance."""
    summaries = {name: construction.summary for name, construction in CONSTRUCTIONS.items()}
    if (chosen := choose(arguments, summaries, "looped construct")) is not None:
        name, words = chosen
        _construct(name, parse(Options, words, f"looped construct {name}", default=default_options(name)))


def default_options(name: str) -> Options:
    """The options of a construction that the user does not give."""
    return Options(task=TASKS[CONSTRUCTIONS[name].task].Config(), out=Path("runs") / f"{name}-constructed")


def _construct(name: str, options: Options) -> None:
    from looped.models.arguments import MAX_LOOPS
    from looped.theory.weights import write
    from looped.training.constructed import write_run

    construction, temperature = CONSTRUCTIONS[name], options.inverse_temperature
    check(1 <= options.examples <= MOST_EXAMPLES, "examples", options.examples, f"1 to {MOST_EXAMPLES:,}")
    check(temperature is None or temperature > 0, "inverse_temperature", temperature, "above 0")
    if options.num_loops is not None:
        check(1 <= options.num_loops <= MAX_LOOPS, "num_loops", options.num_loops, f"1 to {MAX_LOOPS:,}")
    task = TASKS[options.task.name](options.task)
    program, seq = construction.program(task, options.num_loops, temperature), task.spec.max_seq_len
    assert seq is not None
    largest = construction.largest_number(seq, program.loops) * max(1, temperature or 1)
    if largest >= LIMITS["float32"]:
        raise ValueError(
            f"{seq} positions, num_loops={program.loops}, inverse_temperature={temperature}: numbers up to "
            f"{largest:.3g}; expected below 2^24, from where on float32 does not hold every whole number"
        )
    model = write(program, seq, inverse_temperature=temperature).float()
    cost, before = program.circuit.cost(), sum(layer.non_zeros() for layer in program.prelude)
    layers = "one looped layer" if cost.layers == 1 else f"{cost.layers} looped layers"
    note = (
        f"Not trained: `looped construct {name}` wrote {cost.non_zeros:,} nonzero weights into {layers}, "
        f"{before} into a layer before the loop, and the tables of tokens, positions and answers."
    )
    train = TrainConfig(steps=0, eval_examples=options.examples, device="cpu", precision="fp32")
    run = RunConfig(recipe=f"{name}-constructed", note=note, model=model.config, task=options.task, train=train)
    print(f"validating on {options.examples} examples, {program.loops} loops each", file=sys.stderr)
    summary = write_run(run, model, options.out)
    say(
        f"{options.out}: {layers} of {cost.registers} registers, {cost.heads} heads of size {cost.head_size}, "
        f"{cost.units} units, {cost.non_zeros:,} nonzero weights, {program.loops} loops"
    )
    say(f"validation {task.metric} {summary['best']['value']:.4f} on {options.examples} examples")


main = construct
