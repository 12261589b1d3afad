"""OLMo 2 (OLMo team, 2024): norms of each sublayer's output, and of queries and keys over all heads."""

from looped.model_config import ModelConfig
from looped.pretrained.families.llama import LAYER, llama_config, llama_weights
from looped.pretrained.families.qwen3 import QK_NORM
from looped.pretrained.family import Family, Table, rows
from looped.pretrained.settings import Given

OLMO2_LAYER = LAYER | QK_NORM | {
    "attention_norm.weight": rows("post_attention_layernorm.weight"),
    "feedforward_norm.weight": rows("post_feedforward_layernorm.weight"),
}  # fmt: skip


def config(given: Given) -> ModelConfig:
    return llama_config({"rms_norm_eps": 1e-5, **given}, norm_place="branch", qk_norm="full")


def weights(config: ModelConfig) -> Table:
    return llama_weights(config, OLMO2_LAYER)


FAMILY = Family("olmo2", ("olmo2",), config, weights, prefix="model.")
