"""Ouro and Huginn: random configurations and weights, and the published equations in plain tensors."""

import random
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

F64 = torch.float64
LENGTH = 9
Weights = dict[str, Tensor]


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> Weights:
    """Matrices that keep the size of a state, and gains about 1."""
    torch.manual_seed(seed)
    drawn = {
        name: torch.randn(shape, dtype=F64) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.3)
        for name, shape in shapes.items()
    }
    return {name: (w + ("norm" in name or "ln_f" in name)).requires_grad_() for name, w in drawn.items()}


def rms(x: Tensor, gain: Tensor | float, epsilon: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt() * gain


def angles(length: int, width: int, theta: float) -> Tensor:
    """exp(i p w) for each position p, in 32 bits like all implementations."""
    turns = torch.arange(length)[:, None].float() * (1 / theta ** (torch.arange(0, width, 2).float() / width))
    return torch.complex(turns.cos(), turns.sin()).to(torch.complex128)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(batch, heads, seq, width), with keys that several heads share; each token attends to those before it."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return (scores.masked_fill(later, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)


# Ouro


def ouro_config(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    kv_heads, groups, width = rng.choice((1, 2)), rng.choice((1, 2)), rng.choice((6, 8))
    return {
        "model_type": "ouro", "vocab_size": 23, "hidden_size": kv_heads * groups * width, "intermediate_size": 19,
        "num_hidden_layers": rng.choice((1, 2)), "num_attention_heads": kv_heads * groups,
        "num_key_value_heads": kv_heads, "max_position_embeddings": LENGTH, "rms_norm_eps": rng.choice((1e-6, 1e-3)),
        "rope_theta": rng.choice((1e4, 1e6)), "total_ut_steps": rng.choice((2, 4)), "early_exit_threshold": 1.0,
        "use_sliding_window": False, "sliding_window": None, "tie_word_embeddings": False, "hidden_act": "silu",
    }  # fmt: skip


def ouro_weights(c: dict[str, Any], seed: int) -> Weights:
    d, hidden, width = c["hidden_size"], c["intermediate_size"], c["hidden_size"] // c["num_attention_heads"]
    keys, tokens = c["num_key_value_heads"] * width, c["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (tokens, d), "lm_head.weight": (tokens, d)}
    shapes |= {"model.norm.weight": (d,), "model.early_exit_gate.weight": (1, d), "model.early_exit_gate.bias": (1,)}
    for i in range(c["num_hidden_layers"]):
        layer = {"self_attn.q_proj": (d, d), "self_attn.k_proj": (keys, d), "self_attn.v_proj": (keys, d)}
        layer |= {"self_attn.o_proj": (d, d), "mlp.gate_proj": (hidden, d), "mlp.up_proj": (hidden, d)}
        layer |= {"mlp.down_proj": (d, hidden)}
        norms = ("input_layernorm", "input_layernorm_2", "post_attention_layernorm", "post_attention_layernorm_2")
        layer |= dict.fromkeys(norms, (d,))
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return random_weights(shapes, seed)


def ouro(w: Weights, c: dict[str, Any], tokens: Tensor, loops: int) -> tuple[Tensor, Tensor]:
    """The published equations: logits (loops, batch, seq, vocab) and exit probabilities lambda (loops, batch, seq)."""
    heads, epsilon, x = c["num_attention_heads"], c["rms_norm_eps"], w["model.embed_tokens.weight"][tokens]
    turn = angles(tokens.shape[1], x.shape[-1] // heads, c["rope_theta"])
    logits, chances = [], []
    for _ in range(loops):
        for i in range(c["num_hidden_layers"]):
            g = {name.removeprefix(f"model.layers.{i}.").removesuffix(".weight"): weight for name, weight in w.items()}
            h = rms(x, g["input_layernorm"], epsilon)
            q, k, v = (
                (h @ g[f"self_attn.{n}_proj"].T).unflatten(-1, (-1, x.shape[-1] // heads)).transpose(1, 2)
                for n in "qkv"
            )
            q, k = (torch.complex(*y.chunk(2, -1)) * turn for y in (q, k))
            q, k = (torch.cat([y.real, y.imag], -1) for y in (q, k))
            x = x + rms(attend(q, k, v) @ g["self_attn.o_proj"].T, g["input_layernorm_2"], epsilon)
            h = rms(x, g["post_attention_layernorm"], epsilon)
            h = (silu(h @ g["mlp.gate_proj"].T) * (h @ g["mlp.up_proj"].T)) @ g["mlp.down_proj"].T
            x = x + rms(h, g["post_attention_layernorm_2"], epsilon)
        x = rms(x, w["model.norm.weight"], epsilon)
        logits.append(x @ w["lm_head.weight"].T)
        chances.append((x @ w["model.early_exit_gate.weight"][0] + w["model.early_exit_gate.bias"]).sigmoid())
    return torch.stack(logits), torch.stack(chances)


# Huginn


def huginn_config(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    heads, width = rng.choice((1, 3)), rng.choice((4, 10))
    return {
        "model_type": "huginn_raven", "vocab_size": 21, "padded_vocab_size": 24, "n_embd": heads * width, "bias": False,
        "num_attention_heads": heads, "num_key_value_heads": heads, "intermediate_size": 17, "block_size": LENGTH,
        "n_layers_in_prelude": rng.choice((1, 2)), "n_layers_in_recurrent_block": rng.choice((1, 2)),
        "n_layers_in_coda": rng.choice((1, 2)), "mean_recurrence": 4, "injection_type": "linear",
        "qk_bias": seed % 2 == 0,
        "norm_eps": rng.choice((1e-6, 1e-3)), "rope_base": 50_000, "tie_embeddings": seed < 2, "nonlin_name": "SiLU",
        "init_values": {"std": 0.1, "embed_scale": 1.7},
    }  # fmt: skip


def huginn_weights(c: dict[str, Any], seed: int) -> Weights:
    d, hidden, heads, tokens = c["n_embd"], c["intermediate_size"], c["num_attention_heads"], c["padded_vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (tokens, d), "transformer.ln_f.weight": (d,)}
    shapes |= {"transformer.adapter.weight": (d, 2 * d)}
    if not c["tie_embeddings"]:
        shapes["lm_head.weight"] = (tokens, d)
    for part, count in (("prelude", "prelude"), ("core_block", "recurrent_block"), ("coda", "coda")):
        for i in range(c[f"n_layers_in_{count}"]):
            layer: dict[str, tuple[int, ...]] = {
                "attn.Wqkv.weight": (3 * d, d),
                "attn.proj.weight": (d, d),
                "mlp.fc.weight": (2 * hidden, d),
            }
            layer |= {"mlp.proj.weight": (d, hidden)} | {f"norm_{n}.weight": (d,) for n in (1, 2, 3, 4)}
            if c["qk_bias"]:
                layer["attn.qk_bias"] = (2, 1, heads, d // heads)
            shapes |= {f"transformer.{part}.{i}.{name}": shape for name, shape in layer.items()}
    return random_weights(shapes, seed)


def huginn(w: Weights, c: dict[str, Any], tokens: Tensor, loops: int, state: Tensor) -> Tensor:
    """The published equations, from an initial state."""
    heads, epsilon = c["num_attention_heads"], c["norm_eps"]
    turn = angles(tokens.shape[1], c["n_embd"] // heads, c["rope_base"])

    def blocks(part: str, x: Tensor) -> Tensor:
        i = 0
        while f"transformer.{part}.{i}.norm_1.weight" in w:
            g = {name.removeprefix(f"transformer.{part}.{i}.").removesuffix(".weight"): one for name, one in w.items()}
            q, k, v = ((rms(x, g["norm_1"], epsilon) @ g["attn.Wqkv"].T).unflatten(-1, (3, heads, -1))).unbind(2)
            if c["qk_bias"]:
                q, k = q + g["attn.qk_bias"][0], k + g["attn.qk_bias"][1]
            q, k = (torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous()) * turn[:, None] for y in (q, k))
            q, k, v = (
                y.transpose(1, 2) for y in (torch.view_as_real(q).flatten(3), torch.view_as_real(k).flatten(3), v)
            )
            x = rms(x + attend(q, k, v) @ g["attn.proj"].T, g["norm_2"], epsilon)
            gate, up = (rms(x, g["norm_3"], epsilon) @ g["mlp.fc"].T).chunk(2, -1)
            x = rms(x + (silu(gate) * up) @ g["mlp.proj"].T, g["norm_4"], epsilon)
            i += 1
        return x

    embedded = blocks("prelude", w["transformer.wte.weight"][tokens] * c["init_values"]["embed_scale"])
    for _ in range(loops):
        state = blocks("core_block", torch.cat([state, embedded], -1) @ w["transformer.adapter.weight"].T)
    last = blocks("coda", rms(state, w["transformer.ln_f.weight"], epsilon))
    return rms(last, w["transformer.ln_f.weight"], epsilon) @ w.get("lm_head.weight", w["transformer.wte.weight"]).T
