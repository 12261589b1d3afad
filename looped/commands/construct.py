"""`looped construct`."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from looped.commands.arguments import parse
from looped.commands.choice import choose
from looped.commands.output import say
from looped.config import RunConfig, TrainConfig
from looped.strict import check
from looped.tasks import TASKS
from looped.tasks.registry import TaskConfig
from looped.tasks.strings import StringTask
from looped.theory import edit_distance
from looped.theory.circuit import LIMITS, Program
from looped.theory.weights import write
from looped.training.constructed import write_run


class Construction(NamedTuple):
    summary: str
    task: str
    program: Callable[..., Program]


CONSTRUCTIONS = {
    "edit-distance": Construction(
        "The weighted edit distance of two strings of any lengths, exactly.", "edit_distance", edit_distance.edit_distance
    ),
    "lcs": Construction(
        "The longest common subsequence of two strings of any lengths, exactly.", "lcs", edit_distance.lcs
    ),
}


@dataclass
class Options:
    """Write the weights of an algorithm into a run folder, which all commands then read like a trained run."""

    task: TaskConfig
    out: Path
    """The run folder."""
    num_loops: int | None = None
    """Number of loops; the default is enough for every pair of strings of the task."""
    inverse_temperature: float | None = None
    """Softmax attention, whose scores are multiplied by this number (from 12 on exact at usual lengths); the default is
    hardmax."""
    examples: int = 128
    """Number of validation examples."""


def construct(arguments: Sequence[str]) -> None:
    """Write an algorithm's weights into a run folder, without training: looped construct edit-distance."""
    summaries = {name: construction.summary for name, construction in CONSTRUCTIONS.items()}
    if (chosen := choose(arguments, summaries, "looped construct")) is None:
        return
    name, words = chosen
    construction = CONSTRUCTIONS[name]
    default = Options(task=TASKS[construction.task].Config(), out=Path("runs") / f"{name}-constructed")
    options: Options = parse(Options, words, f"looped construct {name}", default=default)
    task = TASKS[construction.task](options.task)
    assert isinstance(task, StringTask)
    check(task.version == "corrected", "task.version", task.version, "corrected")
    enough = edit_distance.loops_for(2 * task.longest + 2)
    loops = enough if options.num_loops is None else options.num_loops
    for option, value in (("num_loops", loops), ("examples", options.examples)):
        check(value >= 1, option, value, "at least 1")
    temperature = options.inverse_temperature
    check(temperature is None or temperature > 0, "inverse_temperature", temperature, "above 0")
    seq = task.spec.max_seq_len
    assert seq is not None
    largest = edit_distance.largest_number(seq, loops) * (temperature or 1)
    if largest >= LIMITS["float32"]:
        raise ValueError(
            f"task.length={task.longest}, num_loops={loops}: numbers up to {largest:.3g}; expected below 2^24, from "
            "where on float32 does not hold every whole number"
        )
    program = construction.program(task.spec.output_size, loops, plateau=temperature is not None)
    model = write(program, seq, inverse_temperature=temperature).float()
    cost = program.circuit.cost()
    weights = cost.non_zeros + sum(layer.non_zeros() for layer in program.prelude)
    note = (
        f"Not trained: `looped construct {name}` wrote an algorithm into {weights} nonzero weights beside the tables of "
        "tokens, positions and answers."
    )
    train = TrainConfig(steps=0, eval_examples=options.examples, device="cpu", precision="fp32")
    run = RunConfig(recipe=f"{name}-constructed", note=note, model=model.config, task=options.task, train=train)
    summary = write_run(run, model, options.out)
    say(
        f"{options.out}: one looped layer of {cost.registers} registers, {cost.heads} heads of size {cost.head_size}, "
        f"{cost.units} units, {cost.non_zeros} nonzero weights, {loops} loops"
    )
    say(f"validation {task.metric} {summary['best']['value']:.4f} on {options.examples} examples")


main = construct
