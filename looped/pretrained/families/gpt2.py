"""GPT-2 (Radford et al., 2019): LayerNorms and biases, learned positions, matrices stored as (inputs, outputs)."""

from looped.model_config import ModelConfig
from looped.pretrained.family import Family, Table, numbered, rows, transposed
from looped.pretrained.settings import Given, absent, activation
from looped.strict import check

NORMS = {"attention_norm": "ln_1", "feedforward_norm": "ln_2"}
LINEAR = {
    "attention.qkv": "attn.c_attn",
    "attention.project": "attn.c_proj",
    "feedforward.up": "mlp.c_fc",
    "feedforward.down": "mlp.c_proj",
}
LAYER = {
    **{f"{ours}.{part}": rows(f"{theirs}.{part}") for ours, theirs in NORMS.items() for part in ("weight", "bias")},
    **{f"{ours}.weight": transposed(f"{theirs}.weight") for ours, theirs in LINEAR.items()},
    **{f"{ours}.bias": rows(f"{theirs}.bias") for ours, theirs in LINEAR.items()},
}


def config(given: Given) -> ModelConfig:
    """The configuration of a GPT-2 model. Its dropout is for training; our layers have none."""
    absent(given, "scale_attn_by_inverse_layer_idx", why="our scores have one scale in all layers")
    absent(given, "add_cross_attention", why="our attention reads one sequence")
    for name, why in {
        "scale_attn_weights": "our scores are divided by the root of the head's width",
        "tie_word_embeddings": "our output has a bias where other layers have one, and this one has none",
    }.items():
        check(given.get(name, True), name, given.get(name), f"true: {why}")
    return ModelConfig(
        vocab_size=given["vocab_size"],
        output_size=given["vocab_size"],
        max_seq_len=given["n_positions"],
        causal=True,
        d_model=given["n_embd"],
        num_heads=given["n_head"],
        d_ff=given.get("n_inner"),
        core_layers=given["n_layer"],
        norm="layer",
        norm_epsilon=float(given.get("layer_norm_epsilon", 1e-5)),
        activation=activation(given, "activation_function", "gelu_new"),
        bias=True,
        tie_embeddings=True,
    )


def weights(config: ModelConfig) -> Table:
    return {
        "embed.weight": rows("transformer.wte.weight"),
        "positions.table": rows("transformer.wpe.weight"),
        **numbered(LAYER, "core", "transformer.h", config.core_layers),
        **{f"norm.{part}": rows(f"transformer.ln_f.{part}") for part in ("weight", "bias")},
        "head.weight": rows("lm_head.weight"),
    }


FAMILY = Family("gpt2", ("gpt2",), config, weights, prefix="transformer.", ignored=r".*\.attn\.(masked_)?bias")
