"""Model configurations that between them use every option, and helpers to compare models."""

import dataclasses

import torch

from looped.config import ModelConfig
from looped.models import LoopedTransformer

TINY = ModelConfig(vocab_size=11, output_size=7, max_seq_len=9, d_model=16, num_heads=2, num_loops=5)

VARIANTS = {
    "plain": TINY,
    "standard": dataclasses.replace(TINY, core_layers=3, num_loops=1),
    "prelude_coda": dataclasses.replace(TINY, prelude_layers=1, core_layers=2, coda_layers=1),
    "causal": dataclasses.replace(TINY, causal=True, positions="rotary"),
    "vectors": dataclasses.replace(TINY, inputs="vectors", vocab_size=None, input_dim=5),
    "layer_norm": dataclasses.replace(TINY, norm="layer", bias=True, activation="gelu_tanh", embedding_norm=True),
    "no_norm": dataclasses.replace(TINY, norm="none", activation="relu", positions="none"),
    "swiglu": dataclasses.replace(TINY, activation="swiglu", norm_gain=False, positions="sinusoidal"),
    "inject_add": dataclasses.replace(TINY, input_injection="add", loop_norm=True, final_norm="layer"),
    "inject_concat": dataclasses.replace(TINY, input_injection="concat", positions_every_loop=True),
    "inject_add_from_input": dataclasses.replace(
        TINY, input_injection="add", initial_state="input", loop_norm=True, prelude_layers=1
    ),
    "inject_concat_from_input": dataclasses.replace(
        TINY, input_injection="concat", initial_state="input", bias=True, causal=True
    ),
    "norm_after": dataclasses.replace(TINY, norm_place="after", norm="layer", bias=True, core_layers=2, causal=True),
    "norm_after_gates": dataclasses.replace(TINY, norm_place="after", modulation="table", max_loops=9),
    "universal": dataclasses.replace(
        TINY,
        norm_place="after",
        norm="layer",
        bias=True,
        activation="relu",
        modulation="additive",
        positions="sinusoidal",
        positions_every_loop=True,
    ),
    "additive": dataclasses.replace(TINY, modulation="additive", activation="silu"),
    "scale_gate": dataclasses.replace(TINY, modulation="scale_gate", norm_gain=False, activation="silu"),
    "scale_gate_both": dataclasses.replace(TINY, modulation="scale_gate", timestep="both", gate_offset=1),
    "adaln_zero": dataclasses.replace(TINY, modulation="adaln_zero", timestep="fraction", core_layers=2),
    "table": dataclasses.replace(TINY, modulation="table", max_loops=9),
    "rezero": dataclasses.replace(TINY, modulation="rezero"),
    "hardmax": dataclasses.replace(TINY, attention="hardmax", num_heads=3, d_head=4),
    "linear": dataclasses.replace(TINY, attention="linear", d_head=2, bias=True),
    "published_lm": dataclasses.replace(
        TINY, values="state", feedforward_norm=False, tie_embeddings=True, output_size=11
    ),
    "grouped": dataclasses.replace(
        TINY, causal=True, positions="rotary", num_heads=4, num_kv_heads=2, rope_theta=500.0, bias=True, qkv_bias=False
    ),
    "llama3": dataclasses.replace(
        TINY,
        causal=True,
        positions="rotary",
        num_heads=4,
        num_kv_heads=1,
        norm_epsilon=1e-2,
        activation="swiglu",
        rope_factor=8.0,
        rope_bands=(0.5, 2.0, 8.0),
        core_layers=2,
    ),
    "qwen3": dataclasses.replace(TINY, causal=True, positions="rotary", d_head=6, num_kv_heads=1, qk_norm="head"),
    "qwen2": dataclasses.replace(TINY, causal=True, qkv_bias=True, num_kv_heads=1),
    "olmo2": dataclasses.replace(TINY, causal=True, norm_place="branch", qk_norm="full", num_kv_heads=1),
    "ouro": dataclasses.replace(
        TINY, causal=True, norm_place="before_branch", loop_norm=True, halting="gate", positions="rotary"
    ),
    "huginn": dataclasses.replace(
        TINY,
        causal=True,
        norm_place="before_after",
        final_norm="rms",
        coda_norm=True,
        coda_layers=1,
        prelude_layers=1,
        input_injection="concat",
        embedding_scale=4.0,
    ),
    "hrm_text": dataclasses.replace(TINY, causal=True, gated_attention=True, norm_gain=False, modulation="scale_gate"),
    "albert": dataclasses.replace(
        TINY,
        norm_place="after",
        norm="layer",
        bias=True,
        embedding_dim=6,
        embedding_norm=True,
        tie_embeddings=True,
        output_size=11,
    ),
    "factorised": dataclasses.replace(
        TINY,
        causal=True,
        embedding_dim=24,
        activation="swiglu",
        coda_layers=1,
        positions="sinusoidal",
        input_injection="add",
    ),
    "published_dp": dataclasses.replace(TINY, initialisation="pytorch", bias=True, positions="sinusoidal", causal=True),
}


def build(config: ModelConfig, seed: int = 0) -> LoopedTransformer:
    """A float64 model whose every weight is away from its initial value, so that states move in every loop."""
    model = LoopedTransformer(config, seed=seed).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def inputs_for(config: ModelConfig, batch: int = 3, seq: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs, and a padding mask with real padding in it."""
    generator = torch.Generator().manual_seed(0)
    if config.inputs == "tokens":
        inputs = torch.randint(config.vocab_size or 0, (batch, seq), generator=generator)
    else:
        inputs = torch.randn(batch, seq, config.input_dim or 0, generator=generator, dtype=torch.float64)
    attention_mask = torch.ones(batch, seq, dtype=torch.bool)
    attention_mask[batch // 2, -2:] = False
    return inputs, attention_mask


def gradients(model: LoopedTransformer, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
