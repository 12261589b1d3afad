"""`looped loopify` on models that others trained: perplexity before and after, and the training after it."""

import json
import re
from pathlib import Path

import pytest
import tokenizers
import torch

from benchmarks.parity import random_model
from looped import load_run
from looped.cli import main

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "nine", "red", "hats", "near", "some", "old", "trees")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    drawn = torch.randint(len(WORDS), (400, 12), generator=torch.Generator().manual_seed(0)).tolist()
    file.write_text("\n\n".join(" ".join(WORDS[i] for i in row) for row in drawn))
    return file


def source(folder: Path, text: Path, family: str) -> Path:
    """A folder as `save_pretrained` of transformers writes it."""
    bpe = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator([text.read_text()], 280, special_tokens=["<|endoftext|>"], show_progress=False)
    random_model(family, 4, vocab_size=bpe.get_vocab_size(), max_position_embeddings=64).save_pretrained(folder)
    bpe.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gpt2"])
def test_a_pretrained_model_becomes_looped_and_goes_on(family, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = source(tmp_path / family, text, family)
    assert main(["loopify", str(folder), "--core", "1", "--out", "looped", "--text", str(text)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"layers 1-1 of \d, 2 loops, init=repeat", said)
    found = re.search(
        r"perplexity ([\d.]+) before, ([\d.]+) after, without training, on 1,024 scored tokens of 16", said
    )
    assert found
    config, model, _ = load_run(Path("looped"))
    assert config.task.context == 64  # pyright: ignore[reportAttributeAccessIssue]: of TextConfig
    theirs = random_model(family, 4, vocab_size=model.config.vocab_size, max_position_embeddings=64).eval()
    tokens = torch.randint(model.config.vocab_size or 0, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens, num_loops=1).logits, theirs(tokens).logits, rtol=1e-4, atol=1e-4)
        assert (model(tokens).logits - theirs(tokens).logits).abs().max() > 1e-3
    assert float(found[2]) == pytest.approx(json.loads(Path("looped/best.json").read_text())["value"], abs=1e-4)

    two = "--train.steps 2 --optim.warmup-steps 0 --train.batch-size 4 --train.eval-every 1 --train.eval-examples 4"
    assert main(["train", "--from", "looped", "--out", "trained", *two.split(), "--train.workers", "0"]) == 0
    before, after = (load_run(Path(name))[1] for name in ("looped", "trained"))
    assert after.config == before.config
    moved = [name for name, weight in after.named_parameters() if not torch.equal(weight, before.get_parameter(name))]
    assert any(name.startswith("prelude") for name in moved)
    assert any(name.startswith("core") for name in moved)
    assert main(["generate", "trained", "--prompt", "the cat", "--tokens", "3", "--num-loops", "3"]) == 0


def test_without_a_text_nothing_is_measured(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["loopify", str(source(tmp_path / "llama", text, "llama")), "--loops", "3", "--out", "looped"]) == 0
    assert "without --text: no perplexity is measured" in capsys.readouterr().out
    assert main(["generate", "looped", "--prompt", "the cat", "--tokens", "3"]) == 0
    assert not Path("looped/best.json").exists()


def test_mistakes_leave_nothing(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = source(tmp_path / "llama", text, "llama")
    capsys.readouterr()  # of transformers
    for words, message in (
        (["--core", "1-9"], "core='1-9': expected layers among 0-"),
        (["--init", "average", "--core", "1"], "loops=2: expected a divisor of the 1 layers 1-1 of the core"),
        (["--text", "none.txt"], "none.txt"),
    ):
        assert main(["loopify", str(folder), "--out", "looped", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not Path("looped").exists()
