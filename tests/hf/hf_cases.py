"""Random models, and what the library itself generates with them."""

import random

import torch
from torch import Tensor

from looped.config import ModelConfig
from looped.models import LoopedTransformer, parse_rule
from looped.models.generation import Sampling, generate

TINY = ModelConfig(
    vocab_size=23, output_size=23, max_seq_len=40, causal=True, d_model=16, num_heads=4, core_layers=2, num_loops=3,
    prelude_layers=1, coda_layers=1, positions="rotary", tie_embeddings=True,
)  # fmt: skip

CHOICES = {
    "num_kv_heads": [None, 1, 2],
    "embedding_dim": [None, None, 8],
    "prelude_layers": [0, 1],
    "core_layers": [1, 2],
    "coda_layers": [0, 1],
    "num_loops": [1, 2, 4],
    "layer_order": ["cycle", "cycle", "reverse"],
    "core_tied": ["all", "all", "attention"],
    "lora_rank": [0, 0, 2],
    "norm": ["rms", "layer"],
    "norm_place": ["before", "after", "branch", "before_branch"],
    "loop_norm": [False, True],
    "activation": ["gelu", "swiglu"],
    "bias": [False, True],
    "qk_norm": ["none", "head", "full"],
    "positions": ["learned", "sinusoidal", "rotary", "none"],
    "positions_every_loop": [False, True],
    "input_injection": ["none", "add", "concat"],
    "modulation": ["none", "additive", "scale_gate", "table", "rezero"],
    "timestep": ["index", "both"],
    "max_loops": [None, 6],
    "cache": ["all", "all", "first"],
    "tie_embeddings": [False, True],
}


def random_config(chance: random.Random) -> ModelConfig:
    """A configuration of random options; impossible ones are drawn again."""
    while True:
        options = {name: chance.choice(values) for name, values in CHOICES.items()}
        try:
            return ModelConfig(
                vocab_size=23, output_size=23, max_seq_len=40, causal=True, d_model=16, num_heads=4, **options
            )
        except ValueError:
            continue


def built(config: ModelConfig, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> LoopedTransformer:
    """A model whose loops matter: far from its initial weights, and in evaluation mode."""
    model = LoopedTransformer(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.to(dtype).eval()


def tokens(*shape: int, seed: int = 0, below: int = 23) -> Tensor:
    return torch.randint(1, below, shape, generator=torch.Generator().manual_seed(seed))


def padded(rows: list[Tensor]) -> dict[str, Tensor]:
    """Prompts as `generate` of transformers takes them, padded on the left."""
    length = max(map(len, rows))
    ids = torch.stack([torch.cat([torch.zeros(length - len(row), dtype=torch.long), row]) for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def natively(model: LoopedTransformer, rows: list[Tensor], count: int, rule: str | None = None, **options) -> list:
    """What `looped` itself generates greedily."""
    exits = None if rule is None else parse_rule(rule)
    return generate(model, rows, max_new_tokens=count, sampling=Sampling(temperature=0.0), exit_rule=exits, **options)
