"""Qwen 3 (Yang et al., 2025): Llama with a norm of queries and keys in each head, whose width is free."""

from looped.model_config import ModelConfig
from looped.pretrained.families.llama import LAYER, llama_config, llama_weights
from looped.pretrained.families.qwen2 import check_window
from looped.pretrained.family import Family, Table, rows
from looped.pretrained.settings import Given

QK_NORM = {
    "attention.query_norm.weight": rows("self_attn.q_norm.weight"),
    "attention.key_norm.weight": rows("self_attn.k_norm.weight"),
}


def config(given: Given) -> ModelConfig:
    """Raises ValueError if layers have a window that is shorter than the longest input."""
    check_window(given)
    return llama_config({"head_dim": 128, **given}, qk_norm="head")


def weights(config: ModelConfig) -> Table:
    return llama_weights(config, LAYER | QK_NORM)


FAMILY = Family("qwen3", ("qwen3",), config, weights, prefix="model.")
