import dataclasses
import json
import math
import pickle
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_cases import files_of_at_most, tiny, weights

from looped.files import write_atomic
from looped.models.transformer import LoopedTransformer
from looped.training import checkpoint, load_run, train
from looped.training.optim import WeightAverage, make_optimizers

RUN = tiny(steps=6, eval_every=2, save_every=2, keep_last=9, optim={"ema_decay": 0.5})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(RUN, folder)
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_load_run_gives_averaged_weights(trained):
    run, model, step = load_run(trained, "last")
    assert (run, step) == (RUN, 6)
    average = load_file(trained / "checkpoints/step_000006/average.safetensors")
    raw = weights(trained, 6)
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, raw[name])
        assert torch.equal(parameter, average[name])
    assert not model.training


def test_load_run_of_best_and_of_a_step(trained):
    best = json.loads((trained / "best.json").read_text())
    assert load_run(trained)[2] == load_run(trained, "best")[2] == best["step"]
    assert load_run(trained, 4)[2] == 4


def test_a_checkpoint_that_a_training_removes_meanwhile(copy, monkeypatch):
    """The new best one is read."""
    last = checkpoint.saved_steps(copy)[-1]
    choose, chosen = checkpoint._chosen, []

    def choose_late(*arguments):
        run, step, path = choose(*arguments)
        chosen.append(step)
        if len(chosen) == 1:
            path.parent.rename(copy / "removed")
            (copy / "best.json").write_text(json.dumps(best | {"step": last}))
        return run, step, path

    best = {"step": checkpoint.saved_steps(copy)[0], "metric": "accuracy", "value": 0.9}
    (copy / "best.json").write_text(json.dumps(best))
    monkeypatch.setattr(checkpoint, "_chosen", choose_late)
    assert checkpoint.load_run(copy)[2] == last
    assert len(chosen) == 2
    assert chosen[0] != last


def test_tied_weights_survive(tmp_path):
    run = tiny(model={"tie_embeddings": True, "vocab_size": 40, "output_size": 40}, steps=2, eval_every=2)
    train(run, tmp_path / "run")
    model = load_run(tmp_path / "run")[1]
    assert model.head.weight is model.embed.weight
    saved = weights(tmp_path / "run", 2)
    assert ("head.weight" in saved) != ("embed.weight" in saved)
    assert torch.equal(model.head.weight, saved.get("head.weight", saved.get("embed.weight")))  # type: ignore


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_not_a_run_folder(tmp_path, copy):
    with pytest.raises(ValueError, match=r"not a run folder \(no config.json\)"):
        load_run(tmp_path / "nowhere")
    (copy / "config.json").write_text('{"run": {"recipe": 3, "task": {"name": "lcs"}}}')
    with pytest.raises(ValueError, match=r"config\.json: run\.recipe=3: expected str"):
        load_run(copy)
    (copy / "config.json").write_text('{"run"')
    with pytest.raises(ValueError, match="not JSON, is the file cut short"):
        load_run(copy)


def test_no_checkpoint(copy):
    with pytest.raises(ValueError, match="no checkpoint of step 5; there are 2, 4, 6"):
        load_run(copy, 5)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(ValueError, match="no checkpoint yet"):
        load_run(copy)


def resume(folder, config=RUN):
    model = LoopedTransformer(config.model)
    average = WeightAverage(model, 0.5)
    checkpoint.load(folder, 6, model, make_optimizers(model, config.optim), average)


def use(folder):
    load_run(folder, "last")


NEEDED = [("model.safetensors", resume), ("average.safetensors", resume), ("optimizer.safetensors", resume),
          ("progress.json", resume), ("average.safetensors", use)]  # fmt: skip


@pytest.mark.parametrize(("name", "read"), NEEDED)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_cut_short(copy, name, read, share):
    path = copy / "checkpoints/step_000006" / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="cut short") as error:
        read(copy)
    assert one_line(error).startswith(str(path))
    assert load_run(copy, 4)[2] == 4


def nothing_left(tensors):
    tensors.clear()


