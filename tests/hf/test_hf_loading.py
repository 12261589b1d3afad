"""Configurations and files: what is saved is what is loaded, and one value decides."""

import dataclasses
import json
from typing import Any

import pytest
import torch
from hf.hf_cases import TINY, built, natively, tokens
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    LlamaConfig,
)

from looped.config import ModelConfig
from looped.hf import LoopedConfig, LoopedForCausalLM, to_hf
from looped.models import LoopedTransformer

pytestmark = pytest.mark.usefixtures("one_thread", "untyped")
IDS = tokens(2, 6)
VARIANTS = {
    "tied": TINY,
    "untied": dataclasses.replace(TINY, tie_embeddings=False, positions="learned", bias=True),
    "sinusoidal": dataclasses.replace(TINY, positions="sinusoidal", modulation="additive"),
    "scale_gate": dataclasses.replace(TINY, modulation="scale_gate", gate_offset=1),
    "table": dataclasses.replace(TINY, modulation="table", max_loops=4, positions="sinusoidal"),
    "rezero": dataclasses.replace(TINY, modulation="rezero", input_injection="concat", loop_norm=True),
    "low_rank": dataclasses.replace(TINY, lora_rank=2),
    "shared_attention": dataclasses.replace(TINY, core_tied="attention", tie_embeddings=False),
    "halting": dataclasses.replace(TINY, halting="act", cache="first", activation="swiglu", norm="layer"),
    "two_states": dataclasses.replace(TINY, coda_layers=0, inner_loops=2, input_injection="add"),
    "factorised": dataclasses.replace(TINY, embedding_dim=8, norm_place="after", norm="layer"),
}


def read(folder, **options) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, **options)


@torch.no_grad()
def logits(model, **options) -> torch.Tensor:
    return model(IDS, **options).logits


@pytest.mark.parametrize("name", VARIANTS)
def test_a_saved_model_is_loaded_bit_for_bit(name: str, tmp_path):
    """transformers builds models on `meta`; what no file holds, such as sinusoids, must be computed again."""
    native = built(VARIANTS[name])
    to_hf(native).save_pretrained(tmp_path)
    model = read(tmp_path)
    assert torch.equal(logits(model), logits(native))
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in native.parameters())
    assert not model.training


def test_initial_weights_are_those_of_looped_and_leave_the_random_state_alone():
    state = torch.get_rng_state()
    for seed in (0, 3):
        model = LoopedForCausalLM(LoopedConfig.from_model(TINY), seed=seed).eval()
        assert torch.equal(logits(model), logits(LoopedTransformer(TINY, seed=seed).eval()))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_native_model_that_was_built_on_meta_computes_the_same(tmp_path):
    native = built(dataclasses.replace(VARIANTS["table"], tie_embeddings=False))
    native.save(tmp_path)
    with torch.device("meta"):
        model = LoopedTransformer(native.config)
    model = model.to_empty(device="cpu").eval()
    for buffer in model.buffers():
        buffer.fill_(torch.nan)
    model.load_weights(tmp_path)
    assert torch.equal(logits(model), logits(native))


def test_the_number_of_loops_has_one_truth(tmp_path):
    """The call, else generation_config, else config; each is kept by a reload."""
    native = built(VARIANTS["scale_gate"], seed=2)
    to_hf(native).save_pretrained(tmp_path)
    prompt, seen = IDS[:1], set()
    texts = [natively(native, list(prompt), 6, num_loops=loops)[0] for loops in range(1, 6)]
    assert len({*map(str, texts)}) == 5

    def written(model, **options) -> int:
        text = model.generate(prompt, max_new_tokens=6, do_sample=False, **options)[0, 6:].tolist()
        return 1 + texts.index(text)

    for loops in (3, 5):
        model = read(tmp_path, num_loops=loops)
        assert model.config.num_loops == loops
        assert torch.equal(logits(model), logits(native, num_loops=loops))
        assert torch.equal(logits(model, num_loops=2), logits(native, num_loops=2))
        assert written(model) == loops
        seen.add(str(logits(model)))
    assert len(seen) == 2
    model.generation_config.num_loops = 4
    model.save_pretrained(tmp_path)
    model = read(tmp_path)
    assert (model.generation_config.num_loops, model.config.num_loops) == (4, 5)
    assert written(model) == 4
    assert written(model, num_loops=1) == 1
    assert written(model, generation_config=GenerationConfig(num_loops=2)) == 2


def test_exit_rules_come_from_the_call_or_the_configuration_but_not_in_training(tmp_path):
    native = built(TINY)
    to_hf(native, exit_rule="change:0.5").save_pretrained(tmp_path)
    model = read(tmp_path, num_loops=6)
    found = model(IDS).loops_taken
    assert found.unique().numel() > 1
    assert model(IDS, exit_rule="none").loops_taken is None
    assert model(IDS, exit_rule="fixed:2").loops_taken.unique().tolist() == [2]
    assert model.train()(IDS).loops_taken is None
    with pytest.raises(ValueError, match="did you mean 'kl'"):
        read(tmp_path, exit_rule="klo:0.1")
    with pytest.raises(ValueError, match=r"exit_rule=act/token: expected a model with model.halting='act'"):
        read(tmp_path, exit_rule="act")
    with pytest.raises(ValueError, match=r"exit_rule='kl:0.1': expected a rule that needs no logits"):
        AutoModel.from_pretrained(tmp_path, exit_rule="kl:0.1")


