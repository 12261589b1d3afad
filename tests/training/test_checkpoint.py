import dataclasses
import io
import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file
from training_cases import files_of_at_most, tiny, weights

from looped.files import write_atomic
from looped.models.transformer import LoopedTransformer
from looped.training import checkpoint, load_run, train

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


def resume(folder):
    checkpoint.load(folder, 6, LoopedTransformer(RUN.model), averaged=True)


def use(folder):
    load_run(folder, "last")


NEEDED = [("model.safetensors", resume), ("average.safetensors", resume), ("trainer.pt", resume),
          ("average.safetensors", use)]  # fmt: skip


@pytest.mark.parametrize(("name", "read"), NEEDED)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_cut_short(copy, name, read, share):
    path = copy / "checkpoints/step_000006" / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="is cut short or damaged") as error:
        read(copy)
    assert "step_000006" in one_line(error)
    assert load_run(copy, 4)[2] == 4


def saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"\x80garbage" * 9, saved({"x": 1}), pickle.dumps({"step": print})])
def test_foreign_state(copy, content):
    (copy / "checkpoints/step_000006/trainer.pt").write_bytes(content)
    with pytest.raises(ValueError, match="is cut short or damaged") as error:
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
    model = LoopedTransformer(dataclasses.replace(RUN.model, **change))
    with pytest.raises(ValueError, match="of another architecture: " + says) as error:
        checkpoint.load(copy, 6, model, averaged=True)
    one_line(error)


def test_a_checkpoint_is_whole_or_absent(copy):
    """A real failure to write: the system allows files of a few hundred bytes only."""
    model = LoopedTransformer(RUN.model)
    for limit, state in ((200, {}), (60_000, {"big": torch.zeros(100_000)})):
        with files_of_at_most(limit), pytest.raises(OSError, match="step_000009: cannot write this") as error:
            checkpoint.save(copy, 9, model, None, state)
        one_line(error)
        assert checkpoint.saved_steps(copy) == [2, 4, 6]
        assert not list((copy / "checkpoints").glob("*.tmp"))
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
