"""A scale changes sizes and nothing that makes a recipe what it is."""

import pytest

from looped.costs.count import flops, parameters
from looped.paper.tables import TASKS, paper_table
from looped.recipes import RECIPES, complete, recipe
from looped.recipes.scales import SIZES
from looped.strict import to_dict

# What a scale may change.
SIZE = {
    "model": {"d_model", "num_heads", "core_layers", "num_loops", "initialisation_depth", "vocab_size", "output_size",
              "max_seq_len"},
    "optim": {"learning_rate", "warmup_steps", "update_every"},
    "train": {"steps", "batch_size", "eval_every", "eval_examples", "save_every", "compile", "precision"},
}  # fmt: skip
OWN = {
    name for name in RECIPES if name.startswith(("sudoku-4x4", "sudoku-laptop", "edit-distance-small"))
}  # their sizes are what they are about
PAPER = [name for name in RECIPES if any(name.startswith(f"{t.recipe}-") for ts in TASKS.values() for t in ts)]
PAPER = [name for name in PAPER if name not in OWN and not name.startswith("sudoku-extreme")]


@pytest.mark.parametrize("scale", SIZES)
@pytest.mark.parametrize("name", [name for name in PAPER if "iso" not in name])
def test_only_sizes_change(name, scale):
    full, small = to_dict(recipe(name)), to_dict(recipe(f"{name}@{scale}"))
    task = SIZES[scale]()[full["task"]["name"]].task
    for part, allowed in (SIZE | {"task": set(task)}).items():
        changed = {key for key in full[part] if full[part][key] != small[part][key]}
        assert changed <= allowed, f"{part}: {changed - allowed}"
    assert small["schedule"] == full["schedule"]
    assert small["train"]["steps"] < full["train"]["steps"]
    assert small["recipe"] == f"{name}@{scale}"


@pytest.mark.parametrize("scale", SIZES)
def test_pairs_differ_in_the_modulation_alone(scale):
    """The paper's second claim, at equal everything else."""
    for tasks in TASKS.values():
        for task in tasks:
            plain, timed = (to_dict(recipe(f"{task.recipe}-{kind}@{scale}")) for kind in ("looped", "timestep"))
            changed = {key for key in plain["model"] if plain["model"][key] != timed["model"][key]}
            assert changed == {"modulation"}
            assert all(plain[part] == timed[part] for part in ("task", "optim", "train", "schedule"))


def test_matched_baselines_cost_as_much_at_a_scale():
    looped = recipe("wikitext-looped@cpu").model
    for by, cost in (("parameters", parameters), ("flops", lambda config: flops(config, 64))):
        standard = recipe(f"wikitext-standard-iso-{by}@cpu").model
        assert standard.num_loops == 1
        assert cost(standard) == pytest.approx(cost(looped), rel=0.03)


def test_unknown_scale():
    with pytest.raises(ValueError, match="scale 'laptop': expected one of demo, cpu, gpu, paper"):
        recipe("lcs-looped@laptop")
    with pytest.raises(ValueError, match=r"recipe 'lcs-loopd': unknown \(did you mean 'lcs-looped'"):
        recipe("lcs-loopd@cpu")
    with pytest.raises(ValueError, match="table 5: expected one of 2, 3, 4"):
        paper_table(5, "cpu")


@pytest.mark.parametrize("scale", [*SIZES, "paper"])
@pytest.mark.parametrize("number", TASKS)
def test_tables_name_recipes_that_exist_and_claims_their_rows(number, scale):
    table = paper_table(number, scale)
    runs = {words for row in table.rows for words in (row.published, row.words) if words}
    for words in runs:
        run = recipe(words[0])
        if run.task.name not in ("text", "sudoku"):  # those two read or make their data first
            assert complete(run).model.output_size
    for claim in table.claims:
        assert {claim.first, claim.second} <= runs
    assert {row.task for row in table.rows} == {claim.task for claim in table.claims}
    for row in table.rows:
        assert max(row.loops) >= 2
        assert 1 in row.loops
    papers = [row.paper for row in table.rows if row.paper is not None]
    assert len(papers) == 3 * len(TASKS[number])
