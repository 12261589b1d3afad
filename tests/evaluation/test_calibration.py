"""Calibration: exits from one recorded pass are the real ones, and the recommendation is what the rows say."""

import dataclasses
from pathlib import Path

import pytest
import torch

from looped.config import ModelConfig
from looped.evaluation.calibration import calibrate, exits_of, overthinking, rules_for, wall_times
from looped.evaluation.scores import run_with_exits
from looped.models import LoopedTransformer, Unchanged, parse_rule
from looped.tasks import TASKS
from looped.tasks.base import Batch
from looped.tasks.edit_distance import EditDistanceConfig
from looped.tasks.in_context import InContextConfig
from looped.tasks.sudoku import SudokuConfig
from looped.tasks.text import TextConfig

pytestmark = pytest.mark.usefixtures("one_thread")

BOARDS = SudokuConfig(box=2, pool=300)
STRINGS = EditDistanceConfig(length=5, min_letters=3, max_letters=3)


def make(task_config, **options):
    """A task, and a model for it that was not trained but is away from its initial values."""
    task = TASKS[task_config.name](task_config)
    sizes = {f.name: getattr(task.spec, f.name) for f in dataclasses.fields(task.spec)}
    config = ModelConfig(**{"d_model": 16, "num_heads": 2, "num_loops": 4, **sizes, **options})
    model = LoopedTransformer(config).eval()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += 0.15 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return task, model


@pytest.mark.parametrize(
    ("task_config", "options"),
    [
        (BOARDS, {}),
        (STRINGS, {"input_injection": "add", "coda_layers": 1}),
        (STRINGS, {"modulation": "scale_gate", "timestep": "fraction", "gate_offset": 1}),
        (BOARDS, {"halting": "gate"}),
    ],
)
def test_exits_from_one_pass_are_the_real_ones(task_config, options):
    task, model = make(task_config, **options)
    batch = task.batch("validation", 0, 12, seed=0)
    assert isinstance(task_config, SudokuConfig) or not batch.attention_mask.all(), "padding must be there"
    rules = rules_for(model.config)
    assert ("gate" in {str(rule).split(":")[0] for rule in rules}) == ("halting" in options)
    passes = []
    hook = model.core[0].register_forward_hook(lambda block, args, output: passes.append(len(output)))
    found = list(exits_of(model, batch, rules, 6))
    hook.remove()
    assert passes == [12] * 6, "one pass for all rules"
    seen = set()
    for rule, (logits, loops) in zip(rules, found, strict=True):
        expected, ran = run_with_exits(model, batch, 6, rule)
        assert torch.equal(loops, ran)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        seen |= set(ran.tolist())
    assert len(seen) > 2, "sequences must leave at different loops"


def test_recommendation_is_the_fewest_mean_loops_that_are_good_enough():
    task, model = make(BOARDS)
    found = calibrate(model, task, loops=[1, 2, 4, 8], examples=20, tolerance=1.0)
    rows, chosen = found["rows"], found["recommendation"]
    assert chosen["mean_loops"] == min(row["mean_loops"] for row in rows) == 1
    assert chosen["mean_loops"] <= found["best"]["num_loops"]
    assert min(chosen["seconds"], chosen["seconds_of_best"]) > 0
    assert [row["num_loops"] for row in rows if row["exit_rule"] is None] == [1, 2, 4, 8]
    best = found["best"]
    assert best["value"] == max(row["value"] for row in rows if row["exit_rule"] is None)
    assert {row["num_loops"] for row in rows if row["exit_rule"]} == {best["num_loops"]}
    strict = calibrate(model, task, loops=[1, 2, 4, 8], examples=20, tolerance=0.0)
    assert strict["recommendation"]["value"] >= strict["best"]["value"]
    batch = task.batch("validation", 0, 20, seed=0)
    for row in rows:
        rule = None if row["exit_rule"] is None else parse_rule(row["exit_rule"])
        logits, ran = run_with_exits(model, batch, row["num_loops"], rule)
        assert row["mean_loops"] == pytest.approx(ran.mean().item())
        assert row["value"] == pytest.approx(task.score(batch, logits)["board"].mean().item())


