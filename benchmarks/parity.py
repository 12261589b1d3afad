"""Opened models beside the classes of `transformers`, on small random configurations: python -m benchmarks.parity.

For each family: the largest relative difference of logits and of gradients in float32. Then greedy texts, token for
token: theirs, and ours with and without a cache.
"""

import argparse
import copy
import random
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor

from benchmarks.decoding import without_cache
from looped.models import LoopedTransformer, Sampling, generate
from looped.pretrained import Opened, open_model

LENGTH = 40
"""The longest input of the random models."""


def like_llama(rng: random.Random, **others: Any) -> dict[str, Any]:
    """Random sizes, with heads that share keys."""
    kv_heads, groups, width = rng.choice((1, 2, 3)), rng.choice((1, 2, 4)), rng.choice((16, 18, 24))
    hidden = kv_heads * groups * width
    return {
        "vocab_size": rng.randint(30, 130),
        "hidden_size": hidden,
        "intermediate_size": rng.randint(20, 90),
        "num_hidden_layers": rng.randint(1, 4),
        "num_attention_heads": kv_heads * groups,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": LENGTH,
        "rms_norm_eps": rng.choice((1e-6, 1e-5, 1e-3)),
        "tie_word_embeddings": rng.random() < 0.5,
        "initializer_range": hidden**-0.5,
        "rope_parameters": rng.choice(
            (
                {"rope_type": "default", "rope_theta": rng.choice((1e4, 1e6))},
                {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
                {
                    "rope_type": "llama3",
                    "rope_theta": 5e5,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 20,
                },
            )
        ),
        **others,
    }


def like_gpt2(rng: random.Random) -> dict[str, Any]:
    heads = rng.choice((1, 2, 4))
    width = heads * rng.choice((9, 16, 24))
    return {
        "vocab_size": rng.randint(30, 130),
        "n_positions": LENGTH,
        "n_embd": width,
        "n_layer": rng.randint(1, 4),
        "n_head": heads,
        "n_inner": rng.choice((None, 30)),
        "activation_function": rng.choice(("gelu_new", "gelu", "relu")),
        "layer_norm_epsilon": rng.choice((1e-5, 1e-3)),
        "initializer_range": width**-0.5,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def like_hrm_text(rng: random.Random) -> dict[str, Any]:
    heads, inner, loops = rng.choice((1, 2, 4)), rng.randint(1, 3), rng.randint(1, 3)
    return {
        "vocab_size": rng.randint(30, 130),
        "hidden_size": heads * 12,
        "intermediate_size": rng.randint(20, 90),
        "num_hidden_layers": rng.randint(1, 2),
        "num_attention_heads": heads,
        "head_dim": rng.choice((6, 16)),
        "max_position_embeddings": LENGTH,
        "H_cycles": loops,
        "L_cycles": inner,
        "L_bp_cycles": [inner] * loops,  # the gradient of all cycles, as ours
        "initializer_range": (heads * 12) ** -0.5,
        "tie_word_embeddings": rng.random() < 0.5,
    }


def like_albert(rng: random.Random) -> dict[str, Any]:
    heads, groups = rng.choice((1, 2, 4)), rng.choice((1, 1, 2))
    return {
        "vocab_size": rng.randint(30, 130),
        "embedding_size": rng.choice((8, 40)),
        "hidden_size": heads * 12,
        "intermediate_size": rng.randint(20, 90),
        "num_hidden_layers": groups * rng.randint(1, 6),
        "num_hidden_groups": groups,
        "inner_group_num": 1 if groups > 1 else rng.randint(1, 2),
        "num_attention_heads": heads,
        "max_position_embeddings": LENGTH,
        "hidden_act": rng.choice(("gelu_new", "gelu", "relu")),
        "initializer_range": (heads * 12) ** -0.5,
    }


CASES: dict[str, Callable[[random.Random], transformers.PreTrainedConfig]] = {
    "llama": lambda rng: transformers.LlamaConfig(**like_llama(rng)),
    "mistral": lambda rng: transformers.MistralConfig(**like_llama(rng, sliding_window=rng.choice((None, LENGTH)))),
    "qwen2": lambda rng: transformers.Qwen2Config(**like_llama(rng)),
    "qwen3": lambda rng: transformers.Qwen3Config(**like_llama(rng, head_dim=rng.choice((6, 16)))),
    "olmo2": lambda rng: transformers.Olmo2Config(**like_llama(rng)),
    "gpt2": lambda rng: transformers.GPT2Config(**like_gpt2(rng)),
    "hrm_text": lambda rng: transformers.HrmTextConfig(**like_hrm_text(rng)),
}
"""A random configuration of each family that continues texts."""
ENCODERS = {"albert": lambda rng: transformers.AlbertConfig(**like_albert(rng))}
"""The same for families that fill in masked tokens."""


def random_model(family: str, seed: int, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """A small model of `transformers`. Gains and biases are random too, since initial ones would hide a mistake.

    In float64 its norms are replaced by PyTorch's, because those of `transformers` compute in float32. `settings` are
    further ones of its configuration.
    """
    torch.manual_seed(seed)
    config = {**CASES, **ENCODERS}[family](random.Random(seed))
    for name, value in {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None, **settings}.items():
        setattr(config, name, value)
    kind = transformers.AutoModelForMaskedLM if family in ENCODERS else transformers.AutoModelForCausalLM
    model: Any = kind.from_config(config, attn_implementation="sdpa").to(dtype)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1 and weight.requires_grad:
                weight += 0.3 * torch.randn_like(weight)
    for name, norm in list(model.named_modules()):
        if dtype == torch.float64 and type(norm).__name__.endswith("RMSNorm"):
            gain: Any = getattr(norm, "weight", None)
            epsilon = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
            exact: Any = torch.nn.RMSNorm(config.hidden_size if gain is None else len(gain), eps=epsilon, dtype=dtype)
            exact.weight = gain
            model.set_submodule(name, exact)
    return model.eval()


def opened(model: Any, dtype: torch.dtype = torch.float32) -> Opened:
    """The model, saved and opened as ours."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return open_model(folder, dtype=dtype)


@torch.no_grad()
def gradients_of(theirs: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """The gradients of their model by the names of our weights: saved and opened as if they were its weights."""
    graded = copy.deepcopy(theirs)
    for (name, copied), weight in zip(graded.named_parameters(), theirs.parameters(), strict=True):
        added = "token_type" in name  # to positions, whose gradient is then that of the sum
        copied.copy_(torch.zeros_like(weight) if weight.grad is None or added else weight.grad)
    return {name: weight.detach() for name, weight in opened(graded, dtype).model.named_parameters()}


@torch.no_grad()
def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def differences(theirs: Any, ours: Opened, tokens: Tensor) -> tuple[float, float]:
    """The largest relative difference of logits, and that of the gradients of a loss."""
    outputs = [theirs(tokens).logits, ours.model(tokens).logits]
    for model, logits in zip((theirs, ours.model), outputs, strict=True):
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    weights = dict(ours.model.named_parameters())
    wanted = gradients_of(theirs, ours.model.embed.weight.dtype)
    assert wanted.keys() == weights.keys()
    worst = 0.0
    for name, gradient in wanted.items():
        found = weights[name].grad
        assert found is not None
        worst = max(worst, difference(found, gradient))
    return difference(outputs[1], outputs[0]), worst


def texts(theirs: Any, ours: LoopedTransformer, prompt: Tensor, count: int) -> list[list[int]]:
    """Greedy continuations of a prompt: theirs, ours, and ours without a cache."""
    options = {"max_new_tokens": count, "do_sample": False, "pad_token_id": 0}
    their = theirs.generate(prompt[None], attention_mask=torch.ones_like(prompt)[None], **options)[0, len(prompt) :]
    our = generate(ours, [prompt], max_new_tokens=count, sampling=Sampling(temperature=0.0))[0]
    return [their.tolist(), our, without_cache(ours, prompt[None], count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=20, help="of each family, for logits and gradients")
    parser.add_argument("--texts", type=int, default=50, help="random models whose texts are compared")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    began = time.perf_counter()
    print(f"largest relative difference to transformers {transformers.__version__}, float32, {arguments.models} models")
    for family in (*CASES, *ENCODERS):
        worst = [0.0, 0.0]
        for seed in range(arguments.models):
            theirs = random_model(family, seed)
            ours = opened(theirs)
            tokens = torch.randint(theirs.config.vocab_size, (3, LENGTH))
            worst = [max(pair) for pair in zip(worst, differences(theirs, ours, tokens), strict=True)]
        print(f"  {family:8} logits {worst[0]:.1e}   gradients {worst[1]:.1e}")
    equal = 0
    for seed in range(arguments.texts):
        theirs = random_model(list(CASES)[seed % len(CASES)], seed)
        ours = opened(theirs).model
        prompt = torch.randint(theirs.config.vocab_size, (1 + seed % 9,))
        first, *others = texts(theirs, ours, prompt, 24)
        equal += all(text == first for text in others)
    print(f"greedy texts of 24 tokens, theirs = ours = ours without a cache: {equal} of {arguments.texts} models")
    print(f"{time.perf_counter() - began:.0f} seconds")


if __name__ == "__main__":
    main()
