"""`generate` of transformers writes what `looped` writes, token for token."""

import random

import pytest
import torch
from hf.hf_cases import built, natively, padded, random_config, tokens

pytest.importorskip("transformers")

from looped.hf import to_hf

pytestmark = pytest.mark.usefixtures("one_thread")
GREEDY = {"do_sample": False}


def test_cached_uncached_and_native_texts_are_equal_for_50_random_models():
    chance = random.Random(0)
    texts = set()
    for case in range(50):
        config = random_config(chance)
        native = built(config, seed=case, dtype=torch.double)
        model = to_hf(native)
        rows = [tokens(chance.randint(1, 9), seed=case), tokens(chance.randint(1, 9), seed=case + 100)]
        loops = chance.randint(1, config.most_loops or 6)
        rule = chance.choice([None, "change:0.5", "kl:0.5", "unchanged:1"])
        expected = natively(native, rows, 8, rule, num_loops=loops)
        prompt, how = padded(rows), {"max_new_tokens": 8, "num_loops": loops, "exit_rule": rule, **GREEDY}
        length = prompt["input_ids"].shape[1]
        for cached in (True, False):
            found = model.generate(**prompt, use_cache=cached, **how)
            assert found[:, length:].tolist() == expected, (case, cached, config)
        texts.add(str(expected))
    assert len(texts) > 40
