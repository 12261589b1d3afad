"""ALBERT (Lan et al., 2020): an encoder with one layer, or a few, for all depths, a factorised embedding, and the
output of a masked language model. Its number of loops is its depth."""

from looped.model_config import ModelConfig
from looped.pretrained.family import Family, Source, Table, numbered, rows
from looped.pretrained.settings import Given, activation
from looped.strict import check

PARTS = ("weight", "bias")
LAYER = {
    f"{ours}.{part}": rows(*(f"{name}.{part}" for name in theirs))
    for part in PARTS
    for ours, theirs in {
        "attention.qkv": ("attention.query", "attention.key", "attention.value"),
        "attention.project": ("attention.dense",),
        "attention_norm": ("attention.LayerNorm",),
        "feedforward.up": ("ffn",),
        "feedforward.down": ("ffn_output",),
        "feedforward_norm": ("full_layer_layer_norm",),
    }.items()
}
OTHERS = {
    "embed_norm.0": "albert.embeddings.LayerNorm",
    "embed_norm.1": "albert.encoder.embedding_hidden_mapping_in",
    "norm.0": "predictions.dense",
    "norm.2": "predictions.LayerNorm",
}
EMBEDDINGS = "albert.embeddings"


def config(given: Given) -> ModelConfig:
    """Raises ValueError for groups of several layers, which no published model has."""
    layers, groups, inner = (
        given["num_hidden_layers"],
        given.get("num_hidden_groups", 1),
        given.get("inner_group_num", 1),
    )
    check(groups == 1 or inner == 1, "inner_group_num", inner, f"1 with num_hidden_groups={groups}")
    check(layers % groups == 0, "num_hidden_layers", layers, f"a multiple of num_hidden_groups={groups}")
    kind = given.get("position_embedding_type", "absolute")
    check(kind == "absolute", "position_embedding_type", kind, "absolute")
    return ModelConfig(
        vocab_size=given["vocab_size"],
        output_size=given["vocab_size"],
        max_seq_len=given["max_position_embeddings"],
        d_model=given["hidden_size"],
        embedding_dim=given["embedding_size"],
        embedding_norm=True,
        num_heads=given["num_attention_heads"],
        d_ff=given["intermediate_size"],
        core_layers=groups * inner,
        num_loops=layers // groups,
        layer_order="sequence" if groups > 1 else "cycle",
        norm="layer",
        norm_place="after",
        norm_epsilon=given.get("layer_norm_eps", 1e-12),
        activation=activation(given, "hidden_act", "gelu_new"),
        bias=True,
        tie_embeddings=True,
    )


def weights(config: ModelConfig) -> Table:
    """All tokens are of the first type, whose vector is added to the position's."""
    positions = Source(
        (f"{EMBEDDINGS}.position_embeddings.weight", f"{EMBEDDINGS}.token_type_embeddings.weight"),
        lambda positions, types: positions + types[0],
        together=True,
    )
    stack, inner = "albert.encoder.albert_layer_groups", "albert_layers"
    if config.layer_order == "sequence":  # several groups of one layer
        layer = {name: rows(*(f"{inner}.0.{part}" for part in source.names)) for name, source in LAYER.items()}
        layers = numbered(layer, "core", stack, config.core_layers)
    else:
        layers = numbered(LAYER, "core", f"{stack}.0.{inner}", config.core_layers)
    return {
        "embed.weight": rows(f"{EMBEDDINGS}.word_embeddings.weight"),
        "positions.table": positions,
        **{f"{ours}.{part}": rows(f"{theirs}.{part}") for ours, theirs in OTHERS.items() for part in PARTS},
        **layers,
        "head.weight": rows("predictions.decoder.weight"),
        "head.bias": rows("predictions.bias"),
    }


FAMILY = Family(
    "albert", ("albert",), config, weights,
    ignored=r"albert\.pooler\..*|sop_classifier\..*|predictions\.decoder\.bias|.*\.position_ids",
    note="it fills in masked tokens and cannot continue a text",
)  # fmt: skip