@pytest.mark.parametrize(
    ("name", "most"), [("table", "config.num_loops=5: expected <= 4"), ("low_rank", "num_loops=5: expected at most 3")]
)
def test_loops_beyond_those_with_weights_are_refused(name: str, most: str, tmp_path):
    native = built(VARIANTS[name])
    to_hf(native).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=most):
        read(tmp_path, num_loops=5)
    model = read(tmp_path, num_loops=2)
    assert torch.equal(logits(model), logits(native, num_loops=2))
    with pytest.raises(ValueError, match="num_loops=5: expected at most"):
        model.generate(IDS, num_loops=5, max_new_tokens=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["sinusoidal", "scale_gate", "table", "untied"])
def test_half_precision(name: str, dtype: torch.dtype, tmp_path):
    native = built(VARIANTS[name])
    to_hf(native).save_pretrained(tmp_path)
    model = read(tmp_path, dtype=dtype)
    found = logits(model)
    assert found.dtype == model.dtype == dtype
    assert (found.float() - logits(native)).norm() < 0.1 * logits(native).norm()
    assert model.generate(IDS, max_new_tokens=3).shape == (2, 9)


@pytest.mark.parametrize("name", ["tied", "untied", "low_rank"])
def test_more_tokens_change_every_place_that_knows_their_number(name: str, tmp_path):
    model = to_hf(built(VARIANTS[name]))
    before = logits(model)
    model.resize_token_embeddings(30, mean_resizing=False)
    config = model.looped.config
    assert (model.config.vocab_size, config.vocab_size, config.output_size) == (30, 30, 30)
    assert (model.looped.head.weight is model.looped.embed.weight) == config.tie_embeddings
    assert torch.equal(logits(model)[..., :23], before)
    model.save_pretrained(tmp_path)
    again = read(tmp_path)
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("name", ["tied", "factorised"])
def test_a_language_model_becomes_a_base_model_and_a_classifier(name: str, tmp_path):
    native = built(VARIANTS[name])
    to_hf(native).save_pretrained(tmp_path / "lm")
    base = AutoModel.from_pretrained(tmp_path / "lm")
    with torch.no_grad():
        assert torch.equal(native.head(base(IDS).last_hidden_state), logits(native))
    base.save_pretrained(tmp_path / "base")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    classifier.save_pretrained(tmp_path / "classifier")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "classifier")
    assert torch.equal(logits(again), logits(classifier))
    assert logits(again).shape == (2, 3)
    assert not torch.equal(logits(again), logits(again, num_loops=1))
    with torch.no_grad():
        expected = classifier.score(base(IDS).last_hidden_state[:, -1])
    assert torch.equal(logits(classifier), expected)


def test_every_field_of_a_model_is_one_of_the_configuration(tmp_path):
    config = dataclasses.replace(TINY, positions="rotary", rope_factor=8.0, rope_bands=(0.5, 2.0, 8.0))
    LoopedConfig.from_model(config, eos_token_id=3).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {f.name for f in dataclasses.fields(ModelConfig)} <= saved.keys()
    found: Any = AutoConfig.from_pretrained(tmp_path, num_loops=7)
    assert isinstance(found, LoopedConfig)
    assert found.model_config() == dataclasses.replace(config, num_loops=7)
    names = ("hidden_size", "num_attention_heads", "max_position_embeddings", "tie_word_embeddings", "eos_token_id")
    assert [getattr(found, name) for name in names] == [16, 4, 40, True, 3]
    assert found.num_hidden_layers == 1 + 2 * 7 + 1
    assert LoopedConfig(hidden_size=32, num_attention_heads=2).d_model == 32


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_lops": 3}, r"num_lops=3: expected a known field \(did you mean 'num_loops'\?\)"),
        ({"num_hidden_layers": 3}, "num_hidden_layers=3: expected none"),
        ({"max_loops": 3}, "config.max_loops=3: has no effect"),
        ({"norm": "rmsnorm"}, "config.norm='rmsnorm': expected one of"),
        ({"d_model": "wide"}, "config.d_model='wide': expected int"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_impossible_configuration_says_why(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        LoopedConfig(**fields)


def test_other_settings_of_transformers_are_kept():
    """Such as those that `transformers` writes for others of its models."""
    assert {*LlamaConfig().to_dict()} - {"num_hidden_layers"}
    for key, value in LlamaConfig().to_dict().items():
        if key not in ("num_hidden_layers", "model_type") and key not in LoopedConfig.attribute_map:
            LoopedConfig(**{key: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"causal": False}, "causal=False: expected True"),
        ({"graph_heads": ("row",)}, "graph_heads=.*: expected none"),
        (
            {"inputs": "vectors", "vocab_size": None, "input_dim": 4, "tie_embeddings": False},
            "inputs='vectors': expected tokens",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_models_that_write_no_text_are_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        to_hf(LoopedTransformer(dataclasses.replace(TINY, **changes)))


def test_kernels_and_arguments_that_do_not_exist_are_refused(tmp_path):
    to_hf(built(TINY)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="scaled_dot_product_attention"):
        read(tmp_path, attn_implementation="sdpa")
    with pytest.raises(TypeError, match="num_lops"):
        read(tmp_path, num_lops=3)
