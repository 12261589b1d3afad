"""Generated answers against the plain way: a whole pass over the text for each token."""

import dataclasses
from typing import Any

import pytest
import torch

from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.evaluation.answers import solve
from looped.evaluation.calibration import calibrate
from looped.evaluation.scores import evaluate
from looped.models import LoopedTransformer
from looped.models.exit_rules import parse_rule
from looped.models.generated import generated
from looped.recipes import complete
from looped.runs import evaluate_run, solve_file
from looped.tasks import TASKS
from looped.tasks.arithmetic import ArithmeticConfig
from looped.training import train


def make(answer: Any = "chain", scale=0.3, **options):
    task: Any = TASKS["arithmetic"](ArithmeticConfig(length=3, min_length=1, modulus=3, answer=answer))
    sizes = {f.name: getattr(task.spec, f.name) for f in dataclasses.fields(task.spec)}
    sizes.pop("input_dim")
    model = LoopedTransformer(ModelConfig(d_model=16, num_heads=2, num_loops=2, **sizes, **options))
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += scale * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return task, model


@torch.no_grad()
def recomputed(model, task, prompt, num_loops):
    """The same answer without a cache, of one prompt alone."""
    text = prompt.tolist()
    for _ in range(task.generation.max_new_tokens):
        text.append(int(model(torch.tensor([text]), num_loops=num_loops).logits[0, -1].argmax()))
        if text[-1] == task.generation.end:
            break
    return text[len(prompt) :]


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_answers_are_those_of_full_recomputation(positions):
    task, model = make(positions=positions)
    task.generation = task.generation._replace(end=10)  # a token that this model writes
    problems = task.sample("train", 8, task.rng("train", 0, 0))
    batch = task.encode(problems)
    answers, loops = generated(model, task, batch, 3)
    prompts = [torch.tensor([task.ids[word] for word in problem.question]) for problem in problems]
    assert len(set(map(len, prompts))) > 1
    assert answers == [recomputed(model, task, prompt, 3) for prompt in prompts]
    assert len(set(map(len, answers))) > 1
    assert (loops == 3).all()
    assert [answer["written"] for _, answer in solve(model, task, problems, num_loops=3)] == [
        " ".join(task.word(token) for token in tokens if token != 10) for tokens in answers
    ]


def chains(task, batch):
    """The right texts."""
    return [row[mask].tolist() for row, mask in zip(batch.targets, batch.mask, strict=True)]


def test_teacher_forcing_is_generation_of_the_right_chain(tmp_path):
    run = RunConfig(
        model=ModelConfig(d_model=32, num_heads=2, core_layers=2, causal=True, positions="rotary"),
        task=ArithmeticConfig(length=2, modulus=2),
        optim=OptimConfig(optimizer="muon", learning_rate=1e-2, warmup_steps=10),
        train=TrainConfig(steps=60, batch_size=32, eval_every=30, eval_examples=64, workers=0, compile=False),
    )
    train(complete(run), tmp_path / "run")
    rows = evaluate_run(tmp_path / "run", loops=[1], examples=64)
    by_metric = {row["metric"]: row["value"] for row in rows}
    assert set(by_metric) == {"accuracy", "teacher_forced", "token_accuracy"}
    assert by_metric["accuracy"] >= by_metric["teacher_forced"] > 0.05
    (tmp_path / "mine.txt").write_text("1 + 1 * 1\n(1 - 1) / 1 =\n")
    answers, _ = solve_file(tmp_path / "run", str(tmp_path / "mine.txt"))
    assert [(row["input"], row["expected"]) for row in answers] == [("1 + 1 * 1 =", "0"), ("( 1 - 1 ) / 1 =", "0")]
    assert all(row["written"].endswith(row["answer"]) for row in answers)


def test_the_scores_of_each_way_agree():
    task, model = make()
    batch = task.batch("test", 0, 64, seed=0, group="3")
    rows = evaluate(model, task, loops=[1, 2], examples=64, early=(2, parse_rule("unchanged:1/token")))
    for loops in (1, 2):
        answers, _ = generated(model, task, batch, loops)
        forced = task.score(batch, model(batch.inputs, num_loops=loops).logits)["teacher_forced"]
        assert [float(a == right) for a, right in zip(answers, chains(task, batch), strict=True)] == forced.tolist()
        values = {r["metric"]: r["value"] for r in rows if r["num_loops"] == loops and "exit_rule" not in r}
        assert values["accuracy"] == pytest.approx(task.score_generated(batch, answers)["accuracy"].mean().item())
        assert values["teacher_forced"] == pytest.approx(forced.mean().item())
    exits = {r["metric"]: r for r in rows if "exit_rule" in r}
    answers, taken = generated(model, task, batch, 2, parse_rule("unchanged:1/token"))
    assert exits["accuracy"]["mean_loops"] == pytest.approx(taken.mean().item())
    assert exits["accuracy"]["value"] == pytest.approx(task.score_generated(batch, answers)["accuracy"].mean().item())
    task, model = make("direct")
    found = calibrate(model, task, loops=[1, 2], examples=16)
    assert {row["num_loops"] for row in found["rows"]} == {1, 2}


def test_a_model_that_diverges_answers_wrongly():
    task, model = make("direct")
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    rows = evaluate(model, task, loops=[1], examples=16)
    assert {row["value"] for row in rows} == {0.0}
