"""Examples that need different numbers of loops: train.loss=task and steps, growing problems, evaluation, answers."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from looped.cli import main
from looped.config import ModelConfig, RunConfig, TrainConfig
from looped.evaluation.scores import evaluate
from looped.models.transformer import LoopedTransformer
from looped.recipes import complete
from looped.run_folder import EvalRow, PolicyRow, read_rows
from looped.runs import evaluate_run, solve_file
from looped.tasks import SequenceTask, register
from looped.tasks.batch import IGNORED, Batch
from looped.training.step import ModelWithLoss
from looped.training.trainer import train


@register("running_parity")
class RunningParity(SequenceTask):
    """The parity of a word needs as many loops as letters. After loop t the target is the parity of t letters."""

    vocabulary = "01"

    def draw(self, length, rng):
        return "".join(rng.choice(["0", "1"], length))

    def solve(self, symbols):
        return str(symbols.count("1") % 2)

    def loops_for(self, problem):
        return len(problem.input)

    def encode(self, problems):
        batch = super().encode(problems)
        most = max(map(self.loops_for, problems))
        steps = torch.full((len(problems), most, batch.inputs.shape[1]), IGNORED)
        for row, problem in enumerate(problems):
            for t in range(len(problem.input)):
                steps[row, t, len(problem.input)] = problem.input[: t + 1].count("1") % 2
        return batch._replace(step_targets=steps)


Settings: Any = RunningParity.Config
TASK = Settings(length=6, eval_lengths=(9,))
MODEL = ModelConfig(d_model=16, num_heads=2, num_loops=6, positions="rotary", input_injection="add")


def run_of(loss: Any = "task", **settings) -> RunConfig:
    train_config = TrainConfig(
        steps=4, batch_size=8, loss=loss, eval_examples=16, eval_every=2, save_every=2, log_every=1, workers=0,
        precision="fp32", compile=False, **settings,
    )  # fmt: skip
    optim = dataclasses.replace(RunConfig(task=TASK).optim, warmup_steps=0)
    return complete(RunConfig(task=TASK, model=MODEL, train=train_config, optim=optim))


@pytest.mark.parametrize("loss", ["task", "steps"])
def test_the_loss_reads_each_example_after_its_own_loops(loss: str):
    run = run_of(loss, **({"step_weight": 0.7} if loss == "steps" else {}))
    task = RunningParity(run.task)
    batch = task.batch("train", 0, 8, seed=0)
    model = LoopedTransformer(run.model).double()
    assert batch.loops is not None
    assert batch.step_targets is not None
    most = int(batch.loops.max())
    found, right = (value.detach() for value in ModelWithLoss(model, run.train)(batch, True, most, most))
    expected, correct = 0.0, 0
    for row, loops in enumerate(batch.loops.tolist()):  # one example at a time, without padding
        seq = int(batch.attention_mask[row].sum())
        alone = model(batch.inputs[row : row + 1, :seq], num_loops=loops, loop_logits="all").loop_logits[:, 0].float()
        alone = alone.detach()
        answer = alone[-1][batch.mask[row, :seq]]
        expected += F.cross_entropy(answer, batch.targets[row][batch.mask[row]])
        correct += int((answer.argmax(-1) == batch.targets[row][batch.mask[row]]).sum())
        if loss == "steps":
            per_loop = [F.cross_entropy(alone[t], batch.step_targets[row, t, :seq]) for t in range(loops)]
            expected += 0.7 * sum(per_loop) / loops
    assert found.item() == pytest.approx(float(expected), rel=1e-5)
    assert right.item() == correct


def test_a_run_resumes_bit_for_bit_and_is_evaluated_at_its_own_loops(tmp_path):
    run = run_of()
    train(run, tmp_path / "whole")
    short = dataclasses.replace(run, train=dataclasses.replace(run.train, steps=4))
    folder = tmp_path / "parts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("looped.training.trainer.Trainer._finished", stops_after(2))
        train(short, folder)
    train(short, folder, resume=True)
    name = "checkpoints/step_000004/model.safetensors"
    assert (tmp_path / "whole" / name).read_bytes() == (folder / name).read_bytes()
    evaluate_run(folder, loops=[2], examples=32)
    rows = read_rows(folder, EvalRow)
    own = [row for row in rows if isinstance(row, PolicyRow) and row.policy == "task"]
    assert {(row.group, row.mean_loops, row.policy) for row in own} == {("6", 6.0, "task"), ("9", 9.0, "task")}
    (folder / "words.txt").write_text("0110\n1\n")
    answers, _ = solve_file(folder, str(folder / "words.txt"))
    assert [answer["expected"] for answer in answers] == ["0", "1"]


def stops_after(steps: int):
    from looped.training.trainer import Trainer

    original = Trainer._finished

    def finished(self):
        return original(self) or ("interrupted" if self.progress.step == steps else None)

    return finished


def test_the_row_of_a_mixed_batch_is_that_of_single_examples():
    task = RunningParity(dataclasses.replace(TASK, eval_lengths=(5,)))
    model = LoopedTransformer(ModelConfig.for_task(task, **{k: getattr(MODEL, k) for k in ("d_model", "num_heads")},
                                                   positions="rotary", num_loops=6))  # fmt: skip
    rows = evaluate(model, task, loops=[5, 6], examples=20, groups=["5", "6"])
    by = {(r["group"], r["num_loops"], r.get("policy")): r["value"] for r in rows if r["metric"] == "accuracy"}
    assert by["5", 5, "task"] == by["5", 5, None]
    assert by["6", 6, "task"] == by["6", 6, None]


def test_problems_grow_with_the_step():
    task = RunningParity(Settings(length=10, start_length=3, length_every=5))
    longest = [max(len(p.input) for p in task.sample_step(step, 64, task.rng("train", step, 0))) for step in (0, 5, 99)]
    assert longest == [3, 4, 10]
    assert task.batch("train", 0, 64, seed=0).inputs.shape == (64, 4)
    assert task.batch("validation", 0, 64, seed=0).inputs.shape[1] == 11


def test_a_batch_keeps_its_optional_tensors():
    batch = RunningParity(TASK).batch("train", 0, 8, seed=0)
    halves = [batch.map(lambda tensor, i=i: tensor.chunk(2)[i]) for i in range(2)]
    assert all(isinstance(half, Batch) and half.step_targets is not None and len(half.inputs) == 4 for half in halves)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "train lcs --train.loss task --model.positions none",
            "train.loss='task': expected a task that",
        ),
        (
            "train lcs --train.loss steps --model.positions none",
            "train.loss='steps': expected a task that",
        ),
        (
            "train running_parity --task.eval-lengths 20 --model.positions learned",
            "model.positions='learned': expected",
        ),
        ("train running_parity --train.loss task --schedule.num-grad-loops 1", "schedule.num_grad_loops=1"),
        (
            "train running_parity --train.loss task --model.modulation scale_gate --model.timestep both",
            "model.timestep",
        ),
        ("train running_parity --train.step-weight 2", "step_weight=2.0: has no effect when loss='last'"),
        ("train running_parity --task.start-length 4", "length_every=None: expected a number of steps"),
        ("train running_parity --task.length-every 4", "length_every=4: has no effect when start_length=None"),
        ("train running_parity --train.regularisers cosin 1", "train.regularisers='cosin': unknown"),
        ("reproduce fann", "'fann': expected a table of the paper or a work, one of 2, 3, 4"),
    ],
)
def test_mistakes_are_one_line(words: str, says: str, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("runs/**/config.json"))
