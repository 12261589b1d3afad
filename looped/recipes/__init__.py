"""Named runs. A recipe is a function without arguments that returns a `RunConfig`."""

import contextlib
import dataclasses
import re
from collections.abc import Callable
from functools import partial
from typing import Literal

from looped.config import STEPS, ModelConfig, RunConfig, check_fits, longer_in_evaluation
from looped.recipes import in_context, language, reasoning
from looped.recipes.scales import at_scale
from looped.recipes.works import RECIPES as OF_WORKS
from looped.strict import check, nearest
from looped.tasks import TASKS

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "p-hop-one-layer": partial(reasoning.p_hop, num_loops=1),
    "p-hop-three-layers": partial(reasoning.p_hop, core_layers=3, num_loops=1),
    "p-hop-looped": reasoning.p_hop,
    "p-hop-timestep": partial(reasoning.p_hop, timestep=True),
    "sudoku-4x4": reasoning.sudoku_4x4,
    "sudoku-4x4-timestep": partial(reasoning.sudoku_4x4, timestep=True),
    "edit-distance-small": reasoning.edit_distance_small,
    "edit-distance-small-timestep": partial(reasoning.edit_distance_small, timestep=True),
    "sudoku": reasoning.sudoku,
    "sudoku-laptop": reasoning.sudoku_laptop,
    "sudoku-gate": partial(reasoning.halting, "gate"),
    "sudoku-act": partial(reasoning.halting, "act"),
}
VARIANTS: tuple[reasoning.Variant, ...] = ("standard", "looped", "timestep")
for published in (False, True):
    for variant in VARIANTS:
        ending = f"published-{variant}" if published else variant
        RECIPES[f"edit-distance-{ending}"] = partial(reasoning.strings, "edit_distance", variant, published)
        RECIPES[f"lcs-{ending}"] = partial(reasoning.strings, "lcs", variant, published)
        RECIPES[f"sudoku-{ending}"] = partial(reasoning.puzzles, "sudoku", variant, published)
        RECIPES[f"countdown-{ending}"] = partial(reasoning.puzzles, "countdown", variant, published)
        RECIPES[f"in-context-tree-{ending}"] = partial(in_context.in_context, "tree", variant, published)
        RECIPES[f"wikitext-{ending}"] = partial(language.wikitext, variant, published)
for variant in VARIANTS:
    for problem in in_context.LOOPS:
        if problem != "tree":
            RECIPES[f"in-context-{problem}-{variant}"] = partial(in_context.in_context, problem, variant)
    RECIPES[f"language-{variant}"] = partial(language.language, variant)
RECIPES["wikitext-published-standard-released"] = partial(language.wikitext, "standard", True, released=True)
RECIPES["wikitext-looped-handicapped"] = language.handicapped
RECIPES |= OF_WORKS


def register_recipe(name: str) -> Callable[[Callable[[], RunConfig]], Callable[[], RunConfig]]:
    """The decorator that makes a recipe known: `@register_recipe("my-run")` above a function that returns a run.

    Raises:
        ValueError: for a name that is taken, or that no command could tell from `NAME@SCALE` or an option.
    """
    # A cell of a notebook may run once more.
    if name in RECIPES and RECIPES[name].__module__ != "__main__":
        raise ValueError(f"recipe {name!r}: the name is taken; choose another one")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"recipe {name!r}: expected letters, digits, '-', '_' and '.'")

    def known(function: Callable[[], RunConfig]) -> Callable[[], RunConfig]:
        RECIPES[name] = function
        return function

    return known


def _matched(by: Literal["parameters", "flops"], scale: str = "") -> RunConfig:
    """The looped model is scaled first. The standard model is then chosen to have the same cost."""
    return language.matched(recipe(f"wikitext-looped{scale}"), by)


MATCHED: dict[str, Callable[..., RunConfig]] = {
    "wikitext-standard-iso-parameters": partial(_matched, "parameters"),
    "wikitext-standard-iso-flops": partial(_matched, "flops"),
}
RECIPES.update(MATCHED)


def recipe(name: str) -> RunConfig:
    """The run with this name, `NAME` or `NAME@SCALE`. Sizes that depend on the task are still None (see `complete`).

    The name of a task without a recipe of this name gives one layer, looped four times, on the task's default settings.

    Raises:
        ValueError: the name is unknown (names the nearest one), or the recipe does not have the scale.
    """
    base, at, scale = name.partition("@")
    if base in MATCHED:
        return dataclasses.replace(MATCHED[base](at + scale), recipe=name)
    if base in RECIPES:
        run = RECIPES[base]()
    elif base in TASKS:
        run = _default(base)
    else:
        known = [*RECIPES, *TASKS]
        raise ValueError(
            f"recipe {base!r}: unknown{nearest(base, known)}; `looped recipes` lists them, and "
            "`looped --import FILE_OR_MODULE ...` makes your own known"
        )
    return dataclasses.replace(at_scale(run, scale) if at else run, recipe=name)


def _default(name: str) -> RunConfig:
    task = TASKS[name]
    config, model = task.Config(), ModelConfig(num_loops=4)
    # A task that needs files cannot say yet what it feeds a model; `complete` says then what is wrong.
    with contextlib.suppress(ValueError):
        made = task(config)
        spec = made.spec
        model = dataclasses.replace(model, inputs=spec.inputs, causal=spec.causal)
        if longer_in_evaluation(made):
            model = dataclasses.replace(model, positions="rotary")
    return RunConfig(note=f"The default run of the task {name}.", task=config, model=model)


def complete(run: RunConfig) -> RunConfig:
    """The run with the sizes that depend on its task filled in.

    Raises:
        ValueError: no step to train, a given size is too small for the task, or no score can reach the target.
    """
    check(run.train.steps >= 1, "train.steps", run.train.steps, STEPS)
    task, target = TASKS[run.task.name](run.task), run.train.target
    if target is not None and target > 1 and not task.lower_is_better:
        raise ValueError(f"train.target={target}: expected a number from 0 to 1, as the scores of {run.task.name} are")
    check_fits(run.model, task, complete=False)
    names = [f.name for f in dataclasses.fields(task.spec) if getattr(run.model, f.name) is None]
    sizes = {name: getattr(task.spec, name) for name in names}
    return dataclasses.replace(run, model=dataclasses.replace(run.model, **sizes))
