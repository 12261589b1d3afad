"""Every recipe is complete, trains, and differs from its published twin in what its docstring says."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from looped.config import RunConfig
from looped.costs.count import effective_depth, flops, parameters
from looped.models.transformer import LoopedTransformer
from looped.recipes import RECIPES, complete, recipe
from looped.strict import from_dict, to_dict
from looped.tasks import TASKS
from looped.tasks.base import SPLITS
from looped.tasks.text import TextConfig
from looped.tasks.text.tokenizer import trained_bpe
from looped.training import load_run, train

pytestmark = pytest.mark.usefixtures("one_thread")


TASK_NAMES = ("edit-distance", "lcs", "sudoku", "countdown", "in-context-tree", "wikitext")
VARIANTS = ("standard", "looped", "timestep")
SMALL_TASKS: dict[str, dict[str, Any]] = {
    "arithmetic": {"length": 2, "eval_lengths": ()},
    "equations": {"length": 2},
    "increasing_subsequence": {"length": 12, "eval_lengths": ()},
    "edit_distance_chain": {"length": 4, "eval_lengths": ()},
    "edit_distance": {"length": 4},
    "lcs": {"length": 4},
    "chomsky": {"length": 4, "eval_lengths": (8,), "start_length": None, "length_every": None},
    "sudoku": {"box": 2, "pool": 64, "min_clues": 5, "max_clues": 8},
    "countdown": {"numbers": 3, "max_number": 9, "max_target": 20},
    "in_context": {"points": 30},
    "n_rasp_l": {"length": 6, "eval_lengths": (9,), "start_length": 1, "length_every": 1},
    "maze": {"side": 5},
    "p_hop": {"hops": 1, "length": 8},
    "n_ary_addition": {"operands": (2,), "eval_operands": (2,)},
    "i_gsm": {"min_operations": 1, "max_operations": 2},
    "tables": {"points": 9},
    "text": {"context": 16},
}

# What the published recipe changes, field by field: (published, corrected).
STRINGS = {
    "task.version": ("published", "corrected"),
    "optim.decay": ("all_but_bias", "matrices"),
    "optim.schedule": ("linear", "cosine"),
    "optim.update_every": (7812, 1),
    "optim.clip_norm": (None, 1.0),
    "train.precision": ("fp32", "auto"),
}
FRAME = {
    "model.vocab_size": (50_304, None),
    "model.output_size": (50_304, None),
    "model.norm": ("layer", "rms"),
    "model.positions": ("sinusoidal", "learned"),
    "model.positions_every_loop": (True, False),
    "optim.clip_norm": (None, 1.0),
    "train.precision": ("fp32", "auto"),
}
OF_TASK = {
    "edit-distance": STRINGS,
    "lcs": STRINGS,
    "sudoku": FRAME | {"task.loss": ("all", "blanks"), "task.augment": (False, True)},
    "countdown": FRAME,
    "in-context-tree": {
        "model.max_seq_len": (203, None),
        "model.activation": ("gelu_tanh", "gelu"),
        "model.initialisation": ("in_context", "gpt2"),
        "task.truncation": ("published", "corrected"),
        "train.precision": ("fp32", "auto"),
    },
    "wikitext": {
        "model.vocab_size": (50_304, 50_257),
        "model.output_size": (50_304, 50_257),
        "task.version": ("published", "corrected"),
        "train.eval_examples": (9600, 480),
    },
}
PLAIN = {"model.activation": ("gelu_tanh", "gelu")}
GATED = {"model.activation": ("silu", "gelu"), "model.norm_gain": (False, True)}
ADDITIVE = {"model.modulation": ("additive", "none"), "model.initialisation_depth": (1, None)}
TWELVE = {
    "model.modulation": ("additive", "none"),
    "model.core_layers": (12, 6),
    "model.initialisation_depth": (12, None),
}
LOOPED_TEXT = {"model.norm_gain": (False, True), "model.initialisation_depth": (12, None)}
OF_PAIR = {
    **{(task, "standard"): {**PLAIN, "model.norm": ("layer", "rms")} for task in ("edit-distance", "lcs")},
    **{(task, "looped"): PLAIN for task in ("edit-distance", "lcs")},
    **{(task, "timestep"): GATED for task in ("edit-distance", "lcs")},
    **{(task, "standard"): TWELVE for task in ("sudoku", "countdown")},
    ("sudoku", "looped"): ADDITIVE,
    ("sudoku", "timestep"): {"model.initialisation_depth": (1, None)},
    ("countdown", "looped"): {**ADDITIVE, "model.num_loops": (50, 32)},
    ("wikitext", "standard"): {"model.norm": ("layer", "rms")},
    ("wikitext", "looped"): {
        **LOOPED_TEXT,
        "model.values": ("state", "normalised"),
        "model.feedforward_norm": (False, True),
    },
    ("wikitext", "timestep"): LOOPED_TEXT,
    ("countdown", "timestep"): {"model.initialisation_depth": (1, None), "model.num_loops": (50, 32)},
    ("in-context-tree", "standard"): {"model.norm": ("layer", "rms"), "model.initialisation_depth": (12, None)},
    ("in-context-tree", "looped"): {"model.norm": ("layer", "rms"), "model.initialisation_depth": (1, None)},
    ("in-context-tree", "timestep"): {"model.norm_gain": (False, True), "model.initialisation_depth": (1, None)},
}


def flat(data: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Nested fields by their path."""
    fields: dict[str, Any] = {}
    for key, value in data.items():
        fields |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return fields


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings that only the user of a language recipe can know: files, and a tokenizer in the place of GPT-2's."""
    folder, names = tmp_path_factory.mktemp("texts"), {}
    for split in SPLITS:
        (folder / f"{split}.txt").write_text("".join(f"{split} {n}: two {n} is {2 * n}\n\n" for n in range(90)))
        names[f"{split}_files"] = (str(folder / f"{split}.txt"),)
    (folder / "tokenizer.json").write_text(trained_bpe(["two is three"], 270))
    return {**names, "tokenizer": str(folder / "tokenizer.json"), "cache": str(folder / "cache")}


