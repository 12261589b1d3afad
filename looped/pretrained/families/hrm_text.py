"""HRM-Text (Sapient AI, 2026): two stacks of layers. In each loop (H cycle) one stack updates a latent state several
times (L cycles), and then the other one updates the answer.

The published model was trained on prompts whose tokens attend to each other in both directions: see `prefix` of a
forward pass. Its training cuts the gradient of all but the last L cycles; ours carries it through all of them.
"""

from looped.model_config import ModelConfig
from looped.pretrained.family import Family, Source, Table, numbered, rows
from looped.pretrained.settings import Given, absent, rotary, swiglu

# One tensor of a file holds the matrices of the gate, queries, keys and values. The model of transformers has four.
LAYER = {
    "attention.gate.weight": Source(("attn.gqkv_proj.weight",), lambda gqkv: gqkv[: len(gqkv) // 4]),
    "attention.qkv.weight": Source(("attn.gqkv_proj.weight",), lambda gqkv: gqkv[len(gqkv) // 4 :]),
    "attention.project.weight": rows("attn.o_proj.weight"),
    "feedforward.up.weight": rows("mlp.gate_up_proj.weight"),
    "feedforward.down.weight": rows("mlp.down_proj.weight"),
}


def config(given: Given) -> ModelConfig:
    absent(given, "attention_bias", "mlp_bias", why="the published model has none")
    layers = given.get("num_layers_per_stack") or given["num_hidden_layers"]
    return ModelConfig(
        vocab_size=given["vocab_size"],
        output_size=given["vocab_size"],
        max_seq_len=given["max_position_embeddings"],
        causal=True,
        d_model=given["hidden_size"],
        num_heads=given["num_attention_heads"],
        d_head=given.get("head_dim", 128),
        d_ff=given["intermediate_size"],
        embedding_scale=given.get("embedding_scale") or 1 / given["initializer_range"],
        core_layers=layers,
        latent_layers=layers,
        num_loops=given["H_cycles"],
        inner_loops=given["L_cycles"],
        norm_epsilon=float(given.get("rms_norm_eps", 1e-6)),
        norm_gain=False,
        loop_norm=True,
        gated_attention=True,
        activation=swiglu(given),
        tie_embeddings=given.get("tie_word_embeddings", False),
        **rotary(given),
    )


def weights(config: ModelConfig) -> Table:
    return {
        "embed.weight": rows("model.embed_tokens.weight"),
        "head.weight": rows("lm_head.weight"),
        **numbered(LAYER, "core.0.layers", "model.H_module.layers", config.core_layers),
        **numbered(LAYER, "core.0.latent_layers", "model.L_module.layers", config.latent_layers),
    }


FAMILY = Family(
    "hrm_text", ("hrm_text",), config, weights, zero=r"model\.z_L_init",
    note="it was trained on prompts that are read in both directions; `looped generate --prefix` does so",
)  # fmt: skip
