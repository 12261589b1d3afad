"""GGUF files of the architecture llama: metadata as a config.json, tensors one at a time, and the tokenizer.

Source of the format: llama.cpp, and the package `gguf`, which reads it. Its converter interleaves the two halves of
each head of queries and keys, because llama.cpp rotates neighbours; `transformers` and this library rotate halves.
"""

import atexit
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from looped.extras import need
from looped.strict import check

ENDING = ".gguf"
WHAT = "a .gguf file"
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
BYTES_PRE = {
    "gpt-2": None,
    "smollm": r"\p{N}",
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
"""Byte-level tokenizers by `tokenizer.ggml.pre`: the pattern that cuts a text before GPT-2's does, or instead of it."""
CONTROL, USER_DEFINED = 3, 4  # of `tokenizer.ggml.token_type`


class Place(NamedTuple):
    """A tensor in a file."""

    kind: Any
    """How it is quantised, as `gguf` says it."""
    shape: tuple[int, ...]
    offset: int
    row: int
    """Bytes of a row."""


class GGUFTensors:
    """The tensors of a GGUF file by the names of `transformers`, in float32.

    Raises:
        ValueError: the file is damaged, of another architecture, or holds a model with experts.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.quants = path, need("gguf.quants", WHAT)
        gguf = need("gguf", WHAT)
        try:
            reader = gguf.GGUFReader(str(path))
            # The reader holds an object for each token, which would take the memory of many weights.
            self.metadata: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
            self.places = {
                _name(tensor.name): Place(
                    tensor.tensor_type,
                    tuple(int(size) for size in reversed(tensor.shape)),
                    int(tensor.data_offset),
                    tensor.data[0].nbytes,
                )
                for tensor in reader.tensors
            }
        except Exception as error:  # the library has no common base, and a damaged file may raise anything
            raise ValueError(f"{path}: not a GGUF file, or damaged ({error})") from None
        self.shapes = {name: place.shape for name, place in self.places.items()}
        architecture = self.metadata.get("general.architecture")
        check(architecture == "llama", f"{path}: general.architecture", architecture, "llama")
        self.config = self._config()

    def read(self, name: str, rows: slice = slice(None)) -> Tensor:
        """Dequantised rows. The file is read, not mapped, because mapped pages would stay in memory."""
        kind, shape, offset, row = self.places[name]
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        if heads is not None and rows != slice(None):
            return self.read(name)[rows]
        start, stop, _ = rows.indices(shape[0])
        stored = np.fromfile(self.path, np.uint8, (stop - start) * row, offset=offset + start * row)
        try:
            found = torch.from_numpy(self.quants.dequantize(stored.reshape(stop - start, row), kind))
        except NotImplementedError as error:
            raise ValueError(f"{self.path}: tensor {name}: {error}") from None
        found = found.view(stop - start, *shape[1:])
        if heads is not None:
            found = found.unflatten(0, (self.config[heads], -1, 2)).transpose(1, 2).flatten(0, 2)
        return found

    def _config(self) -> dict[str, Any]:
        """The metadata in the words of a config.json."""
        names = {
            "hidden_size": "embedding_length",
            "intermediate_size": "feed_forward_length",
            "num_hidden_layers": "block_count",
            "num_attention_heads": "attention.head_count",
            "num_key_value_heads": "attention.head_count_kv",
            "head_dim": "attention.key_length",
            "max_position_embeddings": "context_length",
            "rms_norm_eps": "attention.layer_norm_rms_epsilon",
            "rope_theta": "rope.freq_base",
            "sliding_window": "attention.sliding_window",
        }
        found = {name: self.metadata.get(f"llama.{theirs}") for name, theirs in names.items()}
        found = {name: value for name, value in found.items() if value is not None}
        experts = self.metadata.get("llama.expert_count", 0)
        check(not experts, f"{self.path}: llama.expert_count", experts, "0: its layers choose between experts")
        scaling = {
            "rope_type": self.metadata.get("llama.rope.scaling.type"),
            "factor": self.metadata.get("llama.rope.scaling.factor"),
        }
        width = found.get("head_dim") or found["hidden_size"] // found["num_attention_heads"]
        return found | {
            "model_type": "mistral" if "sliding_window" in found else "llama",  # llama.cpp knows one architecture
            "vocab_size": self.shapes.get("model.embed_tokens.weight", (None,))[0],
            "num_key_value_heads": found.get("num_key_value_heads", found["num_attention_heads"]),
            "rms_norm_eps": float(str(np.float32(found["rms_norm_eps"]))),
            "rope_scaling": scaling if scaling["rope_type"] not in (None, "none") else None,
            "partial_rotary_factor": self.metadata.get("llama.rope.dimension_count", width) / width,
            "tie_word_embeddings": "lm_head.weight" not in self.shapes,
        }


def _name(theirs: str) -> str:
    """The name of a tensor in transformers; another name stays as it is."""
    words = theirs.split(".")
    if words[0] == "blk" and len(words) == 4 and words[2] in LAYER:
        return f"model.layers.{words[1]}.{LAYER[words[2]]}.{words[3]}"
    return ".".join([OUTSIDE.get(words[0], words[0]), *words[1:]])


def write_tokenizer(tensors: GGUFTensors) -> Path | None:
    """The tokenizer of a GGUF file as a tokenizer.json, in a folder that is removed when the process ends.

    Returns:
        Its path; None if the file has no tokenizer, or one that cuts texts in a way that we do not know.
    """
    kind, cut = tensors.metadata.get("tokenizer.ggml.model"), tensors.metadata.get("tokenizer.ggml.pre", "gpt-2")
    if kind == "gpt2" and cut in BYTES_PRE:
        text = _byte_tokenizer(tensors, cut)
    elif kind == "llama":
        tokenizers = need("transformers", "a .gguf file with a SentencePiece tokenizer")
        found = tokenizers.AutoTokenizer.from_pretrained(tensors.path.parent, gguf_file=tensors.path.name)
        text = found.backend_tokenizer.to_str()
    else:
        return None
    folder = Path(tempfile.mkdtemp(prefix="looped-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tokens = tensors.metadata["tokenizer.ggml.tokens"]
    special = {f"{name}_token": tensors.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
    names = {name: tokens[number] for name, number in special.items() if number is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "tokenizer.json").write_text(text)
    return folder / "tokenizer.json"


def _byte_tokenizer(tensors: GGUFTensors, cut: str) -> str:
    """The JSON of a byte-level BPE."""
    import tokenizers
    from tokenizers import pre_tokenizers

    tokens, kinds = tensors.metadata["tokenizer.ggml.tokens"], tensors.metadata.get("tokenizer.ggml.token_type", [])
    merges = [tuple(merge.split(" ")) for merge in tensors.metadata.get("tokenizer.ggml.merges", [])]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    whole = cut == "llama-bpe"  # Llama 3 takes a word that is a token as it is
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not whole)
    if (pattern := BYTES_PRE[cut]) is not None:
        first = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([first, made.pre_tokenizer])
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=False) if kind == CONTROL])
    made.add_tokens([token for token, kind in zip(tokens, kinds, strict=False) if kind == USER_DEFINED])
    return made.to_str()