def named(run: RunConfig, texts: dict[str, Any]) -> RunConfig:
    """The recipe with the files that it needs."""
    if not isinstance(run.task, TextConfig):
        return run
    own = {"tokenizer": run.task.tokenizer} if run.task.tokenizer == "bpe" else {}
    return dataclasses.replace(run, task=dataclasses.replace(run.task, **texts | own))


def shrunk(name: str, texts: dict[str, Any]) -> RunConfig:
    """The recipe with small sizes, few loops and two steps; all other settings are its own."""
    run = named(recipe(name), texts)
    task = dataclasses.replace(run.task, **SMALL_TASKS[run.task.name])
    # cosine:K needs a multiple of K layers.
    layers = run.model.core_layers if run.train.regularisers else min(run.model.core_layers, 2)
    segments = min(run.train.segments, 2)
    model = dataclasses.replace(
        run.model,
        d_model=16,
        num_heads=2,
        num_loops=4 if segments > 1 else min(run.model.num_loops, 3),
        core_layers=layers,
        vocab_size=None,
        output_size=None,
        max_seq_len=None,
    )
    optim = dataclasses.replace(run.optim, warmup_steps=min(run.optim.warmup_steps, 2), constant_steps=0)
    schedule = run.schedule
    if schedule.kind == "fixed" and schedule.num_grad_loops:
        schedule = dataclasses.replace(schedule, num_grad_loops=1)
    if schedule.kind == "curriculum":
        window = None if schedule.num_grad_loops is None else 1
        schedule = dataclasses.replace(schedule, min_loops=1, max_loops=3, every=1, num_grad_loops=window)
    settings = dataclasses.replace(
        run.train,
        loss_window=None if run.train.loss_window is None else 1,
        segments=segments,
        steps=2,
        batch_size=8,
        eval_examples=8,
        log_every=1,
        workers=0,
        compile=False,
        device="cpu",
    )
    return complete(dataclasses.replace(run, model=model, task=task, schedule=schedule, optim=optim, train=settings))


