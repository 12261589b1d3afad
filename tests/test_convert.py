"""`looped convert`: a trained standard model becomes a looped run folder, from which training continues."""

import json
import shlex
from pathlib import Path

import pytest
import torch

from looped import load_run
from looped.cli import main
from looped.run_data import task_with_data

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = (
    "bae-standard --task.length 8 --task.hops 1 --model.d-model 16 --model.num-heads 2 --train.batch-size 16 "
    "--train.steps 20 --train.eval-every 10 --train.eval-examples 32 --optim.warmup-steps 2 --optim.ema-decay 0.9 "
    "--train.workers 0 --train.device cpu --train.precision fp32 "
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("convert") / "standard"
    assert main(["train", *shlex.split(f"{SIZES} --model.core-layers 4 --out {folder}")]) == 0
    return folder


def logits(folder: Path) -> torch.Tensor:
    run, model, _ = load_run(folder)
    return model(task_with_data(run, folder).batch("test", 0, 8, seed=0).inputs).logits.detach()


def test_a_run_becomes_looped_and_goes_on(trained, tmp_path, capsys):
    assert main(shlex.split(f"convert {trained} --loops 2 --lora-rank 16 --out {tmp_path}/full")) == 0
    torch.testing.assert_close(logits(tmp_path / "full"), logits(trained), rtol=1e-4, atol=1e-4)
    assert main(shlex.split(f"convert {trained} --loops 2 --init stepwise --out {tmp_path}/tied")) == 0
    assert (logits(tmp_path / "tied") - logits(trained)).abs().max() > 1e-3
    tied = load_run(tmp_path / "tied")[0]
    assert "init=stepwise" in tied.note
    assert (tied.model.core_layers, tied.model.num_loops, tied.train.steps) == (2, 2, 0)
    said = capsys.readouterr().out
    wanted = "--model.core-layers 2 --model.num-loops 2 --model.lora-rank"
    assert f"continue with: looped train bae-standard --from {tmp_path}/full {wanted} 16" in said
    for name, rank in (("full", 16), ("tied", 0)):
        more = f"{SIZES} {wanted} {rank} --from {tmp_path}/{name} --out {tmp_path}/{name}-more"
        assert main(["train", *shlex.split(more)]) == 0
        assert main(["evaluate", f"{tmp_path}/{name}-more", "--examples", "16"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "full-more/eval.jsonl").read_text().splitlines()]
    assert {row["num_loops"] for row in rows} == {1, 2}, "no loop has more weights"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{0} --loops 3 --out {1}/x", "loops=3: expected 2 or more that divide the 4 core layers"),
        ("{0} --loops 2 --lora-rank 17 --out {1}/x", "lora_rank=17: expected 0 to d_model=16"),
        ("{0} --loops 2 --out {0}", "already holds a run"),
        ("{1}/none --loops 2 --out {1}/x", "none"),
    ],
)
def test_mistakes(trained, tmp_path, capsys, words, message):
    assert main(["convert", *shlex.split(words.format(trained, tmp_path))]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_looped_run_is_refused(trained, tmp_path, capsys):
    assert main(shlex.split(f"convert {trained} --loops 2 --out {tmp_path}/looped")) == 0
    assert main(shlex.split(f"convert {tmp_path}/looped --loops 2 --out {tmp_path}/x")) == 2
    assert "model.num_loops=2: expected 1 in a model whose layers become loops" in capsys.readouterr().err
