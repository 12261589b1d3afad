"""Qwen 2 and 2.5 (Yang et al., 2024): Llama with a bias of queries, keys and values."""

from looped.model_config import ModelConfig
from looped.pretrained.families.llama import LAYER, llama_config, llama_weights
from looped.pretrained.family import Family, Table, rows
from looped.pretrained.settings import Given, unbound_window

QWEN2_LAYER = LAYER | {
    "attention.qkv.bias": rows("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias")
}


def config(given: Given) -> ModelConfig:
    """Raises ValueError if layers have a window that is shorter than the longest input."""
    check_window(given)
    return llama_config(given, qkv_bias=True)


def check_window(given: Given) -> None:
    """Qwen switches the window on by a setting of its own, for the layers from `max_window_layers` on."""
    first = given.get("max_window_layers", 28)
    if given.get("use_sliding_window") and first < given["num_hidden_layers"]:
        unbound_window(given, given.get("sliding_window", 4096))


def weights(config: ModelConfig) -> Table:
    return llama_weights(config, QWEN2_LAYER)


FAMILY = Family("qwen2", ("qwen2",), config, weights, prefix="model.")