@pytest.mark.parametrize("name", RECIPES)
def test_trains(name: str, texts: dict[str, Any], tmp_path: Path):
    run = shrunk(name, texts)
    summary = train(run, tmp_path)
    assert (summary["recipe"], summary["steps"], summary["finished"]) == (name, 2, "steps")
    trained = load_run(tmp_path, "last")[1].state_dict()
    begun = LoopedTransformer(run.model, seed=run.train.seed).state_dict()
    # The published strings begin with an epoch at learning rate zero.
    moved = any(not torch.equal(trained[key], begun[key]) for key in begun)
    assert moved == (run.optim.update_every == 1)
    assert summary["best"]["metric"] == TASKS[run.task.name].metric
    assert summary["parameters"] == parameters(run.model)


@pytest.mark.parametrize("name", RECIPES)
def test_is_itself_after_json(name: str):
    run = recipe(name)
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(run)))) == run
    assert run.recipe == name
    assert run.note


@pytest.mark.parametrize("name", RECIPES)
def test_complete_fills_what_the_task_decides(name: str, texts: dict[str, Any]):
    run = named(recipe(name), texts)
    if run.task.name == "text":  # the test's own text is short; GPT-2's context would not fit
        run = dataclasses.replace(run, task=dataclasses.replace(run.task, context=64))
    done, needed = complete(run), TASKS[run.task.name](run.task).spec
    width = "vocab_size" if needed.inputs == "tokens" else "input_dim"
    for field in (width, "output_size", "max_seq_len"):
        given, filled = getattr(run.model, field), getattr(done.model, field)
        assert filled == (getattr(needed, field) if given is None else given)
        assert filled >= getattr(needed, field)
    assert complete(done) == done
    assert dataclasses.replace(done, model=run.model) == run  # nothing else has changed


@pytest.mark.parametrize("field", ["vocab_size", "output_size", "max_seq_len"])
def test_complete_rejects_too_small_sizes(field: str):
    run = recipe("edit-distance-small")
    needed = getattr(complete(run).model, field)
    assert getattr(complete(with_model(run, **{field: needed + 1})).model, field) == needed + 1
    with pytest.raises(ValueError, match=f"model.{field}={needed - 1}: expected at least {needed} for task edit_dist"):
        complete(with_model(run, **{field: needed - 1}))


def test_complete_rejects_another_kind_of_input():
    with pytest.raises(ValueError, match=r"model\.inputs='vectors': expected 'tokens' for task edit_distance"):
        complete(with_model(recipe("edit-distance-small"), inputs="vectors", input_dim=3))


def test_complete_rejects_a_model_that_could_look_at_the_answers():
    with pytest.raises(ValueError, match=r"model\.causal=False: expected True for task in_context"):
        complete(with_model(recipe("in-context-tree-looped"), causal=False))


def test_in_context_models_have_the_published_sizes():
    sizes = [parameters(complete(recipe(f"in-context-tree-published-{variant}")).model) / 1e6 for variant in VARIANTS]
    assert [round(size, 2) for size in sizes] == [9.54, 0.85, 1.24]


def with_model(run: RunConfig, **sizes: Any) -> RunConfig:
    return dataclasses.replace(run, model=dataclasses.replace(run.model, **sizes))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", TASK_NAMES)
def test_published_differs_in_what_is_documented(task: str, variant: str):
    published, corrected = (flat(to_dict(recipe(f"{task}-{name}"))) for name in (f"published-{variant}", variant))
    assert published.keys() == corrected.keys()
    different = {key: (published[key], corrected[key]) for key in published if published[key] != corrected[key]}
    assert {"recipe", "note"} < different.keys()
    del different["recipe"], different["note"]
    assert different == OF_TASK[task] | OF_PAIR[task, variant]