W = "core.0.attention.project.weight"
DAMAGE = {
    "absent": (lambda t: t.pop(f"{W}/exp_avg"), rf"{W}/exp_avg is absent, expected \(torch.float32, \(16, 16\)\)"),
    "more": (lambda t: t.update(x=torch.zeros(2)), r": x is \(torch.float32, \(2,\)\), expected no such entry"),
    "shape": (
        lambda t: t.update({f"{W}/exp_avg": torch.zeros(16, 8)}),
        rf"{W}/exp_avg is \(torch.float32, \(16, 8\)\)",
    ),
    "type": (lambda t: t.update({f"{W}/exp_avg": torch.zeros(16, 16).double()}), rf"{W}/exp_avg is \(torch.float64"),
    "nan": (lambda t: t[f"{W}/exp_avg"].fill_(math.nan), rf"{W}/exp_avg: expected finite numbers"),
    "negative": (lambda t: t[f"{W}/exp_avg_sq"].sub_(1), rf"{W}/exp_avg_sq: expected finite numbers from 0 on"),
    "step": (lambda t: t[f"{W}/step"].zero_(), rf"{W}/step: expected finite numbers from 1 on"),
    "empty": (nothing_left, r"/exp_avg is absent"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_every_tensor_of_the_optimiser_is_compared_with_its_weight(copy, name):
    path = copy / "checkpoints/step_000006/optimizer.safetensors"
    tensors = load_file(path)
    change, says = DAMAGE[name]
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=says) as error:
        resume(copy)
    assert one_line(error).startswith(str(path))


def test_the_state_of_another_optimiser_is_refused(copy):
    muon = dataclasses.replace(RUN, optim=dataclasses.replace(RUN.optim, optimizer="muon"))
    with pytest.raises(ValueError, match=r"exp_avg is .* expected no such entry"):
        resume(copy, muon)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": 7}, "progress.step=7: expected 6, as the folder's name says"),
        ({"step": "6"}, "progress.step='6': expected int, not str"),
        ({"step": None}, "progress.step=None: expected int"),
        ({"metrics_bytes": -1}, "metrics_bytes=-1: expected a finite number, at least 0"),
        ({"metrics_bytes": 1.5}, "metrics_bytes=1.5: expected int"),
        ({"seconds": math.nan}, "seconds=nan: expected a finite number"),
        ({"best": {"step": 2}}, "progress.best: missing metric, value"),
        ({"best": {"step": 8, "metric": "accuracy", "value": 0.5}}, "best.step=8: expected at most step=6"),
        ({"best": []}, "progress.best=[]: expected an object"),
        ({"sums": {"loss": 1.0}}, "expected a sum named steps"),
        ({"sums": {"steps": math.inf}}, "sums.steps=inf: expected a finite number"),
        ({"without_moments": ["x"]}, "the model has no weight 'x'"),
        ({"more": 1}, "progress.more: unknown key"),
    ],
)
def test_every_field_of_the_progress_is_checked(copy, change, says):
    path = copy / "checkpoints/step_000006/progress.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        resume(copy)
    assert one_line(error).startswith(str(path))


@pytest.mark.parametrize("content", [b"\x80garbage" * 9, b"", b"[]", pickle.dumps({"step": print})])
@pytest.mark.parametrize("name", ["optimizer.safetensors", "progress.json"])
def test_foreign_state(copy, name, content):
    path = copy / "checkpoints/step_000006" / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=name) as error:
        resume(copy)
    one_line(error)


@pytest.mark.parametrize(("name", "read"), NEEDED)
def test_missing_file(copy, name, read):
    (copy / "checkpoints/step_000006" / name).unlink()
    with pytest.raises(ValueError, match="no such file") as error:
        read(copy)
    assert name in one_line(error)


def test_a_model_is_used_without_what_training_left(copy):
    for path in (copy / "checkpoints").glob("*/*"):
        if path.name != "average.safetensors":
            path.unlink()
    assert load_run(copy, "last")[2] == 6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"d_model": 32}, r"positions\.table is \(12, 16\) here and \(12, 32\) in the model"),
        ({"modulation": "rezero"}, r"modulation.scalars is absent here and \(2,\) in the model"),
        ({"positions": "none"}, r"positions\.table is \(12, 16\) here and absent in the model"),
    ],
)
def test_other_architecture(copy, change, says):
    with pytest.raises(ValueError, match="of another architecture: " + says) as error:
        resume(copy, dataclasses.replace(RUN, model=dataclasses.replace(RUN.model, **change)))
    one_line(error)


def test_a_checkpoint_is_whole_or_absent(copy):
    """A real failure to write: the system allows files of a few hundred bytes only."""
    model = LoopedTransformer(RUN.model)
    optimizers = make_optimizers(model, RUN.optim)
    optimizers[0].state[model.head.weight] = {"exp_avg": torch.zeros(100_000)}
    for limit in (200, 60_000):
        with files_of_at_most(limit), pytest.raises(OSError, match="step_000009: cannot write this") as error:
            checkpoint.save(copy, checkpoint.Progress(step=9), model, optimizers, None)
        one_line(error)
        assert checkpoint.saved_steps(copy) == [2, 4, 6]
        assert not list((copy / "checkpoints").glob(".*.tmp"))
    assert load_run(copy, "last")[2] == 6


def test_prune_keeps_last_and_best(copy):
    checkpoint.prune(copy, 1, 2)
    assert checkpoint.saved_steps(copy) == [2, 6]
    checkpoint.prune(copy, 1, None)
    assert checkpoint.saved_steps(copy) == [6]


def test_write_atomic_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"
    write_atomic(path, "new")
    assert path.read_text() == "new"
