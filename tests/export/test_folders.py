"""The folder for transformers: loaded in a process without this package, it computes what the model computes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import TINY, build

from looped import LoopedTransformer, Sampling, generate, parse_rule
from looped.config import ModelConfig
from looped.export import export_hf
from looped.tasks.text.tokenizer import END_TOKEN, BPETokenizer, ByteTokenizer, trained_bpe

LOADER = Path(__file__).with_name("load_folders.py")
PROMPTS = [[5, 3, 9, 1, 7, 2], [4, 4], [8, 1, 6, 3]]
TEXTS = ["A ship, a man", "é\n名前", "<|endoftext|> is a name"]


def language_model(**settings: Any) -> ModelConfig:
    sizes = {"causal": True, "vocab_size": 300, "output_size": 300, "max_seq_len": 32, "num_loops": 4}
    return dataclasses.replace(TINY, **{**sizes, **settings})


CASES = {
    "act": language_model(halting="act", input_injection="add"),
    "gate": language_model(halting="gate", loop_norm=True, norm_place="before_branch", positions="rotary"),
    "injection": language_model(
        input_injection="concat", norm="layer", bias=True, activation="swiglu", positions="sinusoidal",
        positions_every_loop=True, coda_layers=1,
    ),
    "llama": language_model(
        positions="rotary", num_heads=4, num_kv_heads=2, rope_theta=500.0, qk_norm="head", activation="swiglu",
        modulation="rezero", core_layers=2, initialisation_depth=3,
    ),
    "lora": language_model(lora_rank=2, bias=True),
    "scale_gate": language_model(
        modulation="scale_gate", timestep="both", gate_offset=1, prelude_layers=1, coda_layers=1, tie_embeddings=True,
        positions="rotary",
    ),
    "table": language_model(modulation="table", max_loops=9, cache="first", cache_loops=2),
}  # fmt: skip
TOKENIZERS = {
    "scale_gate": ByteTokenizer(),
    "table": BPETokenizer(trained_bpe(["A ship, a man, a ship"] * 9, 280), END_TOKEN, "trained"),
}


def model_of(name: str) -> LoopedTransformer:
    return build(CASES[name]).float().eval()


def rule_of(name: str) -> str:
    """An exit rule that the model can have."""
    return {"act": "act/token", "gate": "gate:0.6/token", "table": "kl:1.0/token", "injection": "change:1.2/token"}.get(
        name, "change:0.6/token"
    )


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """The prompts with padding on the left, and where they are real."""
    longest = max(map(len, PROMPTS))
    rows = [[0] * (longest - len(prompt)) + prompt for prompt in PROMPTS]
    real = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS]
    return torch.tensor(rows), torch.tensor(real)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """For each case, what a process without this package computed with its folder."""
    root = tmp_path_factory.mktemp("folders")
    ids, mask = padded()
    for name in CASES:
        export_hf(model_of(name), root / name, tokenizer=TOKENIZERS.get(name), begins_with_end=True)
        given = {"ids": ids.tolist(), "mask": mask.tolist(), "texts": TEXTS, "rule": rule_of(name)}
        (root / f"{name}.json").write_text(json.dumps(given))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", str(LOADER), str(root)], capture_output=True, text=True, timeout=300, cwd=root,
        env={**environment, "HF_HOME": str(root / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CASES)
def test_logits_and_texts_are_those_of_the_model(name: str, loaded: dict[str, Any]):
    found, model = loaded[name], model_of(name)
    ids, mask = padded()
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    def logits(**options: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(ids, attention_mask=mask, positions=positions, **options).logits

    def texts(**options: Any) -> list[list[int]]:
        """Texts that end with the end of text, and are then padded with it; no token that the tokenizer lacks."""
        if name in TOKENIZERS:
            options |= {"vocab_size": TOKENIZERS[name].vocab_size, "stop": {TOKENIZERS[name].end}}
        prompts = [torch.tensor(prompt) for prompt in PROMPTS]
        made = generate(model, prompts, max_new_tokens=8, sampling=Sampling(temperature=0.0), **options)
        longest = max(map(len, made))
        return [text + [TOKENIZERS[name].end] * (longest - len(text)) if len(text) < longest else text for text in made]

    def same(key: str, expected: torch.Tensor) -> bool:
        return torch.allclose(torch.tensor(found[key])[mask == 1], expected[mask == 1], rtol=0, atol=1e-6)

    assert same("logits", logits())
    assert same("logits again", logits())
    assert same("logits of 2 loops", logits(num_loops=2))
    assert same("logits of 2 loops at load", logits(num_loops=2))
    assert not same("logits of 2 loops", logits())
    assert found["texts"] == found["texts again"] == found["texts without cache"] == texts()
    assert found["texts of 1 loop"] == texts(num_loops=1)
    assert len({str(found[key]) for key in ("texts", "texts of 1 loop")}) == 2
    rule = parse_rule(rule_of(name))
    assert same("logits with a rule", logits(exit_rule=rule))
    assert same("logits", logits(exit_rule=rule)) == (name == "act"), "the rule changes nothing"
    assert found["texts with a rule"] == texts(exit_rule=rule)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_becomes_the_tokens_of_the_task(name: str, loaded: dict[str, Any]):
    tokenizer = TOKENIZERS[name]
    rows, masks = loaded[name]["tokens"]
    for text, row, mask in zip(TEXTS[:2], rows, masks, strict=False):
        ids = [tokenizer.end, *tokenizer.encode([text])[0]]
        assert row == [tokenizer.end] * (len(row) - len(ids)) + ids  # padding is on the left
        assert mask == [0] * (len(row) - len(ids)) + [1] * len(ids)
    assert loaded[name]["decoded"][:2] == TEXTS[:2]
    assert rows[2].count(tokenizer.end) > 1 + masks[2].count(0), "as with other models, the name is the token here"