@pytest.mark.parametrize(
    ("name", "endings"),
    [
        ("p-hop-looped", ("one-layer", "three-layers", "timestep")),
        ("sudoku-4x4", ("timestep",)),
        ("edit-distance-small", ("timestep",)),
    ],
)
def test_small_recipes_differ_in_the_depth_or_the_timestep_alone(name, endings):
    base = recipe(name)
    for ending in endings:
        run = recipe(f"{name.removesuffix('-looped')}-{ending}")
        assert (run.task, run.optim, run.train) == (base.task, base.optim, base.train)
        before, after = to_dict(base.model), to_dict(run.model)
        changed = {key for key in before if before[key] != after[key]}
        expected = {"modulation", "gate_offset"} if "timestep" in run.recipe else {"num_loops", "core_layers"}
        assert changed <= expected
        assert run.model.core_layers * run.model.num_loops in (1, effective_depth(base.model))


def test_language_recipes_see_the_same_data():
    runs = [recipe(f"language-{variant}") for variant in VARIANTS]
    for run in runs:
        assert (run.task, run.optim, run.train) == (runs[0].task, runs[0].optim, runs[0].train)
        assert effective_depth(run.model) == 6


def test_language_recipes_need_a_text():
    with pytest.raises(ValueError, match=r"task\.train_files=\(\): expected files or folders of text"):
        complete(recipe("language-looped"))


@pytest.mark.parametrize(
    ("name", "millions"),
    [("published-looped", 46.5), ("published-timestep", 49.65), ("published-standard-released", 45.16)],
)
def test_wikitext_models_have_the_published_sizes(name: str, millions: float):
    assert parameters(recipe(f"wikitext-{name}").model) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("by", ["parameters", "flops"])
def test_matched_baselines_cost_what_they_say(by: str):
    matched, looped = recipe(f"wikitext-standard-iso-{by}"), recipe("wikitext-looped")
    cost = parameters if by == "parameters" else lambda model: flops(model, 1024)
    ratio = cost(matched.model) / cost(looped.model)
    assert 0.98 < ratio < 1.02
    assert f"{ratio:.3f} times the {by}" in matched.note
    assert (matched.task, matched.optim, matched.train) == (looped.task, looped.optim, looped.train)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match=r"'lcs-loped': unknown \(did you mean 'lcs-looped'\?\)"):
        recipe("lcs-loped")


@pytest.mark.parametrize("variant", ["standard", "looped", "timestep"])
def test_published_in_context_models_start_as_the_public_code(variant):
    """Standard deviations: U(-b, b) has b / sqrt(3), with b = 1 / sqrt(20) at the embedding, 1 / 16 at the output."""
    run = complete(recipe(f"in-context-tree-published-{variant}"))
    model = LoopedTransformer(run.model)
    spread = {name: (p.std(correction=0).item(), p.abs().max().item()) for name, p in model.named_parameters()}
    bounds = {"embed": 20**-0.5, "head": 256**-0.5}
    for name, bound in bounds.items():
        for part in ("weight", "bias"):
            deviation, largest = spread.pop(f"{name}.{part}")
            assert largest <= bound
            if (name, part) != ("head", "bias"):  # one number has no spread
                assert deviation == pytest.approx(bound / 3**0.5, rel=0.1)
    into_residual = 0.02 / (2 * run.model.core_layers) ** 0.5
    for name, (deviation, largest) in spread.items():
        wanted = into_residual if name.endswith(("project.weight", "down.weight")) else 0.02
        if name.startswith("modulation.output") or name.endswith("bias"):
            assert largest == 0
        elif "norm" in name:
            assert (deviation, largest) == (0, 1)
        else:
            assert deviation == pytest.approx(wanted, rel=0.02), name
