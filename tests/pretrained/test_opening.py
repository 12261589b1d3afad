"""Sources that open: files, types, names of the hub. Everything else is refused in one line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from benchmarks.parity import difference, random_model
from looped.pretrained import open_model
from looped.pretrained.end_of_text import end_of_text


def saved(folder: Path, family: str = "llama", seed: int = 0, config: dict | None = None, **settings) -> Path:
    """A tiny model in a folder. `config` changes its config.json afterwards."""
    random_model(family, seed, **settings).save_pretrained(folder)
    change_config(folder, config or {})
    return folder


def change_config(folder: Path, changes: dict) -> None:
    file = folder / "config.json"
    given = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in given.items() if value != "REMOVED"}))


def change_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def message(folder: Path | str) -> str:
    """The one line that says why a model cannot be opened."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the callers read the message
        open_model(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Files


def test_sharded_files_equal_one_file(tmp_path):
    model = random_model("qwen2", 0)
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 1
    one, many = (open_model(tmp_path / name).model.state_dict() for name in ("one", "many"))
    assert all(torch.equal(many[name], weight) for name, weight in one.items())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_file_without_the_prefix_or_with_a_tied_output_and_old_buffers(family, tmp_path):
    folder = saved(tmp_path, family, seed=2, tie_word_embeddings=True)
    wanted = open_model(folder).model.state_dict()

    def older(tensors):
        prefix = "transformer." if family == "gpt2" else "model."
        for name in list(tensors):
            tensors[name.removeprefix(prefix)] = tensors.pop(name)
        tensors["lm_head.weight"] = tensors["wte.weight" if family == "gpt2" else "embed_tokens.weight"].clone()
        tensors["h.0.attn.bias" if family == "gpt2" else "layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)

    change_tensors(folder, older)
    found = open_model(folder).model.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())
    change_tensors(folder, lambda tensors: tensors["lm_head.weight"].mul_(2))
    assert "lm_head.weight is not the embedding" in message(folder)


def test_settings_of_older_versions(tmp_path):
    rope = {"rope_type": "llama3", "rope_theta": 3e4, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 16
    new = open_model(saved(tmp_path / "new", seed=1, rope_parameters=rope)).model.config
    assert (new.rope_theta, new.rope_factor, new.rope_bands) == (3e4, 4.0, (1.0, 4.0, 16.0))
    older = {name: value for name, value in rope.items() if name not in ("rope_type", "rope_theta")}
    changes = {"rope_parameters": "REMOVED", "rope_theta": 3e4, "rope_scaling": {"type": "llama3", **older}}
    old = open_model(saved(tmp_path / "old", seed=1, config=changes)).model.config
    assert old == new
    plain = {"rope_parameters": "REMOVED", "num_key_value_heads": "REMOVED", "rope_scaling": None}
    mha = saved(tmp_path / "mha", seed=1, num_key_value_heads=new.num_heads, config=plain)
    assert open_model(mha).model.config.rope_theta == 10_000
    assert open_model(mha).model.config.kv_heads == new.num_heads


def test_types(tmp_path):
    random_model("llama", 0).to(torch.bfloat16).save_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    wide, narrow = open_model(tmp_path).model, open_model(tmp_path, dtype=torch.bfloat16).model
    assert {w.dtype for w in wide.parameters()} == {torch.float32}
    assert {w.dtype for w in narrow.parameters()} == {torch.bfloat16}
    tokens = torch.randint(theirs.config.vocab_size, (2, 9))
    assert difference(wide(tokens).logits, theirs(tokens).logits) < 1e-5
    assert 1e-5 < difference(narrow(tokens).logits.float(), wide(tokens).logits) < 0.1


def test_a_name_in_the_cache_of_the_hub_without_the_package_transformers(tmp_path):
    revision = "0123456789012345678901234567890123456789"
    repository = tmp_path / "hub" / "models--someone--tiny"
    saved(repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(revision)
    script = (
        "import sys; sys.modules['transformers'] = None; from looped.pretrained import open_model\n"
        "print(open_model('someone/tiny').family)"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout == "llama\n", done.stderr


MEMORY = """
import re, sys
from pathlib import Path
from looped.pretrained import open_model

def peak():  # unlike ru_maxrss, not that of the parent process
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

open_model(sys.argv[1])
before = peak()
model = open_model(sys.argv[2]).model
print((peak() - before) / sum(weight.nbytes for weight in model.parameters()))
"""


@pytest.mark.parametrize("vocab", [300, 70_000])
def test_the_peak_of_memory_is_little_more_than_the_weights(vocab, tmp_path):
    """A small model first, whose peak holds the libraries. An embedding is a small part of the large one, or most."""
    small = saved(tmp_path / "small")
    config = transformers.LlamaConfig(
        vocab_size=vocab,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=3 if vocab > 1000 else 20,
        num_attention_heads=6,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    config.save_pretrained(tmp_path / "large")
    tensors = {name: torch.ones(weight.shape) for name, weight in model.named_parameters()}
    save_file(tensors, tmp_path / "large/model.safetensors")
    assert sum(tensor.nbytes for tensor in tensors.values()) > 100e6
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(small), str(tmp_path / "large")], capture_output=True, text=True, check=True
    )
    assert 0.9 < float(done.stdout) < 1.3


# Refusals


@pytest.mark.parametrize(
    ("family", "config", "words"),
    [
        ("llama", {"model_type": "phi"}, "model_type='phi': its attention and feed-forward layer work side by side"),
        ("llama", {"model_type": "mixtral"}, "choose between experts"),
        ("llama", {"model_type": "smollm3"}, "no rotary positions"),
        ("llama", {"model_type": "gemma3_text"}, "sliding window"),
        ("llama", {"model_type": "bert"}, "model_type='bert': an unknown type; expected one of llama, mistral"),
        ("llama", {"model_type": "REMOVED"}, "config.json: no model_type"),
        ("llama", {"hidden_size": "REMOVED"}, "config.json: no hidden_size"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu': expected silu"),
        ("llama", {"attention_bias": True}, "attention_bias=True: expected false"),
        ("llama", {"mlp_bias": True}, "mlp_bias=True: expected false"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2}}, "rope_type='yarn': expected default"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2}}, "rope_type='dynamic'"),
        ("llama", {"rope_parameters": {"rope_type": "linear"}}, "config.json: no factor"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5: expected 1"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"num_attention_heads": 7}, "num_"),
        ("llama", {"vocab_size": -3}, "vocab_size=-3"),
        ("llama", {"hidden_size": "64"}, "a setting has another type than expected"),
        ("llama", {"rms_norm_eps": None}, "a setting has another type than expected"),
        ("llama", {"rope_parameters": "linear"}, "a setting has another type than expected"),
        ("mistral", {"sliding_window": 8}, "sliding_window=8: expected at least max_position_embeddings=40"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "sliding_window=8"),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "sliding_window=8"),
        ("qwen3", {"attention_bias": True}, "attention_bias=True"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=False"),
        ("gpt2", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ("gpt2", {"activation_function": "tanh"}, "activation_function='tanh': expected one of gelu"),
    ],
)
def test_a_configuration_that_we_cannot_loop(family, config, words, tmp_path):
    found = message(saved(tmp_path, family, config=config))
    assert words in found
    assert str(tmp_path / "config.json") in found


def test_a_window_that_never_binds_opens(tmp_path):
    windows = {"use_sliding_window": True, "sliding_window": 8}
    assert open_model(saved(tmp_path / "a", "qwen2", config=windows | {"max_window_layers": 28})).family == "qwen2"
    assert open_model(saved(tmp_path / "b", "mistral", config={"sliding_window": 40})).family == "mistral"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model.norm.weight"), "no tensor model.norm.weight"),
        (lambda t: t.update(extra=torch.ones(2)), "unexpected tensor extra"),
        (lambda t: t.update({"a": torch.ones(2), "b": torch.ones(2)}), "unexpected tensor a and 1 other"),
        (lambda t: t.update({"model.norm.weight": torch.ones(3)}), "model.norm.weight is (3,)"),
        (
            lambda t: t.update({"model.layers.0.self_attn.k_proj.weight": torch.ones(2, 2)}),
            "model.layers.0.self_attn.k_proj.weight is (2, 2)",
        ),
        (lambda t: t["model.norm.weight"].fill_(float("nan")), "tensor model.norm.weight: holds NaN"),
        (lambda t: t["model.embed_tokens.weight"][5].fill_(float("inf")), "tensor model.embed_tokens.weight: holds"),
        (lambda t: t.update({"model.norm.weight": t["model.norm.weight"].to(torch.int8)}), "of type int8"),
    ],
)
def test_tensors_that_do_not_fit(change, words, tmp_path):
    folder = saved(tmp_path)
    change_tensors(folder, change)
    found = message(folder)
    assert words in found
    assert str(folder) in found


