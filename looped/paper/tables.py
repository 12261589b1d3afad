"""The paper's tables: the runs for each row, and the paper's numbers. `work` gives the tables of other works.

The source is Xu & Sato (ICML 2025), Tables 2 to 4. Every row of the paper is run as published and as corrected.
Further rows are looped models with fewer loops, standard transformers with equal parameters (one layer), and standard
transformers with equal FLOPs if a scale has equally many layers and loops.
"""

from dataclasses import dataclass, replace
from functools import partial

from looped.recipes import recipe
from looped.recipes.scales import SIZES, Scale
from looped.recipes.work import Claim, Row, Work
from looped.recipes.works import WORKS
from looped.strict import nearest


@dataclass(frozen=True, kw_only=True)
class PaperTask:
    """One task of a table: the prefix of its recipes, and the paper's numbers in the unit of the metric here."""

    name: str
    recipe: str
    size: str
    """The paper's size."""
    standard: float
    looped: float
    timestep: float


SOURCE = "Xu & Sato, On Expressive Power of Looped Transformers (ICML 2025)"
TITLES = {2: "Table 2, reasoning", 3: "Table 3, in-context learning", 4: "Table 4, language modelling"}
TASKS = {
    2: (
        PaperTask(
            name="Sudoku", recipe="sudoku", size="9x9 boards, d=256, r=32", standard=0.0, looped=0.879, timestep=0.902
        ),
        PaperTask(
            name="Countdown", recipe="countdown", size="4 numbers, targets to 100, d=256, r=32",
            standard=0.538, looped=0.881, timestep=0.905,
        ),
        PaperTask(
            name="LCS", recipe="lcs", size="strings of 100, d=256, r=100", standard=0.398, looped=0.982, timestep=0.986
        ),
        PaperTask(
            name="Edit distance", recipe="edit-distance", size="strings of 60, d=256, r=100",
            standard=0.414, looped=0.477, timestep=0.883,
        ),
    ),
    3: (
        PaperTask(
            name="Decision trees", recipe="in-context-tree", size="20 coordinates, 101 points, d=256, r=12",
            standard=0.172, looped=0.28, timestep=0.034,
        ),
    ),
    4: (
        PaperTask(
            name="WikiText", recipe="wikitext", size="WikiText-103, GPT-2's tokens, windows of 1,024, d=768, r=24",
            standard=20.5, looped=20.6, timestep=19.6,
        ),
    ),
}  # fmt: skip
# The published question differs from the corrected one, so their two columns cannot be compared.
OTHER_QUESTION = {"edit-distance", "wikitext"}
# Models that only some tasks have: a row's name, and the ending of the recipe.
MORE = {
    "wikitext": (
        ("standard, equal parameters", "standard-iso-parameters"),
        ("standard, equal FLOPs", "standard-iso-flops"),
        ("looped, published block", "looped-handicapped"),
    )
}
DIFFERS = {
    2: (
        "The paper has one seed and test sets of 1,000 examples. It never published its timestep-modulated runs of "
        "these tasks, nor any Sudoku or Countdown run; `as published` combines the parts that the public code has.",
        "Every training batch here is new, or for Sudoku drawn from a pool; the public code repeated a fixed set.",
        "The published edit distance counts leading gaps at half their cost, so the scores of its two columns are "
        "not comparable.",
    ),
    3: (
        "The paper's numbers are multiplied by 20 here, because its script divided the squared error by the "
        "dimension. The paper does not say which points it averaged; here it is the error at the last point.",
        "The paper evaluated the checkpoint of step 200,000 of 500,000; here it is the checkpoint with the best "
        "validation score.",
    ),
    4: (
        "The paper's number is the perplexity of random validation windows, reported as test perplexity; here it "
        "is that of the whole test split with a sliding window.",
        "As published, an end-of-text token follows every line. The text therefore differs, and perplexities of "
        "the two columns are not comparable. The row of the published block uses the corrected text.",
    ),
}


def paper_table(number: int, scale: Scale) -> Work:
    """A table at a scale.

    Raises:
        ValueError: the table does not exist, or does not have this scale.
    """
    if number not in TASKS:
        raise ValueError(f"table {number}: expected one of {', '.join(map(str, TASKS))}")
    suffix = "" if scale == "paper" else f"@{scale}"
    parts = [_task(task, suffix, scale) for task in TASKS[number]]
    sizes = [f"{task.name}: the paper has {task.size}; here {_size(task, scale)}." for task in TASKS[number]]
    return Work(
        title=TITLES[number],
        source=SOURCE,
        rows=tuple(row for rows, _ in parts for row in rows),
        claims=tuple(claim for _, claims in parts for claim in claims),
        differs=DIFFERS[number] if scale == "paper" else (*DIFFERS[number], *sizes),
    )


