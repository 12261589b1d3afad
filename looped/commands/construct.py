"""`looped construct`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from looped.commands.arguments import parse
from looped.commands.choice import choose
from looped.commands.output import say
from looped.config import RunConfig, TrainConfig
from looped.models.arguments import MAX_LOOPS
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
        "The weighted edit distance of two strings of any lengths, exactly.",
        "edit_distance",
        edit_distance.edit_distance,
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
    """Softmax attention, whose scores are multiplied by this number (12 is enough for 100 letters); the default is
    hardmax."""
    examples: int = 128
    """Number of validation examples."""


def construct(arguments: Sequence[str]) -> None:
    """Write an algorithm's weights into a run folder, without training: looped construct edit-distance."""
    summaries = {name: construction.summary for name, construction in CONSTRUCTIONS.items()}
    if (chosen := choose(arguments, summaries, "looped construct")) is not None:
        name, words = chosen
        default = Options(task=TASKS[CONSTRUCTIONS[name].task].Config(), out=Path("runs") / f"{name}-constructed")
        _construct(name, parse(Options, words, f"looped construct {name}", default=default))


def _construct(name: str, options: Options) -> None:
    task, temperature = TASKS[options.task.name](options.task), options.inverse_temperature
    assert isinstance(task, StringTask)
    check(task.version == "corrected", "task.version", task.version, "corrected")
    check(options.examples >= 1, "examples", options.examples, "at least 1")
    check(temperature is None or temperature > 0, "inverse_temperature", temperature, "above 0")
    loops = edit_distance.loops_for(2 * task.longest + 2) if options.num_loops is None else options.num_loops
    check(1 <= loops <= MAX_LOOPS, "num_loops", loops, f"1 to {MAX_LOOPS:,}")
    outputs, seq = task.spec.output_size, task.spec.max_seq_len
    assert outputs is not None
    assert seq is not None
    largest = edit_distance.largest_number(seq, loops) * max(1, temperature or 1)
    if largest >= LIMITS["float32"]:
        raise ValueError(
            f"length={task.longest}, num_loops={loops}, inverse_temperature={temperature}: numbers up to "
            f"{largest:.3g}; expected below 2^24, from where on float32 does not hold every whole number"
        )
    program = CONSTRUCTIONS[name].program(outputs, loops, plateau=temperature is not None)
    model = write(program, seq, inverse_temperature=temperature).float()
    cost, before = program.circuit.cost(), sum(layer.non_zeros() for layer in program.prelude)
    note = (
        f"Not trained: `looped construct {name}` wrote {cost.non_zeros} nonzero weights into the layer that is looped, "
        f"{before} into a layer before it, and the tables of tokens, positions and answers."
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
