"""`looped plan`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from looped.commands.arguments import needs_recipe, planned_run
from looped.commands.output import Table, output, print_table, say
from looped.commands.plan_many import plan_many
from looped.printing import duration, gigabytes

if TYPE_CHECKING:
    from looped.training.planning import Choice, Plan


def plan(arguments: Sequence[str]) -> None:
    """Predict the FLOPs, memory and time of a training, and recommend settings for the memory at hand."""
    if needs_recipe(arguments, "plan", "[--memory SIZE] [--gpu NAME [--gpus N ...]] [--out FILE]"):
        return
    name, *rest = arguments
    options = planned_run(name, rest)
    if options.gpu is not None:
        plan_many(options)
        return
    from looped.training import planning  # loads torch, which the help does not need

    with output(options.out) as write:
        found = planning.plan(options.run, options.bytes)
        if options.out:
            write(json.dumps(asdict(found), indent=2) + "\n")
    show(found)


def show(plan: "Plan") -> None:
    """Print a plan."""
    say(f"{plan.recipe} on {plan.device}: {plan.parameters:,} parameters")
    say(f"FLOPs: {plan.step_flops:.3g} a step, {plan.training_flops:.3g} in all")
    place = "the GPU" if plan.device == "cuda" else f"the program takes {gigabytes(plan.program)} of it"
    say(f"memory at hand: {gigabytes(plan.at_hand)}; {place}")
    table = Table("recompute", "parts", "window", "tensors", "peak memory", "step", "training", "")
    for choice in [*plan.choices, *([plan.window] if plan.window else [])]:
        notes = [
            "as configured" if choice is plan.choices[0] else "",
            "recommended" if choice is plan.recommended else "",
            "another training" if choice is plan.window else "",
            "" if choice.fits else "does not fit",
        ]
        table.add_row(
            choice.recompute,
            str(choice.accumulation),
            str(choice.num_grad_loops or "all"),
            gigabytes(choice.tensors),
            f"{'' if choice.measured else 'at least '}{gigabytes(choice.memory)}",
            "" if choice.step_seconds is None else duration(choice.step_seconds),
            "" if choice.seconds is None else duration(choice.seconds),
            ", ".join(filter(None, notes)),
        )
    print_table(table)
    say(_advice(plan))


def _advice(plan: "Plan") -> str:
    best: Choice | None = plan.recommended
    if best is None:
        text = "nothing fits: a smaller model, a shorter sequence or more memory is needed"
        if plan.window:
            text += f"; a gradient window fits, but trains something else: {plan.window.words()}"
        return text
    chosen = "as configured" if best is plan.choices[0] else best.words()
    return f"recommended: {chosen}; a batch of about {plan.largest_batch:,} examples would fit too"


main = plan
