"""Huginn (Geiping et al., "Scaling up Test-Time Compute with Latent Reasoning", 2025): prelude, core and coda, whose
core reads the embedded input in every loop. Its code calls the architecture raven.

The published model draws its initial state from a truncated normal distribution. Ours starts from zero, which is the
published one with `init_scale=0`. `initial_state` of a forward pass takes any other.
"""

import torch
from torch import Tensor

from looped.model_config import ModelConfig
from looped.pretrained.family import Family, Source, Table, numbered, rows
from looped.pretrained.settings import Given, absent
from looped.strict import check

ONLY = {
    "injection_type": "linear",
    "block_class_name": "SandwichBlock",
    "norm_class_name": "RMSNorm_llama",
    "mlp_class_name": "GatedMLP",
    "nonlin_name": "SiLU",
}
"""Settings with one value that we know, if they are there."""
NORMS = {
    "attention_norm": "norm_1",
    "attention_output_norm": "norm_2",
    "feedforward_norm": "norm_3",
    "feedforward_output_norm": "norm_4",
}


def config(given: Given) -> ModelConfig:
    """Raises ValueError for variants of the architecture that were never published with weights."""
    for name, value in ONLY.items():
        check(given.get(name, value) == value, name, given.get(name), value)
    absent(given, "bias", why="the published model has a bias of queries and keys alone")
    absent(given, "test_time_noise", why="our loops add no noise")
    width, heads = given["n_embd"], given["num_attention_heads"]
    biased, kv_heads = given.get("qk_bias", False), given.get("num_key_value_heads", heads)
    check(not biased or kv_heads == heads, "num_key_value_heads", kv_heads, f"{heads}, with qk_bias")
    tokens = given.get("padded_vocab_size", given["vocab_size"])
    return ModelConfig(
        vocab_size=tokens,
        output_size=tokens,
        max_seq_len=given["block_size"],
        causal=True,
        d_model=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        d_ff=given["intermediate_size"],
        embedding_scale=given.get("init_values", {}).get("embed_scale", width**0.5),
        prelude_layers=given["n_layers_in_prelude"],
        core_layers=given["n_layers_in_recurrent_block"],
        coda_layers=given["n_layers_in_coda"],
        num_loops=given["mean_recurrence"],
        norm_place="before_after",
        norm_epsilon=given["norm_eps"],
        final_norm="rms",
        coda_norm=True,
        activation="swiglu",
        qkv_bias=biased or None,
        positions="rotary",
        rope_theta=float(given.get("rope_base", 50_000)),
        input_injection="concat",
        tie_embeddings=given.get("tie_embeddings", False),
    )


def weights(config: ModelConfig) -> Table:
    heads, kv_heads, width = config.num_heads, config.kv_heads, config.head_dim

    def half_split(rows: Tensor) -> Tensor:
        """The rows of queries or keys. They rotate the pairs (0, 1), (2, 3), ...; we (0, half), (1, half + 1), ..."""
        return rows.unflatten(0, (-1, width // 2, 2)).transpose(1, 2).flatten(0, 2)

    def qkv(weight: Tensor) -> Tensor:
        q, k, v = weight.split([heads * width, kv_heads * width, kv_heads * width])
        return torch.cat([half_split(q), half_split(k), v])

    def qk_bias(bias: Tensor) -> Tensor:
        return torch.cat([*map(half_split, bias.flatten(1)), bias.new_zeros(kv_heads * width)])

    layer = {
        **{f"{ours}.weight": rows(f"{theirs}.weight") for ours, theirs in NORMS.items()},
        "attention.qkv.weight": Source(("attn.Wqkv.weight",), qkv),
        "attention.project.weight": rows("attn.proj.weight"),
        "feedforward.up.weight": rows("mlp.fc.weight"),
        "feedforward.down.weight": rows("mlp.proj.weight"),
    }
    if config.qkv_biased:
        layer["attention.qkv.bias"] = Source(("attn.qk_bias",), qk_bias)
    return {
        "embed.weight": rows("transformer.wte.weight"),
        "injection.linear.weight": rows("transformer.adapter.weight"),
        "norm.weight": rows("transformer.ln_f.weight"),
        "head.weight": rows("lm_head.weight"),
        **numbered(layer, "prelude", "transformer.prelude", config.prelude_layers),
        **numbered(layer, "core", "transformer.core_block", config.core_layers),
        **numbered(layer, "coda", "transformer.coda", config.coda_layers),
    }


FAMILY = Family(
    "huginn", ("huginn_raven",), config, weights, ignored="freqs_cis",
    note="it starts from the state zero; the published model draws a random one",
)  # fmt: skip
