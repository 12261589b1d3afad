"""Looped models that others trained, against the classes of transformers or the published equations."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pretrained.looped_references import (
    F64,
    LENGTH,
    Weights,
    huginn,
    huginn_config,
    huginn_weights,
    ouro,
    ouro_config,
    ouro_weights,
)
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from looped.models import LoopedTransformer, Sampling, generate, parse_rule
from looped.pretrained import open_model


def opened(folder: Path, weights: Weights, config: dict[str, Any], dtype: torch.dtype = F64) -> LoopedTransformer:
    folder.mkdir(exist_ok=True)
    save_file({name: weight.detach().contiguous() for name, weight in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return open_model(folder, dtype=dtype).model


def same_gradients(folder: Path, model: LoopedTransformer, weights: Weights, config: dict[str, Any]) -> None:
    """The gradients of the reference, opened as if they were weights, are those of our model."""
    gradients = {name: w.grad for name, w in weights.items() if w.grad is not None}
    wanted = dict(opened(folder, gradients, config).named_parameters())
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        torch.testing.assert_close(weight.grad, wanted[name].detach(), rtol=1e-6, atol=1e-9, msg=name)


def loss(logits: Tensor, tokens: Tensor) -> Tensor:
    return cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


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
                bias: Any = block.get_parameter("attention.qkv.bias")
                bias.grad[-c["n_embd"] :] = 0
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
        L_cycles=inner, L_bp_cycles=[inner] * loops, initializer_range=(heads * 10) ** -0.5, rms_norm_eps=1e-5,
        embedding_scale=rng.choice((None, 2.0)),
        tie_word_embeddings=seed == 0, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype).eval()
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
    kind: Any = transformers.AlbertForPreTraining if seed % 2 else transformers.AlbertForMaskedLM
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


def test_prompts_of_hrm_text_are_read_in_both_directions(tmp_path):
    """Tokens of type 1 are the prefix; with a cache the prompt is read in one call."""
    theirs = hrm_text(1, F64)
    theirs.save_pretrained(tmp_path)
    model = open_model(tmp_path, dtype=F64).model
    tokens, prefix = torch.randint(23, (2, LENGTH)), torch.zeros(2, LENGTH, dtype=torch.bool)
    prefix[0, :4] = prefix[1, :6] = True
    wanted = theirs(tokens, token_type_ids=prefix.long(), use_cache=False).logits
    torch.testing.assert_close(model(tokens, prefix=prefix).logits, wanted, rtol=1e-7, atol=1e-7)
    assert (model(tokens).logits - wanted).abs().max() > 1e-2
    with torch.no_grad():
        cache = model.new_cache(2, LENGTH)
        first = model(tokens[:, :6], prefix=prefix[:, :6], cache=cache)
        with pytest.raises(ValueError, match="prefix: the cache holds 6 tokens; expected the whole prefix in its"):
            model(tokens[:, :1], prefix=prefix[:, :1], cache=cache)
        rest = model(tokens[:, 6:], cache=cache)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), wanted, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("prefix", [False, True])
def test_texts_of_hrm_text_are_those_of_transformers(tmp_path, prefix):
    theirs = hrm_text(2, torch.float32)
    theirs.save_pretrained(tmp_path)
    model = open_model(tmp_path).model
    prompt = torch.randint(23, (4,))
    options = {"token_type_ids": torch.ones(1, 4, dtype=torch.long)} if prefix else {}
    wanted = theirs.generate(prompt[None], max_new_tokens=5, do_sample=False, pad_token_id=0, **options)[0, 4:]
    found = generate(model, [prompt], max_new_tokens=5, sampling=Sampling(temperature=0.0), prefix=prefix)
    assert found == [wanted.tolist()]


def test_a_cache_changes_no_text(tmp_path):
    """Padding on the left and several loop counts, with a cache and without."""
    for settings, weights in ((ouro_config(3), ouro_weights), (huginn_config(3), huginn_weights)):
        model = opened(tmp_path / settings["model_type"], weights(settings, 3), settings)
        prompts = [torch.randint(21, (length,)) for length in (2, 5)]
        for loops in (1, 3, 6):
            found = generate(model, prompts, max_new_tokens=4, num_loops=loops, sampling=Sampling(temperature=0.0))
            for prompt, text in zip(prompts, found, strict=True):
                read = prompt
                for token in text:
                    assert int(model(read[None], num_loops=loops).logits[0, -1].argmax()) == token, (
                        settings["model_type"],
                        loops,
                    )
                    read = torch.cat([read, torch.tensor([token])])


@pytest.mark.parametrize("family", [hrm_text, albert])
def test_in_32_bits_the_difference_is_rounding(tmp_path, family):
    theirs = family(0, torch.float32)
    theirs.save_pretrained(tmp_path)
    tokens = torch.randint(23, (2, LENGTH))
    wanted, found = theirs(tokens).logits, open_model(tmp_path).model(tokens).logits
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"hidden_act": "relu"}, "hidden_act='relu': expected silu"),
        ({"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}, "sliding_window=4: expected at"),
        ({"attention_bias": True}, "attention_bias=True: expected false"),
    ],
)
def test_an_ouro_that_is_refused(tmp_path, change, expected):
    c = ouro_config(0)
    with pytest.raises(ValueError, match=expected):
        opened(tmp_path, ouro_weights(c, 0), c | change)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"injection_type": "diagonal"}, "injection_type='diagonal': expected linear"),
        ({"test_time_noise": 0.1}, "test_time_noise=0.1: expected false: our loops add no noise"),
        ({"n_layers_in_coda": 0}, "coda_norm=True: has no effect when coda_layers=0"),
    ],
)
def test_a_huginn_that_is_refused(tmp_path, change, expected):
    c = huginn_config(0)
    with pytest.raises(ValueError, match=expected):
        opened(tmp_path, huginn_weights(c, 0), c | change)


def test_an_initial_state_that_has_no_place_is_refused(tmp_path):
    theirs = hrm_text(0, torch.float32)
    with torch.no_grad():
        theirs.model.z_L_init += 1
    theirs.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="unexpected tensor model\\.z_L_init"):
        open_model(tmp_path)
