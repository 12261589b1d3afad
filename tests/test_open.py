"""`looped open`: a foreign model becomes a run folder, on which the other commands work."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers

from benchmarks.parity import random_model
from looped import load_run
from looped.cli import main
from looped.models import Sampling, generate
from looped.run_data import task_with_data

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "nine", "red", "hats", "near", "some", "old", "trees"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The working folder: a text, a folder as `save_pretrained` of transformers writes it, and two opened runs."""
    folder = tmp_path_factory.mktemp("work")
    drawn = torch.randint(len(WORDS), (400, 12), generator=torch.Generator().manual_seed(0)).tolist()
    text = "\n\n".join(" ".join(WORDS[i] for i in row) for row in drawn)
    (folder / "text.txt").write_text(text)
    bpe = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator([text], 280, special_tokens=["<s>", "</s>"], show_progress=False)
    theirs(bpe.get_vocab_size() + 3).save_pretrained(folder / "source")
    bpe.save(str(folder / "source/tokenizer.json"))
    settings = {"eos_token": {"content": "</s>"}, "bos_token": "<s>"}
    (folder / "source/tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def theirs(vocab: int) -> Any:
    return random_model("llama", 3, vocab_size=vocab, max_position_embeddings=64)


def looped(folder: Path, words: str, code: int = 0) -> str:
    """The output of a command that runs in the working folder."""
    output = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        patch.chdir(folder)
        found = main(words.split())
    assert found == code, output.getvalue()
    return output.getvalue()


@pytest.fixture(scope="module")
def opened(folder) -> str:
    return looped(folder, "open source --out with --text text.txt --context 32")


@pytest.fixture(scope="module")
def without(folder) -> str:
    return looped(folder, "open source --out without")


def test_the_run_is_the_model(folder, opened):
    run, model, step = load_run(folder / "with")
    assert (run.recipe, run.train.steps, step) == ("llama", 0, 0)
    other = theirs(model.embed.num_embeddings)
    tokens = torch.randint(model.embed.num_embeddings, (2, 30))
    torch.testing.assert_close(model(tokens).logits, other(tokens).logits, rtol=1e-4, atol=1e-4)
    size = sum(weight.numel() for weight in other.parameters())
    assert f"with: llama, {other.config.num_hidden_layers} layers of width {other.config.hidden_size}, " in opened
    assert f"{model.config.vocab_size} tokens, at most 64 positions, {size:,} parameters" in opened


def test_the_perplexity_is_that_of_the_text(folder, opened):
    run, model, _ = load_run(folder / "with")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        task = task_with_data(run, Path("with"))
    batch = task.batch("validation", 0, 16, seed=0)
    nats = torch.nn.functional.cross_entropy(model(batch.inputs).logits.flatten(0, 1), batch.targets.flatten())
    assert f"validation perplexity {float(nats.detach().exp()):.2f}" in opened
    assert batch.inputs.shape == (16, 32)
    end = tokenizers.Tokenizer.from_file(str(folder / "source/tokenizer.json")).token_to_id("</s>")
    assert task.tokenizer is not None
    assert task.tokenizer.end == end
    assert (batch.inputs == end).any()


def test_commands_read_it(folder, opened):
    assert "sliding" in looped(folder, "evaluate with --loops 1 2 --examples 4")
    assert "recommended" in looped(folder, "calibrate with --loops 1 2 --examples 4")
    assert "inspect" in looped(folder, "inspect with --examples 2 --loops 2")
    assert looped(folder, "show with")
    looped(folder, "report with --out report")
    assert (folder / "report/report.md").is_file()
    (folder / "source").rename(folder / "elsewhere")  # the run has a tokenizer of its own
    try:
        assert looped(folder, "generate with --prompt the --tokens 5")
        assert looped(folder, "evaluate with --loops 1 --examples 4 --groups sliding")
    finally:
        (folder / "elsewhere").rename(folder / "source")


def test_training_goes_on(folder, opened):
    words = opened.partition("continue with: looped ")[2].strip()
    assert words == "train --from with --train.steps STEPS"
    words = words.replace("STEPS", "30") + " --train.eval-every 30 --train.workers 0 --train.device cpu --out more"
    assert "30 steps" in looped(folder, words)
    before, after = (json.loads((folder / run / "best.json").read_text())["value"] for run in ("with", "more"))
    assert after < 0.9 * before


def test_without_a_text_it_generates(folder, without):
    assert "`looped generate` works; evaluate, calibrate, inspect and train need a text" in without
    _, model, _ = load_run(folder / "without")
    written = looped(folder, "generate without --prompt the --tokens 6 --temperature 0")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "source/tokenizer.json"))
    prompt = [tokenizer.token_to_id("</s>"), *tokenizer.encode("the").ids]
    tokens = generate(model, [torch.tensor(prompt)], max_new_tokens=6, sampling=Sampling(temperature=0.0))[0]
    assert tokenizer.decode(tokens) in written
    for command in ("evaluate", "calibrate", "inspect"):
        assert "without: names no data in its settings" in looped(folder, f"{command} without", code=2)
    looped(folder, "show without")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--out with --text text.txt", "already holds a run"),
        ("--out new --context 65", "context=65: expected at most 64"),
        ("--out new --text none.txt", "none.txt"),
        ("--out new --examples 0", "examples=0"),
    ],
)
def test_mistakes_leave_nothing(folder, opened, words, message):
    assert message in looped(folder, f"open source {words}", code=2)
    assert not (folder / "new").exists()


def test_tokenizers_that_do_not_fit(folder):
    broken = folder / "broken"
    shutil.copytree(folder / "source", broken)
    larger = tokenizers.Tokenizer.from_file(str(broken / "tokenizer.json"))
    larger.add_tokens([f"<{i}>" for i in range(10)])
    larger.save(str(broken / "tokenizer.json"))
    found = looped(folder, "open broken --out new", code=2)
    most = json.loads((broken / "config.json").read_text())["vocab_size"]
    assert f"broken/tokenizer.json: has {most + 7} tokens; expected at most {most}" in found
    (broken / "tokenizer_config.json").write_text("{}")
    assert "no end of text; expected <|endoftext|>" in looped(folder, "open broken --out new", code=2)
    (broken / "tokenizer.json").unlink()
    assert "broken: no tokenizer that we can read" in looped(folder, "open broken --out new", code=2)
    assert not (folder / "new").exists()


def test_a_model_that_is_not_causal(folder, tmp_path):
    config = transformers.AlbertConfig(
        vocab_size=60, hidden_size=16, embedding_size=8, num_attention_heads=2, intermediate_size=20,
        max_position_embeddings=16, num_hidden_layers=2,
    )  # fmt: skip
    transformers.AlbertForMaskedLM(config).save_pretrained(tmp_path / "albert")
    assert "expected a causal model, because it fills in masked" in looped(tmp_path, "open albert --out new", code=2)
