"""Looped models that others trained, against the classes of transformers or the published equations."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, silu

from looped.models import LoopedTransformer, parse_rule
from looped.pretrained import open_model

F64 = torch.float64
LENGTH = 9
Weights = dict[str, Tensor]


def opened(folder: Path, weights: Weights, config: dict[str, Any], dtype: torch.dtype = F64) -> LoopedTransformer:
    folder.mkdir(exist_ok=True)
    save_file({name: weight.detach().contiguous() for name, weight in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return open_model(folder, dtype=dtype).model


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


def same_gradients(folder: Path, model: LoopedTransformer, weights: Weights, config: dict[str, Any]) -> None:
    """The gradients of the reference, opened as if they were weights, are those of our model."""
    wanted = dict(opened(folder, {name: w.grad for name, w in weights.items()}, config).named_parameters())
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        torch.testing.assert_close(weight.grad, wanted[name].detach(), rtol=1e-6, atol=1e-9, msg=name)


def loss(logits: Tensor, tokens: Tensor) -> Tensor:
    return cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


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
    keys = c["num_key_value_heads"] * width
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (23, d), "lm_head.weight": (23, d)}
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


@pytest.mark.parametrize("seed", range(4))
def test_ouro_is_the_published_loop(tmp_path, seed):
    c = ouro_config(seed)
    weights = ouro_weights(c, seed)
    model = opened(tmp_path / "a", weights, c)
    assert model.num_loops == c["total_ut_steps"]
    tokens = torch.randint(23, (2, LENGTH))
    wanted, chances = ouro(weights, c, tokens, 6)
    output = model(tokens, num_loops=6, loop_logits="all", loop_states=True)
    torch.testing.assert_close(output.loop_logits, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.halting_probability(output.loop_states), chances, rtol=1e-9, atol=1e-9)
    loss(wanted[2], tokens).backward(retain_graph=True)
    chances[2].sum().backward()  # the gate has a gradient too
    again = model(tokens, num_loops=3, loop_states=True)
    (loss(again.logits, tokens) + model.halting_probability(again.loop_states[-1]).sum()).backward()
    same_gradients(tmp_path / "b", model, weights, c)


def test_the_gate_of_ouro_is_an_exit_rule(tmp_path):
    """The first loop whose cumulated probability, sum of lambda_i prod_{j<i} (1 - lambda_j), reaches a threshold; the
    last loop takes the rest. Texts of one token, because an exit changes the keys for later tokens."""
    c = ouro_config(0)
    weights = ouro_weights(c, 1)
    model = opened(tmp_path, weights, c)
    tokens = torch.arange(23)[:, None]
    logits, chances = ouro(weights, c, tokens, 5)
    density, left = torch.zeros_like(chances), torch.ones_like(chances[0])
    for i, chance in enumerate(chances):
        density[i] = chance * left if i < 4 else left
        left = left * (1 - chance)
    for threshold in (0.6, 0.8, 0.95):
        exits = (density.cumsum(0) >= threshold).float().argmax(0)
        output = model(tokens, num_loops=5, exit_rule=parse_rule(f"gate:{threshold}/token"))
        torch.testing.assert_close(output.loops_taken, exits + 1)
        torch.testing.assert_close(output.logits[:, 0], logits[exits[:, 0], torch.arange(23), 0])
    assert len(exits.unique()) > 1


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
    d, hidden, heads = c["n_embd"], c["intermediate_size"], c["num_attention_heads"]
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (24, d), "transformer.ln_f.weight": (d,)}
    shapes |= {"transformer.adapter.weight": (d, 2 * d)}
    if not c["tie_embeddings"]:
        shapes["lm_head.weight"] = (24, d)
    for part, count in (("prelude", "prelude"), ("core_block", "recurrent_block"), ("coda", "coda")):
        for i in range(c[f"n_layers_in_{count}"]):
            layer = {"attn.Wqkv.weight": (3 * d, d), "attn.proj.weight": (d, d), "mlp.fc.weight": (2 * hidden, d)}
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


@pytest.mark.parametrize("seed", range(4))
def test_huginn_is_the_published_loop(tmp_path, seed):
    c = huginn_config(seed)
    weights = huginn_weights(c, seed)
    model = opened(tmp_path / "a", weights | {"freqs_cis": torch.zeros(3)}, c)
    tokens = torch.randint(21, (2, LENGTH))
    zero, drawn = torch.zeros(2, LENGTH, c["n_embd"], dtype=F64), torch.randn(2, LENGTH, c["n_embd"], dtype=F64)
    for loops in (1, 2, 4, 7):
        wanted = huginn(weights, c, tokens, loops, drawn)
        found = model(tokens, num_loops=loops, initial_state=drawn).logits
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model(tokens).logits, huginn(weights, c, tokens, 4, zero), rtol=1e-9, atol=1e-9)
    assert (found - model(tokens, num_loops=7).logits).abs().max() > 1e-3  # the initial state matters
    loss(wanted, tokens).backward()
    loss(found, tokens).backward()
    if c["qk_bias"]:  # our values have a bias too, which is zero in the file
        for section in model.sections.values():
            for block in section:
                block.attention.qkv.bias.grad[-c["n_embd"] :] = 0
    same_gradients(tmp_path / "b", model, weights, c)


# HRM-Text and ALBERT, against transformers


def gradients_opened(folder: Path, theirs: Any) -> Weights:
    """The gradients of a model of transformers, by the names of ours: saved and opened as if they were weights."""
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.copy_(torch.zeros_like(weight) if weight.grad is None else weight.grad)
    theirs.save_pretrained(folder)
    return {name: weight.detach() for name, weight in open_model(folder, dtype=F64).model.named_parameters()}


def perturbed(model: Any) -> Any:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += (0.3 if weight.ndim == 1 else weight.shape[-1] ** -0.5) * torch.randn_like(weight)
    return model.eval()


def hrm_text(seed: int, dtype: torch.dtype) -> Any:
    rng = random.Random(seed)
    heads, inner, loops = rng.choice((1, 2)), rng.choice((1, 2, 3)), rng.choice((1, 2, 3))
    config = transformers.HrmTextConfig(
        vocab_size=23, hidden_size=heads * 10, intermediate_size=19, num_hidden_layers=rng.choice((1, 2)),
        num_attention_heads=heads, head_dim=rng.choice((6, 8)), max_position_embeddings=LENGTH, H_cycles=loops,
        L_cycles=inner, L_bp_cycles=[inner] * loops, initializer_range=rng.choice((0.1, 0.5)), rms_norm_eps=1e-5,
        tie_word_embeddings=seed == 0, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = perturbed(transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype))
    for name, norm in list(model.named_modules()):
        if dtype == F64 and type(norm).__name__ == "HrmTextRMSNorm":  # theirs computes in 32 bits
            width = config.hidden_size
            model.set_submodule(name, torch.nn.RMSNorm(width, eps=norm.eps, elementwise_affine=False))
    return model


@pytest.mark.parametrize("seed", range(4))
def test_hrm_text_is_that_of_transformers(tmp_path, seed):
    theirs = hrm_text(seed, F64)
    theirs.save_pretrained(tmp_path / "a")
    model = open_model(tmp_path / "a", dtype=F64).model
    tokens, cycles = torch.randint(23, (2, LENGTH)), theirs.config.H_cycles
    for loops in (4, 1, cycles):
        theirs.config.H_cycles = theirs.model.config.H_cycles = loops
        wanted, found = theirs(tokens, use_cache=False).logits, model(tokens, num_loops=loops).logits
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-7)
    loss(wanted, tokens).backward()
    loss(found, tokens).backward()
    gradients = gradients_opened(tmp_path / "b", theirs)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-6, atol=1e-7, msg=name)


def albert(seed: int, dtype: torch.dtype) -> Any:
    rng = random.Random(seed)
    heads, groups = rng.choice((1, 2)), (1, 1, 2, 3)[seed]
    config = transformers.AlbertConfig(
        vocab_size=23, embedding_size=rng.choice((6, 14)), hidden_size=heads * 10, num_attention_heads=heads,
        num_hidden_layers=6, num_hidden_groups=groups, inner_group_num=1 + (seed == 1), intermediate_size=19,
        max_position_embeddings=LENGTH, hidden_act=rng.choice(("gelu_new", "gelu")), pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    kind = transformers.AlbertForPreTraining if seed % 2 else transformers.AlbertForMaskedLM
    return perturbed(kind._from_config(config, attn_implementation="sdpa").to(dtype))


@pytest.mark.parametrize("seed", range(4))
def test_albert_is_that_of_transformers(tmp_path, seed):
    theirs = albert(seed, F64)
    theirs.save_pretrained(tmp_path / "a")
    model = open_model(tmp_path / "a", dtype=F64).model
    tokens, real = torch.randint(23, (2, LENGTH)), torch.ones(2, LENGTH, dtype=torch.bool)
    real[1, -3:] = False
    groups = theirs.config.num_hidden_groups
    for loops in (1, 3, 6 // groups):
        theirs.config.num_hidden_layers = loops * groups
        output = theirs(tokens, attention_mask=real.long())
        wanted = output.logits if "logits" in output else output.prediction_logits
        found = model(tokens, attention_mask=real, num_loops=loops).logits
        torch.testing.assert_close(found[real], wanted[real], rtol=1e-9, atol=1e-9)
    cross_entropy(wanted[real], tokens[real]).backward()
    cross_entropy(found[real], tokens[real]).backward()
    theirs.get_submodule("albert.embeddings.token_type_embeddings").weight.grad = None  # part of our positions
    gradients = gradients_opened(tmp_path / "b", theirs)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-6, atol=1e-9, msg=name)
