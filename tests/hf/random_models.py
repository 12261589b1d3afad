"""A script: 50 random models write equal texts with a cache, without one, and in `looped` itself."""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from hf.hf_cases import built, natively, padded, random_config, tokens

from looped.hf import to_hf

torch.set_num_threads(1)
chance = random.Random(0)
seen = set()
for case in range(50):
    config = random_config(chance)
    native = built(config, seed=case, dtype=torch.double)
    model = to_hf(native)
    rows = [tokens(chance.randint(1, 9), seed=case), tokens(chance.randint(1, 9), seed=case + 100)]
    loops = chance.randint(1, config.most_loops or 6)
    rule = chance.choice([None, "change:0.5", "kl:0.5", "unchanged:1"])
    expected = natively(native, rows, 8, rule, num_loops=loops)
    prompt = padded(rows)
    length = prompt["input_ids"].shape[1]
    how = {"num_loops": loops, "exit_rule": rule, "max_new_tokens": 8, "do_sample": False}
    for cached in (True, False):
        found = model.generate(**prompt, use_cache=cached, **how)[:, length:].tolist()
        assert found == expected, (case, cached, rule, config)
    seen.add(str(expected))
assert len(seen) > 40
print(f"50 models, {len(seen)} different texts")
