"""GGUF files, beside how `transformers` reads them."""

import json
from pathlib import Path

import gguf
import pytest
import tokenizers
import torch
import transformers

from benchmarks.parity import difference, opened, random_model
from looped.pretrained import open_model
from looped.pretrained.end_of_text import end_of_text
from looped.pretrained.gguf_file import LAYER, OUTSIDE

TEXT = "A cat's 1234 hats, naïve or not:  two  spaces.\n"
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


def byte_tokenizer() -> tokenizers.Tokenizer:
    bpe = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator([TEXT * 9], 300, special_tokens=["<|endoftext|>", "<|im_end|>"], show_progress=False)
    return tokenizers.Tokenizer.from_str(bpe.to_str())


def write(path: Path, model, *, kind: str = "Q8_0", tensors: dict | None = None, pieces=(), **metadata) -> Path:
    """A tiny Llama as llama.cpp's converter writes it: queries and keys interleaved, matrices quantised."""
    config, tokenizer = model.config, byte_tokenizer()
    writer = gguf.GGUFWriter(str(path), metadata.pop("architecture", "llama"))
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    content = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(content["vocab"], key=content["vocab"].__getitem__)
    tokens += [f"[{i}]" for i in range(len(tokens), config.vocab_size)]
    if pieces:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces)
        writer.add_token_scores([-float(i) for i in range(len(pieces))])
        writer.add_token_types([2, 3, 3] + [6 if piece.startswith("<0x") else 1 for piece in pieces[3:]])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(metadata.pop("pre", "gpt-2"))
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
        writer.add_token_merges([" ".join(merge) for merge in content["merges"]])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
    for name, value in metadata.items():
        writer.add_uint32(f"llama.{name}", value)
    theirs = {**{v: k for k, v in OUTSIDE.items()}, **{v: k for k, v in LAYER.items()}}
    for name, weight in {**dict(model.named_parameters()), **(tensors or {})}.items():
        words = name.removesuffix(".weight").split(".")
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(words[-1])
        if heads:
            weight = weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        layer = words[1] == "layers" if len(words) > 1 else False
        short = theirs.get(".".join(words[3:] if layer else words), ".".join(words))
        array, quantised = weight.detach().numpy(), gguf.GGMLQuantizationType[kind if weight.ndim > 1 else "F32"]
        target = f"blk.{words[2]}.{short}.weight" if layer else f"{short}.weight"
        writer.add_tensor(target, gguf.quants.quantize(array, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tiny(seed: int = 0, **settings):
    rope = {"rope_type": "default", "rope_theta": 5e4}
    return random_model("llama", seed, vocab_size=320, rope_parameters=rope, rms_norm_eps=1e-5, **SIZES, **settings)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_transformers(kind, tied, tmp_path):
    model = tiny(tie_word_embeddings=tied)
    path = write(tmp_path / "tiny.gguf", model, kind=kind)
    found = open_model(path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    tokens = torch.randint(320, (2, 30))
    assert difference(found.model(tokens).logits, theirs(tokens).logits) < 1e-5
    loss = difference(found.model(tokens).logits, opened(model).model(tokens).logits)
    assert loss < 1e-5 if kind == "F32" else 1e-6 < loss < (0.05 if kind != "Q4_1" else 1)
    assert found.model.config.tie_embeddings == tied
    assert found.model.config.norm_epsilon == 1e-5


def test_the_tokenizer_is_that_of_the_file(tmp_path):
    wanted, ours = byte_tokenizer(), {}
    for pre in ("gpt-2", "smollm", "llama-bpe"):
        found = open_model(write(tmp_path / f"{pre}.gguf", tiny(), pre=pre)).tokenizer
        assert found is not None
        ours[pre] = tokenizers.Tokenizer.from_file(str(found))
        assert ours[pre].decode(ours[pre].encode(TEXT).ids) == TEXT
        assert ours[pre].encode("<|im_end|>").ids == [1]
        settings = json.loads(found.with_name("tokenizer_config.json").read_text())
        assert settings == {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    assert ours["gpt-2"].encode(TEXT).ids == wanted.encode(TEXT).ids
    cut = [ours[pre].pre_tokenizer.pre_tokenize_str("a 1234") for pre in ("gpt-2", "smollm", "llama-bpe")]
    assert [[word for word, _ in words] for words in cut] == [
        ["a", "Ġ1234"], ["a", "Ġ", "1", "2", "3", "4"], ["a", "Ġ", "123", "4"],
    ]  # fmt: skip
    assert open_model(write(tmp_path / "odd.gguf", tiny(), pre="unheard-of")).tokenizer is None


def test_a_sentencepiece_tokenizer(tmp_path):
    letters = sorted({*TEXT.replace(" ", "▁"), "▁"})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁A", "at", *letters]
    found = open_model(write(tmp_path / "tiny.gguf", tiny(), pieces=tokens)).tokenizer
    assert found is not None
    tokenizer = tokenizers.Tokenizer.from_file(str(found))
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert {tokens.index("▁A"), tokens.index("at")} <= {*ids}
    assert tokenizer.decode(ids) == TEXT
    assert end_of_text(found) == "</s>"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"architecture": "qwen2"}, "general.architecture='qwen2': expected llama"),
        ({"expert_count": 8}, "llama.expert_count=8: expected 0"),
        ({"attention.sliding_window": 8}, "sliding_window=8: expected at least max_position_embeddings=40"),
        ({"tensors": {"rope_freqs.weight": torch.ones(8)}}, "unexpected tensor rope_freqs.weight"),
    ],
)
def test_files_that_we_cannot_loop(options, words, tmp_path):
    path = write(tmp_path / "tiny.gguf", tiny(), **options)
    with pytest.raises(ValueError, match=words.replace(".", r"\.")) as caught:
        open_model(path)
    assert str(path) in str(caught.value)


def test_a_damaged_file(tmp_path):
    path = write(tmp_path / "tiny.gguf", tiny())
    content = path.read_bytes()
    for damaged in (b"no model", content[:200], content[:-400]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a GGUF file, or damaged"):
            open_model(path)
