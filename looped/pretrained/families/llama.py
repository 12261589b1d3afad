"""Llama (Touvron et al., 2023), and the settings and names that other families share with it. SmolLM2 and TinyLlama
are of this family."""

from typing import Any

from looped.model_config import ModelConfig
from looped.pretrained.family import Family, Source, Table, numbered, rows
from looped.pretrained.settings import Given, absent, rotary, swiglu

LAYER = {
    "attention_norm.weight": rows("input_layernorm.weight"),
    "attention.qkv.weight": rows("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "attention.project.weight": rows("self_attn.o_proj.weight"),
    "feedforward_norm.weight": rows("post_attention_layernorm.weight"),
    "feedforward.up.weight": rows("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "feedforward.down.weight": rows("mlp.down_proj.weight"),
}


def llama_config(given: Given, **others: Any) -> ModelConfig:
    """The configuration of a model like Llama, with fields of ours that are different in another family."""
    absent(given, "attention_bias", "mlp_bias", why="our output projection has a bias only if all layers have one")
    fields = {
        "vocab_size": given["vocab_size"],
        "output_size": given["vocab_size"],
        "max_seq_len": given["max_position_embeddings"],
        "causal": True,
        "d_model": given["hidden_size"],
        "num_heads": given["num_attention_heads"],
        "num_kv_heads": given.get("num_key_value_heads"),
        "d_head": given.get("head_dim"),
        "d_ff": given["intermediate_size"],
        "core_layers": given["num_hidden_layers"],
        "norm_epsilon": float(given.get("rms_norm_eps", 1e-6)),
        "activation": swiglu(given),
        "tie_embeddings": given.get("tie_word_embeddings", False),
        **rotary(given),
    }
    return ModelConfig(**{**fields, **others})


def llama_weights(config: ModelConfig, layer: dict[str, Source] = LAYER) -> Table:
    """The names of the weights, for a table of the names within a layer."""
    return {
        "embed.weight": rows("model.embed_tokens.weight"),
        **numbered(layer, "core", "model.layers", config.core_layers),
        "norm.weight": rows("model.norm.weight"),
        "head.weight": rows("lm_head.weight"),
    }


FAMILY = Family("llama", ("llama",), llama_config, llama_weights, prefix="model.")
