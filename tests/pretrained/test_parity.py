"""Opened models compute what the classes of `transformers` compute: logits, gradients, padding, caches, texts."""

import pytest
import torch
from tolerance import assert_close

from benchmarks.parity import CASES, ENCODERS, LENGTH, difference, differences, opened, random_model, texts

SEEDS = (0, 1, 2, 3)


@pytest.mark.parametrize("family", [*CASES, *ENCODERS])
def test_logits_and_gradients_in_float64(family):
    for seed in SEEDS:
        theirs = random_model(family, seed, torch.float64)
        ours = opened(theirs, torch.float64)
        assert ours.family == family
        tokens = torch.randint(theirs.config.vocab_size, (3, LENGTH))
        assert theirs(tokens).logits.std() > 0.1
        logits, gradients = differences(theirs, ours, tokens)
        assert logits < 1e-12
        assert gradients < 1e-11


@pytest.mark.parametrize("family", [*CASES, *ENCODERS])
def test_logits_and_gradients_in_float32(family):
    theirs = random_model(family, 0)
    tokens = torch.randint(theirs.config.vocab_size, (3, LENGTH))
    assert max(differences(theirs, opened(theirs), tokens)) < 1e-5


@pytest.mark.parametrize("family", CASES)
def test_padding_on_the_left(family):
    theirs = random_model(family, 1, torch.float64)
    ours = opened(theirs, torch.float64).model
    tokens = torch.randint(theirs.config.vocab_size, (3, 12))
    real = torch.arange(12) >= torch.tensor([[0], [3], [7]])
    positions = (real.cumsum(1) - 1).clamp(min=0)
    wanted = theirs(tokens, attention_mask=real.long(), position_ids=positions).logits[real]
    assert difference(theirs(tokens).logits[real], wanted) > 1e-3
    assert difference(ours(tokens, attention_mask=real, positions=positions).logits[real], wanted) < 1e-12


@pytest.mark.parametrize("family", CASES)
@torch.no_grad()
def test_a_cache_in_chunks_equals_their_full_pass(family):
    theirs = random_model(family, 2, torch.float64)
    ours = opened(theirs, torch.float64).model
    tokens = torch.randint(theirs.config.vocab_size, (2, 20))
    cache = ours.new_cache(2, 20)
    parts = [ours(part, cache=cache).logits for part in tokens.split([1, 7, 2, 10], dim=1)]
    assert_close(torch.cat(parts, dim=1), theirs(tokens).logits)
    heads = theirs.config.num_attention_heads
    per_token = theirs.config.num_hidden_layers * getattr(theirs.config, "num_key_value_heads", heads)
    assert cache.bytes == 2 * 8 * 2 * 20 * per_token * ours.config.head_dim


def test_greedy_texts_are_equal_with_and_without_a_cache():
    for seed in range(len(CASES)):
        theirs = random_model(list(CASES)[seed], seed)
        prompt = torch.randint(theirs.config.vocab_size, (1 + seed,))
        first, *others = texts(theirs, opened(theirs).model, prompt, 16)
        assert all(text == first for text in others)