def work(name: str, scale: Scale) -> Work:
    """The table of a work at the scale cpu (the runs of this library) or paper (the published settings).

    Raises:
        ValueError: there is no such work, or it has no runs at this scale.
    """
    if name not in WORKS:
        known = ", ".join([*map(str, TASKS), *WORKS])
        raise ValueError(f"{name!r}: expected a table of the paper or a work, one of {known}{nearest(name, WORKS)}")
    found = WORKS[name]
    if scale == "cpu":
        return replace(found, rows=tuple(replace(row, published=None) for row in found.rows))
    if scale != "paper":
        raise ValueError(f"scale={scale!r}: expected cpu or paper for the work {name}")
    published = {row.words: row.published for row in found.rows if row.published}
    if not published:
        raise ValueError(f"scale='paper': the work {name} has no recipes with the published settings")
    rows = [replace(row, words=row.published, published=None, groups=()) for row in found.rows if row.published]
    claims = [
        replace(
            claim,
            first=published[claim.first],
            second=published[claim.second],
            goal=published.get(claim.goal) if claim.goal else None,
            groups=(),
        )
        for claim in found.claims
        if {claim.first, claim.second} <= published.keys()
    ]
    return replace(found, rows=tuple(dict.fromkeys(rows)), claims=tuple(dict.fromkeys(claims)))


def _task(task: PaperTask, suffix: str, scale: Scale) -> tuple[list[Row], list[Claim]]:
    standard, looped, timestep = ((f"{task.recipe}-{kind}{suffix}",) for kind in ("standard", "looped", "timestep"))
    old_standard, old_looped, old_timestep = (
        (f"{task.recipe}-published-{kind}{suffix}",) for kind in ("standard", "looped", "timestep")
    )
    run, layers = recipe(looped[0]), recipe(standard[0]).model.core_layers
    r = run.model.num_loops
    fewer = (r // 4, r // 2) if scale == "paper" else SIZES[scale]()[run.task.name].loops[:-1]
    # One loop, the trained numbers of the task's models, and twice the largest of these.
    row = partial(Row, task=task.name, loops=tuple(sorted({1, *fewer, r, 2 * r})))
    one_layer = (*standard, "--model.core-layers", "1")
    rows = [
        row(model="standard, 1 layer", words=one_layer),
        row(
            model=f"standard, {layers} layers", paper=f"{task.standard:g}",
            published=old_standard, words=standard,
        ),
        *(
            row(model=f"looped, {n} times", words=(*looped, "--model.num-loops", str(n)))
            for n in fewer
        ),
        row(
            model=f"looped, {r} times", paper=f"{task.looped:g}", published=old_looped, words=looped
        ),
        row(
            model=f"timestep, {r} times", paper=f"{task.timestep:g}",
            published=old_timestep, words=timestep,
        ),
    ]  # fmt: skip
    fewest = rows[2].words
    more = {model: (f"{task.recipe}-{ending}{suffix}",) for model, ending in MORE.get(task.recipe, ())}
    rows += [row(model=model, words=words) for model, words in more.items()]
    claims = [
        (f"Looping {r} times beats {fewer[0]} times.", fewest, looped),
        (f"Looping {r} times beats one layer applied once, with equal parameters.", one_layer, looped),
        (f"Looping {r} times beats {layers} separate layers.", standard, looped),
        ("Timestep modulation beats plain looping, with all else equal.", looped, timestep),
        ("Timestep modulation beats plain looping, in the published settings.", old_looped, old_timestep),
        *((f"Looping {r} times beats this model: {model}.", words, looped) for model, words in more.items()),
    ]
    if task.recipe not in OTHER_QUESTION:
        claims.append(("The corrected looped model beats the published one.", old_looped, looped))
    return rows, [Claim(task=task.name, says=says, first=first, second=second) for says, first, second in claims]


def _size(task: PaperTask, scale: Scale) -> str:
    if scale == "paper":
        return "the same"
    size = SIZES[scale]()[recipe(f"{task.recipe}-looped").task.name]
    settings = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in size.task.items()) or "the same problems"
    return f"{settings}, d={size.d_model}, r={size.num_loops}, {size.steps:,} steps of {size.batch_size}"
