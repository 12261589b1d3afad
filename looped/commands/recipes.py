"""`looped recipes`."""

from looped.commands.arguments import command
from looped.commands.output import Table, print_table
from looped.recipes import RECIPES, recipe


def recipes() -> None:
    """List the recipes: what each trains, and for how long."""
    table = Table("recipe", "task", "layers x loops", "d_model", "modulation", "steps", "note")
    for name in RECIPES:
        run = recipe(name)
        depth = f"{run.model.core_layers} x {run.model.num_loops}"
        table.add_row(
            name, run.task.name, depth, str(run.model.d_model), run.model.modulation, f"{run.train.steps:,}", run.note
        )
    print_table(table)


main = command(recipes)
