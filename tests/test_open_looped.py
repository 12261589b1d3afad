"""`looped open` on looped models: depth sweeps, exits, the logit lens and texts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from pretrained.looped_references import huginn_config, huginn_weights, ouro_config, ouro_weights
from safetensors.torch import save_file

from looped import Sampling, generate, load_run, parse_rule
from looped.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")
TOKENS, LENGTH = 270, 32
SIZES = {"vocab_size": TOKENS, "padded_vocab_size": TOKENS, "max_position_embeddings": LENGTH, "block_size": LENGTH}


def written(
    settings: dict[str, Any], weights: Callable[[dict[str, Any], int], dict[str, torch.Tensor]]
) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tensors = {name: weight.detach().float() for name, weight in weights(settings | SIZES, 0).items()}
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(settings | SIZES))

    return write


def hrm_text(folder: Path) -> None:
    torch.manual_seed(0)
    config = transformers.HrmTextConfig(
        vocab_size=TOKENS, hidden_size=16, intermediate_size=19, num_hidden_layers=1, num_attention_heads=2, head_dim=8,
        max_position_embeddings=LENGTH, L_cycles=2, initializer_range=0.3, pad_token_id=None,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def albert(folder: Path) -> None:
    config = transformers.AlbertConfig(
        vocab_size=TOKENS, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=LENGTH,
    )  # fmt: skip
    transformers.AlbertForMaskedLM(config).save_pretrained(folder)


SOURCES = {
    "ouro": written(ouro_config(1) | {"num_hidden_layers": 2}, ouro_weights),
    "huginn": written(huginn_config(1), huginn_weights),
    "hrm_text": hrm_text,
    "albert": albert,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    text = "\n\n".join(f"{n} men and {n + 1} boats" for n in range(200))
    (folder / "text.txt").write_text(text)
    bpe = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator([text], TOKENS, special_tokens=["<|endoftext|>"], show_progress=False)
    for name, write in SOURCES.items():
        (folder / "sources" / name).mkdir(parents=True)
        write(folder / "sources" / name)
        bpe.save(str(folder / "sources" / name / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("family", ["ouro", "huginn", "hrm_text"])
def test_commands_read_a_looped_model(home, family, monkeypatch, capsys):
    monkeypatch.chdir(home)

    def printed(words: str) -> str:
        assert main(words.split()) == 0, words
        return capsys.readouterr().out

    assert "note: it" in printed(f"open sources/{family} --out {family} --text text.txt --context 16 --examples 4")
    _, model, _ = load_run(Path(family))
    assert model.num_loops > 1
    table = printed(f"evaluate {family} --loops 1 2 5 --exit-rule kl:0.3 --examples 4")
    assert "5 loops" in table
    rows = [json.loads(row) for row in Path(family, "eval.jsonl").read_text().splitlines()]
    by_loops = {
        row["num_loops"]: row["value"] for row in rows if row["metric"] == "perplexity" and "exit_rule" not in row
    }
    assert len({*by_loops.values()}) == 3
    assert "recommended" in printed(f"calibrate {family} --loops 1 3 --examples 4")
    options = {"max_new_tokens": 6, "sampling": Sampling(temperature=0.0), "vocab_size": TOKENS}
    prompt = torch.tensor([20, 30, 40])
    texts = [
        generate(model, [prompt], num_loops=n, exit_rule=rule, **options)
        for n in (1, 4)
        for rule in (None, parse_rule("change:0.3"))
    ]
    assert len({str(text) for text in texts}) > 1
    first = printed(f"generate {family} --prompt men --tokens 5 --temperature 0 --num-loops 3 --exit-rule none")
    assert first.startswith("men")
    if family == "hrm_text":
        words = f"generate {family} --prompt men --tokens 5 --temperature 0 --num-loops 3 --exit-rule none --prefix"
        assert printed(words).startswith("men")


def test_the_logit_lens_goes_over_loops_and_layers(home, monkeypatch):
    monkeypatch.chdir(home)
    assert (
        main(["open", "sources/ouro", "--out", "lens", "--text", "text.txt", "--context", "16", "--examples", "4"]) == 0
    )
    assert main(["inspect", "lens", "--examples", "2", "--loops", "3"]) == 0
    found = json.loads(Path("lens/inspect/inspect.json").read_text())
    assert len(found["answers"]["target"]) == 3
    assert len(found["layers"]["target"]) == 2
    assert "Answers by layer" in Path("lens/inspect/report.md").read_text()


def test_an_encoder_cannot_continue_texts(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    assert main(["open", "sources/albert", "--out", "albert", "--text", "text.txt"]) == 2
    assert "expected a causal model, because it fills in masked tokens" in capsys.readouterr().err
    assert not Path("albert").exists()