def test_files_that_are_missing_or_damaged(tmp_path):
    folder = saved(tmp_path / "model")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    assert "cut short or damaged" in message(folder)
    weights.rename(folder / "pytorch_model.bin")
    assert "unpickling a file can run any code in it; expected model.safetensors" in message(folder)
    (folder / "pytorch_model.bin").unlink()
    assert "no weights; expected model.safetensors" in message(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../secret"}}))
    assert "expected a weight_map" in message(folder)
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "absent.safetensors"}}))
    assert "absent.safetensors: no such file" in message(folder)
    (folder / "config.json").unlink()
    assert "config.json: no such file" in message(folder)
    assert re.match("/no/such/folder: no such folder", message("/no/such/folder"))


def test_the_end_of_text(tmp_path):
    tokenizer, settings = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    tokenizer.write_text(json.dumps({"model": {"vocab": {"a": 0, "</s>": 1}}, "added_tokens": []}))
    with pytest.raises(ValueError, match="no end of text"):
        end_of_text(tokenizer)
    for end in ("</s>", {"content": "</s>", "special": True}):
        settings.write_text(json.dumps({"eos_token": end}))
        assert end_of_text(tokenizer) == "</s>"
    added = [{"content": "<|endoftext|>", "id": 1}]
    tokenizer.write_text(json.dumps({"model": {"vocab": {"a": 0}}, "added_tokens": added}))
    assert end_of_text(tokenizer) == "<|endoftext|>"
