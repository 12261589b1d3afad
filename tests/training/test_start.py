"""A training that starts from the weights of a trained run."""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from training_cases import assert_same_run, metrics, tiny, weights

from looped.cli import main
from looped.config import RunConfig
from looped.run_data import check_tokenizer, write_data
from looped.run_folder import write_config
from looped.tasks.base import Task, TaskSpec
from looped.training import checkpoint, train

BASE = tiny(steps=6, eval_every=3, optim={"ema_decay": 0.5})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "run"
    train(BASE, folder)
    return folder


def tuned(base: Path, **settings) -> RunConfig:
    run = tiny(**{"steps": 4, "eval_every": 4, "save_every": 2, "keep_last": 9, **settings})
    return dataclasses.replace(run, start=checkpoint.start_from(base))


def test_the_averaged_weights_of_the_best_checkpoint_are_the_start(base, tmp_path):
    """With a learning rate of almost nothing they stay what they were."""
    train(tuned(base, steps=1, optim={"learning_rate": 1e-30, "warmup_steps": 0}), tmp_path / "run")
    best = json.loads((base / "best.json").read_text())["step"]
    averaged = checkpoint.load_run(base)[1].state_dict()
    found = weights(tmp_path / "run", 1)
    torch.testing.assert_close(found, {name: averaged[name] for name in found}, rtol=0, atol=0)
    assert any(not torch.equal(tensor, weights(base, best)[name]) for name, tensor in found.items())
    start = json.loads((tmp_path / "run/config.json").read_text())["run"]["start"]
    assert start.keys() == {"run", "step", "sha256"}
    assert (start["run"], start["step"]) == (str(base), best)


def test_it_resumes_bit_for_bit_before_and_after_the_first_checkpoint(base, tmp_path):
    run = tuned(base)
    train(run, tmp_path / "whole")
    train(run, tmp_path / "run")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "run")
    for steps in ([2], []):
        for step in checkpoint.saved_steps(tmp_path / "run"):
            if step not in steps:
                shutil.rmtree(tmp_path / f"run/checkpoints/step_{step:06d}")
        (tmp_path / "run/summary.json").unlink()
        (tmp_path / "run/best.json").unlink()
        train(run, tmp_path / "run", resume=True)
        assert_same_run(tmp_path / "whole", tmp_path / "run", 4)


def test_other_sizes_are_refused_with_the_option(base, tmp_path):
    with pytest.raises(
        ValueError, match=r"--from .*: of another architecture: positions\.table is \(12, 16\)"
    ) as error:
        train(tuned(base, model={"d_model": 32, "num_loops": 5}), tmp_path / "run")
    assert "settings that differ: model.d_model=32 (16 there), model.num_loops=5 (3 there)" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_changed_weights_are_refused(base, tmp_path):
    copy = shutil.copytree(base, tmp_path / "base")
    run = tuned(copy)
    assert run.start is not None
    path = checkpoint._path(copy, run.start.step)
    shutil.copy(path / "model.safetensors", path / "average.safetensors")
    with pytest.raises(ValueError, match=r"average\.safetensors: not the weights from which this training began"):
        train(run, tmp_path / "run")


SMALL = shlex.split(
    "edit_distance --task.length 4 --task.max-letters 3 --model.d-model 16 --model.num-heads 2 --optim.warmup-steps 2 "
    "--train.steps 4 --train.batch-size 16 --train.eval-every 4 --train.eval-examples 24 --train.device cpu "
    "--train.precision fp32 --train.compile False --train.workers 0"
)


def test_the_command(base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, "base")
    command = ["train", *SMALL, "--from", "base", "--out", "run"]
    assert main([*command, "--model.num-loops", "5"]) == 0
    best = json.loads(Path("base/best.json").read_text())["step"]
    assert f"starts from base, step {best}; differs in model.num_loops=5 (3 there)" in capsys.readouterr().err

    before = Path("run/summary.json").read_bytes()
    shutil.rmtree("base")  # a run that has begun does not need it
    assert main([*command, "--model.num-loops", "5", "--resume"]) == 0
    assert Path("run/summary.json").read_bytes() == before
    assert main(["train", *SMALL, "--model.num-loops", "5", "--out", "run", "--resume"]) == 2
    assert "start=None, but the folder has" in capsys.readouterr().err
    assert main(["train", *SMALL, "--from", "base", "--out", "new"]) == 2
    assert capsys.readouterr().err == "looped: error: base: not a run folder (no config.json)\n"


class Letters(Task):
    """A task for text, whose tokens are the letters that it is made with."""

    spec = TaskSpec(vocab_size=9, output_size=9, max_seq_len=4)

    def __init__(self, letters: str) -> None:
        self.letters, self.tokenizer = letters, object()  # pyright: ignore[reportAttributeAccessIssue]

    def save(self, folder):
        (folder / "letters.txt").write_text(self.letters)

    def sample(self, split, size, rng, group=None):
        raise NotImplementedError

    def encode(self, problems):
        raise NotImplementedError


def test_text_needs_the_same_tokenizer(tmp_path):
    write_data(tiny(), Letters("abc"), tmp_path)
    write_config(tiny(), tmp_path)
    check_tokenizer(Letters("abc"), tmp_path)
    with pytest.raises(ValueError, match=r"^letters\.txt: another tokenizer than that of ") as error:
        check_tokenizer(Letters("abd"), tmp_path)
    assert f"expected --task.tokenizer {tmp_path}/task/letters.txt" in str(error.value)
