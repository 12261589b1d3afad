"""Ouro (Zhu et al., "Scaling Latent Reasoning via Looped Language Models", 2025): all layers of a Llama in a loop, with
norms before and behind each sublayer, the final norm after every loop, and a gate that says when to exit.

The published rule takes the first loop by which the model has halted with a probability of at least a threshold q,
1 - prod (1 - lambda_j) >= q, for each token. This is the exit rule `gate:q/token`. The published threshold of 1 means
no exit.
"""

from looped.model_config import ModelConfig
from looped.pretrained.families.llama import LAYER, llama_config, llama_weights
from looped.pretrained.families.qwen2 import check_window
from looped.pretrained.family import Family, Table, rows
from looped.pretrained.settings import Given

OURO_LAYER = LAYER | {
    "attention_output_norm.weight": rows("input_layernorm_2.weight"),
    "feedforward_output_norm.weight": rows("post_attention_layernorm_2.weight"),
}
GATE = {f"halt.{part}": rows(f"model.early_exit_gate.{part}") for part in ("weight", "bias")}


def config(given: Given) -> ModelConfig:
    check_window(given)
    return llama_config(
        given, num_loops=given["total_ut_steps"], norm_place="before_branch", loop_norm=True, halting="gate"
    )


def weights(config: ModelConfig) -> Table:
    return llama_weights(config, OURO_LAYER) | GATE


FAMILY = Family(
    "ouro", ("ouro",), config, weights, prefix="model.",
    note="its gate is an exit rule: a token exits once the model has halted with a probability of 0.5, or of 0.9 "
    "with --exit-rule gate:0.9; the published setting is --exit-rule none",
)  # fmt: skip