def test_overthinking_is_reported_with_its_numbers():
    rows = [{"exit_rule": None, "num_loops": n, "value": v} for n, v in ((2, 0.5), (4, 0.9), (6, 0.893), (8, 0.7))]
    task = TASKS["sudoku"](BOARDS)
    says = "overthinking: board falls from 0.9 at the 4 loops of training to 0.7 at 8"
    assert overthinking(rows, 4, task, lambda score: 0.005) == says
    assert overthinking(rows[:3], 4, task, lambda score: 0.01) is None
    assert overthinking(rows[:2], 4, task, lambda score: 0.01) is None
    errors = TASKS["in_context"](InContextConfig(dim=3, points=6))
    says = "overthinking: squared_error rises from 0.5 at the 2 loops of training to 0.9 at 4"
    assert overthinking(rows[:2], 2, errors, lambda score: 0.005 * score) == says


def test_causal_models_exit_token_by_token_and_errors_are_lower_the_better(tmp_path: Path):
    task, model = make(InContextConfig(dim=3, points=6), vocab_size=None, num_loops=3)
    found = calibrate(model, task, loops=[1, 3, 5], examples=16)
    rules = [row["exit_rule"] for row in found["rows"] if row["exit_rule"]]
    assert {rule.split(":")[0] for rule in rules} == {"change"}, "the others need classes"
    assert all(rule.endswith("/token") for rule in rules)
    assert found["best"]["value"] == min(row["value"] for row in found["rows"] if row["exit_rule"] is None)
    assert found["recommendation"]["value"] <= found["best"]["value"] * 1.005
    names = {}
    for split in ("train", "validation", "test"):
        (tmp_path / split).write_text("".join(f"{split} {n} and {n * n}\n" for n in range(60)))
        names[f"{split}_files"] = (str(tmp_path / split),)
    text = TextConfig(**names, tokenizer="bytes", context=16, cache=str(tmp_path / "cache"))
    task, model = make(text, input_dim=None)
    found = calibrate(model, task, loops=[2, 4], examples=8)
    assert found["metric"] == "perplexity"
    assert found["best"]["value"] == min(row["value"] for row in found["rows"] if row["exit_rule"] is None) > 1
    kinds = {row["exit_rule"].split(":")[0] for row in found["rows"] if row["exit_rule"]}
    assert kinds == {"change", "kl", "entropy", "unchanged"}


def test_act_has_one_rule_and_as_many_loops_as_it_likes():
    task, model = make(BOARDS, halting="act")
    found = calibrate(model, task, loops=[2, 4, 6], examples=20)
    assert [row["exit_rule"] for row in found["rows"]] == [None, None, None, "act"]
    act, best = found["rows"][-1], found["best"]
    assert act["value"] == best["value"]
    assert 1 < act["mean_loops"] <= best["num_loops"]


def test_wall_time_falls_with_the_loops():
    task, model = make(BOARDS, d_model=64, num_loops=16)
    batch = task.batch("validation", 0, 64, seed=0)
    few, many = wall_times(model, batch, [(64, Unchanged(loops=1)), (64, None)])  # far apart, also on a busy machine
    _, ran = run_with_exits(model, batch, 64, Unchanged(loops=1))
    assert ran.mean() < 8
    assert few < many


def test_positions_that_do_not_count_are_not_looked_at():
    task, model = make(STRINGS)
    batch = task.batch("validation", 0, 12, seed=0)
    everywhere = Batch(batch.inputs, batch.targets, batch.attention_mask, batch.attention_mask)
    rule = parse_rule("unchanged:1")
    assert run_with_exits(model, batch, 6, rule)[1].sum() < run_with_exits(model, everywhere, 6, rule)[1].sum()
    nothing = batch._replace(mask=torch.zeros_like(batch.mask))
    torch.testing.assert_close(run_with_exits(model, nothing, 6, rule), run_with_exits(model, everywhere, 6, rule))
