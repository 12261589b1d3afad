"""Tokens that a causal model writes, one at a time."""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from looped.models.transformer import LoopedTransformer


@torch.no_grad()
def generate(
    model: LoopedTransformer,
    prompt: Int[Tensor, " seq"],
    *,
    count: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    vocab_size: int | None = None,
    num_loops: int | None = None,
) -> Iterator[int]:
    """Yield `count` tokens that continue `prompt`, each drawn given all before it.

    Every token takes a full forward pass. Once the text is longer than the model's positions, only its last
    max_seq_len tokens are seen.

    Args:
        prompt: at least one token, on any device.
        generator: on the cpu; untouched when temperature=0.
        temperature: divides the logits; 0 takes the most probable token.
        top_k: draw among so many of the most probable tokens; None is all.
        vocab_size: the tokens that exist, where the model's outputs are padded; None is all outputs.
        num_loops: None is the configuration's.

    Raises:
        ValueError: for a model that is not causal, an empty prompt or one longer than max_seq_len, and settings
            out of range.
    """
    limit = model.config.max_seq_len or 0
    if not model.config.causal:
        raise ValueError("model.causal=False: expected a causal model; others do not predict what follows")
    if not 1 <= len(prompt) <= limit:
        raise ValueError(f"a prompt of {len(prompt)} tokens: expected 1 to max_seq_len={limit}")
    if count < 1:
        raise ValueError(f"tokens={count}: expected at least 1")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: expected at least 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k}: expected at least 1")
    tokens = prompt.to(next(model.parameters()).device)
    for _ in range(count):
        logits = model(tokens[None, -limit:], num_loops=num_loops).logits[0, -1, :vocab_size].double().cpu()
        if temperature == 0:
            token = logits.argmax()[None]
        else:
            logits, ids = logits.topk(min(top_k or len(logits), len(logits)))
            token = ids[torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)]
        yield int(token)
        tokens = torch.cat([tokens, token.to(tokens)])
