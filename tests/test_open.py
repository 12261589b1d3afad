"""`looped open`: a foreign model becomes a run folder, on which the other commands work."""

import json
from pathlib import Path

import pytest
import tokenizers
import torch

from benchmarks.parity import random_model
from looped import load_run
from looped.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "nine", "red", "hats", "near", "some", "old", "trees"]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    drawn = torch.randint(len(WORDS), (400, 12), generator=torch.Generator().manual_seed(0)).tolist()
    file.write_text("\n\n".join(" ".join(WORDS[i] for i in row) for row in drawn))
    return file


@pytest.fixture(scope="module")
def source(tmp_path_factory, text) -> Path:
    """A folder as `save_pretrained` of transformers writes it."""
    folder = tmp_path_factory.mktemp("source") / "llama"
    bpe = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator([text.read_text()], 280, special_tokens=["<s>", "</s>"], show_progress=False)
    model = random_model("llama", 3, vocab_size=bpe.get_vocab_size() + 3, max_position_embeddings=64)
    model.save_pretrained(folder)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}, "bos_token": "<s>"}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, source, text) -> Path:
    folder = tmp_path_factory.mktemp("run")
    cache = folder / "prepared"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["open", str(source), "--out", "opened", "--text", str(text), "--context", "32"]) == 0
    assert cache.is_dir()
    return folder / "opened"


def answers(folder: Path, words: str, capsys) -> str:
    """What a command prints, with the working folder beside the run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(words.split()) == 0, words
    return capsys.readouterr().out


def test_the_run_is_the_model(run, source):
    config, model, step = load_run(run)
    assert (config.recipe, config.train.steps, step) == ("llama", 0, 0)
    theirs = random_model("llama", 3, vocab_size=model.config.vocab_size, max_position_embeddings=64)
    tokens = torch.randint(model.config.vocab_size, (2, 30))
    torch.testing.assert_close(model(tokens).logits, theirs(tokens).logits, rtol=1e-4, atol=1e-4)


def test_every_command_reads_it(run, capsys):
    beside = run.parent
    assert "sliding" in answers(beside, "evaluate opened --loops 1 2 --examples 4 --allow-outside", capsys)
    assert "recommended" in answers(beside, "calibrate opened --loops 1 2 --examples 4 --allow-outside", capsys)
    assert answers(beside, "inspect opened --examples 2 --loops 2 --allow-outside", capsys)
    assert answers(beside, "generate opened --prompt the --tokens 5", capsys)
    assert answers(beside, "show opened", capsys)
    assert answers(beside, "report opened --out report", capsys)
