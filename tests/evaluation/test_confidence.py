"""The most confident loop counts, against one forward pass for each example and loop count."""

import json

import pytest
import torch
import torch.nn.functional as F

from looped.cli import main
from looped.config import ModelConfig
from looped.evaluation.scores import evaluate
from looped.models import LoopedTransformer
from looped.tasks import TASKS
from looped.tasks.edit_distance import EditDistanceConfig
from looped.tasks.in_context import InContextConfig
from looped.tasks.n_rasp_l import NRaspLConfig

CONFIGS = {
    "multiplication": NRaspLConfig(problem="multiplication", length=4),
    "copy": NRaspLConfig(problem="copy", length=7),
    "no loops of the task's own": EditDistanceConfig(length=4, min_letters=3, max_letters=3),
}


def random_model(task):
    model = LoopedTransformer(ModelConfig.for_task(task, d_model=16, num_heads=2, num_loops=3, positions="sinusoidal"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.4 * torch.randn(weights.shape, generator=generator)
    return model.double()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_least_cross_entropy_against_the_own_answer(name):
    task = TASKS[CONFIGS[name].name](CONFIGS[name])
    model, group = random_model(task), task.groups[-1]
    found = {r["policy"]: r for r in evaluate(model, task, loops=[2], examples=24, groups=[group], confidence=4)
             if r["metric"] == "accuracy" and "policy" in r}  # fmt: skip
    batch = task.batch("test", 0, 24, seed=0, group=group)
    most = (3 if batch.loops is None else int(batch.loops.max())) + 4
    entropy, right = torch.zeros(most, 24), torch.zeros(most, 24)
    for i in range(24):
        real = batch.attention_mask[i]
        masked = batch.mask[i][real]
        outputs = model(batch.inputs[i : i + 1, real], num_loops=most, loop_logits="all").loop_logits[:, 0, masked]
        for loop, logits in enumerate(outputs):
            entropy[loop, i] = F.cross_entropy(logits, logits.argmax(-1))
            right[loop, i] = float((logits.argmax(-1) == batch.targets[i][real][masked]).all())
    one, each = int(entropy.mean(1).argmin()), entropy.argmin(0)
    assert len(set(each.tolist())) > 1
    assert found["confidence"]["mean_loops"] == one + 1
    assert found["confidence"]["value"] == pytest.approx(right[one].mean().item())
    assert found["confidence-example"]["mean_loops"] == pytest.approx(each.double().mean().item() + 1)
    assert found["confidence-example"]["value"] == pytest.approx(right[each, torch.arange(24)].mean().item())
    assert ("task" in found) == (batch.loops is not None)
    assert all(row["num_loops"] == most for policy, row in found.items() if policy != "task")
    assert found["confidence"]["flops_per_example"] > max(row["flops_per_example"] for row in evaluate(
        model, task, loops=[most - 1], examples=4, groups=[group]))  # fmt: skip


def test_bad_confidence():
    task = TASKS["in_context"](InContextConfig(dim=2, points=3))
    with pytest.raises(ValueError, match="confidence=2: expected a task with classes; in_context has real numbers"):
        evaluate(random_model(task), task, loops=[1], examples=4, confidence=2)
    task = TASKS["n_rasp_l"](NRaspLConfig(length=3))
    with pytest.raises(ValueError, match="confidence=-1: expected at least 0"):
        evaluate(random_model(task), task, loops=[1], examples=4, confidence=-1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = "--task.length 7 --task.eval-lengths 9 --model.positions rotary --model.d-model 16 --model.num-heads 1"
    more = "--train.steps 1 --train.workers 0 --train.loss task --optim.warmup-steps 1 --train.eval-examples 8"
    assert main(["train", "n_rasp_l", "--out", str(folder), *options.split(), *more.split()]) == 0
    return folder


def test_evaluation_of_a_run(run, capsys):
    assert main(["evaluate", str(run), "--loops", "2", "--examples", "20"]) == 0
    rows = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    policies = {(row["group"], row.get("policy"), row["num_loops"]) for row in rows}
    assert policies == {
        (group, policy, loops)
        for group, n in (("7", 7), ("9", 9))
        for policy, loops in ((None, 2), ("task", n), ("confidence", n + 20), ("confidence-example", n + 20))
    }
    assert "confidence-example" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--loops", "2", "--examples", "20", "--confidence", "3"]) == 0
    rows = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    assert {row["num_loops"] for row in rows if row.get("policy") == "confidence"} == {10, 12}


def test_an_unknown_symbol_of_a_user(run, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("0110\n0 1 2 x\n")
    assert main(["solve", str(run), str(tmp_path / "words.txt")]) == 2
    assert "line 2: '2': expected symbols of 0 1" in capsys.readouterr().err
    (tmp_path / "words.txt").write_text("0110\n01\n")
    assert main(["solve", str(run), str(tmp_path / "words.txt")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
