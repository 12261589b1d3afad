"""`looped loopify`: a standard model becomes a looped run folder, from which training continues."""

import json
import re
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
    folder = tmp_path_factory.mktemp("loopify") / "standard"
    assert main(["train", *shlex.split(f"{SIZES} --model.core-layers 4 --out {folder}")]) == 0
    return folder


def loopified(words: str, *more: object) -> None:
    assert main(["loopify", *shlex.split(words), *map(str, more)]) == 0


def logits(folder: Path, num_loops: int | None = None) -> torch.Tensor:
    run, model, _ = load_run(folder)
    inputs = task_with_data(run, folder).batch("test", 0, 8, seed=0).inputs
    return model(inputs, num_loops=num_loops).logits.detach()


def test_layers_are_repeated_and_the_scores_before_and_after_printed(trained, tmp_path, capsys):
    loopified(f"{trained} --core 1-2 --loops 3 --out", tmp_path / "repeated")
    made = load_run(tmp_path / "repeated")[0]
    sizes = made.model.prelude_layers, made.model.core_layers, made.model.coda_layers, made.model.num_loops
    assert sizes == (1, 2, 1, 3)
    assert made.train.steps == 0
    assert torch.equal(logits(tmp_path / "repeated", 1), logits(trained))
    assert (logits(tmp_path / "repeated") - logits(trained)).abs().max() > 1e-3
    said = capsys.readouterr().out
    assert "layers 1-2 of 4, 3 loops, init=repeat" in said
    assert f"continue with: looped train --from {tmp_path}/repeated --train.steps" in said
    found = re.search(
        r"accuracy ([\d.]+) before, ([\d.]+) after, without training, on ([\d,]+) scored tokens of 32 val", said
    )
    assert found
    best = json.loads((trained / "best.json").read_text())["value"]
    after = json.loads((tmp_path / "repeated/best.json").read_text())["value"]
    assert float(found[1]) == pytest.approx(best, abs=1e-4)
    assert float(found[2]) == pytest.approx(after, abs=1e-4)


def test_training_goes_on_with_the_settings_of_the_run(trained, tmp_path):
    loopified(f"{trained} --loops 2 --lora-rank 4 --modulation table --injection concat --out", tmp_path / "looped")
    new = ["--train.steps", "2", "--optim.warmup-steps", "0", "--train.eval-every", "2", "--train.workers", "0"]
    assert main(["train", "--from", str(tmp_path / "looped"), "--out", str(tmp_path / "more"), *new]) == 0
    before, after = (load_run(tmp_path / name)[0] for name in ("looped", "more"))
    assert after.model == before.model
    assert after.task == before.task
    assert after.start is not None
    assert after.start.run == str(tmp_path / "looped")
    assert (logits(tmp_path / "more") - logits(tmp_path / "looped")).abs().max() > 1e-6
    assert main(["evaluate", str(tmp_path / "more"), "--examples", "16"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "more/eval.jsonl").read_text().splitlines()]
    assert {row["num_loops"] for row in rows} == {1, 2}, "no loop has more weights"


def test_full_rank_keeps_the_source_and_rank_0_does_not(trained, tmp_path):
    loopified(f"{trained} --core 0-3 --init average --lora-rank 16 --out", tmp_path / "full")
    torch.testing.assert_close(logits(tmp_path / "full"), logits(trained), rtol=1e-4, atol=1e-4)
    loopified(f"{trained} --core 0-3 --init stepwise --out", tmp_path / "tied")
    assert (logits(tmp_path / "tied") - logits(trained)).abs().max() > 1e-3
    tied = load_run(tmp_path / "tied")[0]
    assert "layers 0-3 of 4, 2 loops, init=stepwise" in tied.note
    assert (tied.model.core_layers, tied.model.num_loops) == (2, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{0} --init lower --loops 3 --out {1}/x", "loops=3: expected a divisor of the 2 layers 1-2 of the core"),
        ("{0} --core 2-4 --out {1}/x", "core='2-4': expected layers among 0-3"),
        ("{0} --core 2-1 --out {1}/x", "core='2-1': expected layers among 0-3, in ascending order"),
        ("{0} --core middle --out {1}/x", "--core middle: expected the first and the last layer, such as 13-16"),
        ("{0} --lora-rank 17 --out {1}/x", "lora_rank=17: expected 0 to d_model=16"),
        ("{0} --text story.txt --out {1}/x", "text='story.txt': expected none for a run"),
        ("{0} --loops 2 --out {0}", "already holds a run"),
        ("{1}/none --loops 2 --out {1}/x", "none"),
    ],
)
def test_mistakes(trained, tmp_path, capsys, words, message):
    assert main(["loopify", *shlex.split(words.format(trained, tmp_path))]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_looped_run_is_refused(trained, tmp_path, capsys):
    loopified(f"{trained} --out", tmp_path / "looped")
    assert main(shlex.split(f"loopify {tmp_path}/looped --out {tmp_path}/x")) == 2
    assert "model.num_loops=2: expected 1 in a model whose layers become loops" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--train.steps 2", "--train.steps: expected a recipe, or --from RUN with the settings"),
        ("--from {0}/none --train.steps 2", "none: not a run folder"),
        ("--from {0}/looped", "train.steps=0: expected at least 1 to train"),
    ],
)
def test_training_without_a_recipe_needs_a_run_and_steps(trained, tmp_path, capsys, words, message):
    loopified(f"{trained} --out", tmp_path / "looped")
    assert main(["train", *shlex.split(words.format(tmp_path)), "--out", str(tmp_path / "x")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
