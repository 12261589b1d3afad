"""`looped export`: folders of runs, their sizes, their upload to a hub on this machine, and mistakes in one line."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import running_hub
from safetensors import safe_open

from looped.cli import main
from looped.config import ModelConfig, RunConfig, TrainConfig
from looped.export import export_hf, export_safetensors, push
from looped.models import LoopedTransformer
from looped.recipes import recipe
from looped.tasks.text import TextConfig
from looped.tasks.text.tokenizer import ByteTokenizer
from looped.training.constructed import write_run

SIZES: dict[str, Any] = {"vocab_size": 257, "output_size": 257, "max_seq_len": 16, "causal": True}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a language model, and one of another task."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("text.txt").write_text("".join(f"{n} men and {n} boats\n\n" for n in range(200)))
        model = ModelConfig(**SIZES, d_model=16, num_heads=2, num_loops=3, positions="rotary", tie_embeddings=True)
        task = TextConfig(train_files=("text.txt",), document="paragraph", context=16, cache="prepared")
        train = TrainConfig(steps=0, device="cpu", precision="fp32", eval_examples=4)
        run = RunConfig(recipe="boats", task=task, model=model, train=train)
        write_run(run, LoopedTransformer(model), Path("run"))
        other = recipe("edit-distance-small")
        sizes = {"vocab_size": 40, "output_size": 40, "max_seq_len": 200}
        small = dataclasses.replace(other.model, d_model=16, num_heads=2, **sizes)
        write_run(dataclasses.replace(other, model=small, train=train), LoopedTransformer(small), Path("distance"))
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def looped(words: str) -> int:
    return main(shlex.split(words))


def test_a_run_becomes_a_folder_of_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "boats"
    assert looped(f"export run --to hf --out {out} --num-loops 2 --license mit --push me/boats --dry-run") == 0
    printed = capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert names == {"README.md", "config.json", "generation_config.json", "model.safetensors", "modeling_looped.py",
                     "tokenizer.json", "tokenizer_config.json"}  # fmt: skip
    assert all(f"{path.stat().st_size:,}  {path.name}" in printed for path in out.iterdir())
    assert "me/boats: nothing was uploaded" in printed
    config, generation = (json.loads((out / name).read_text()) for name in ("config.json", "generation_config.json"))
    assert (config["num_loops"], generation["num_loops"]) == (3, 2)
    assert config["eos_token_id"] == generation["eos_token_id"] == ByteTokenizer.end
    card = (out / "README.md").read_text()
    assert "license: mit" in card
    assert "- recipe: boats" in card


def test_a_run_becomes_a_folder_of_weights(tmp_path: Path):
    assert looped(f"export run --to safetensors --out {tmp_path}/plain") == 0
    model = LoopedTransformer.load(tmp_path / "plain")
    original = LoopedTransformer(model.config)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), original.parameters(), strict=True))
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "plain/tokenizer.json"))
    assert tokenizer.encode("é b").ids == ByteTokenizer().encode(["é b"])[0]
    assert looped(f"export distance --to safetensors --out {tmp_path}/other") == 0
    assert {path.name for path in (tmp_path / "other").iterdir()} == {"README.md", "model.json", "model.safetensors"}


@pytest.mark.parametrize(
    "settings", [{}, {"tie_embeddings": True}, {"core_tied": "attention"}, {"lora_rank": 2}], ids=str
)
def test_weights_are_in_the_file_once(settings: dict[str, Any], tmp_path: Path):
    for loops in (1, 4, 16):
        if loops == 1 and {"core_tied", "lora_rank"} & settings.keys():
            continue
        config = ModelConfig(**SIZES, d_model=64, core_layers=2, num_loops=loops, **settings)
        model = LoopedTransformer(config)
        size = sum(parameter.nbytes for parameter in model.parameters())
        for export in (export_hf, export_safetensors):
            file = export(model, tmp_path / f"{export.__name__}{loops}") / "model.safetensors"
            assert size < file.stat().st_size < 1.1 * size, (export.__name__, loops)
            with safe_open(str(file), "pt") as opened:
                assert sum(opened.get_tensor(name).nbytes for name in opened.keys()) == size  # noqa: SIM118


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run --to hf --out run", "--out='run': expected a new folder"),
        ("run --to safetensors --out text.txt", "--out='text.txt': expected a new folder"),
        ("run --to onnx --out text.txt", "or a new file for onnx and torch"),
        ("run --to hf --out new --int8", "--int8: has no effect with --to hf; it is for onnx"),
        ("run --to safetensors --out new --num-loops 0", "--num-loops: has no effect with --to safetensors"),
        ("run --to hf --out new --num-loops 0", "num_loops=0: expected at least 1"),
        ("run --to torch --out new --num-loops 0", "num_loops=0: expected at least 1"),
        ("run --to onnx --out new --num-loops 0", "num_loops=0: expected at least 1"),
        ("run --to onnx --out new --push a/b", "--push: has no effect with --to onnx; it is for hf, safetensors"),
        ("run --to hf --out new --dry-run", "--dry-run=True: expected --push beside it"),
        ("distance --to hf --out new", "distance: task edit_distance: expected a causal language model of text"),
        ("nothing --to hf --out new", "nothing: not a run folder (no config.json)"),
        ("run --to gguf --out new", "--to"),
    ],
)
def test_mistakes_are_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]):
    assert looped(f"export {words}") == 2
    error = capsys.readouterr().err
    assert error.startswith("looped: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not Path("new").exists()


def test_a_folder_goes_to_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    out = export_safetensors(LoopedTransformer(ModelConfig(**SIZES, d_model=16)), tmp_path / "folder")
    with running_hub() as hub:
        assert push(out, "me/folder", endpoint=hub.address).startswith(f"{hub.address}/me/folder/commit/")
        assert hub.private == {"me/folder": True}
        assert hub.files["me/folder"] == {path.name: path.read_bytes() for path in out.iterdir()}
        assert hub.tokens == {"Bearer hf_secret"}
        push(out, "me/open", private=False, endpoint=hub.address)
        assert hub.private["me/open"] is False
        with pytest.raises(ValueError, match=r"^--push me/refused: .*403.*$"):
            push(out, "me/refused", endpoint=hub.address)
    for name, endpoint in (("a/b/c", None), ("me/folder", hub.address)):
        with pytest.raises(ValueError, match=f"^--push {name}: .+"):
            push(out, name, endpoint=endpoint)


def test_what_cannot_be_exported(tmp_path: Path):
    for settings, message in (
        ({"causal": False}, "causal=False: expected True"),
        ({"inputs": "vectors", "vocab_size": None, "input_dim": 3}, "inputs='vectors': expected tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            export_hf(LoopedTransformer(ModelConfig(**{**SIZES, "d_model": 16, **settings})), tmp_path / "new")
    small = LoopedTransformer(ModelConfig(**{**SIZES, "vocab_size": 100, "output_size": 100}, d_model=16))
    with pytest.raises(ValueError, match="tokenizer='257 tokens': expected at most the 100 of the model"):
        export_hf(small, tmp_path / "new", tokenizer=ByteTokenizer())
    for export in (export_hf, export_safetensors):
        with pytest.raises(ValueError, match="tokenizer: a dict"):
            export(small, tmp_path / "new", tokenizer={})
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").write_text("mine")
    for export, folder in ((export_hf, tmp_path), (export_safetensors, tmp_path / "mine")):
        with pytest.raises(ValueError, match=f"{folder.name}: exists already; expected a new folder"):
            export(small, folder)
    assert (tmp_path / "mine").read_text() == "mine"
