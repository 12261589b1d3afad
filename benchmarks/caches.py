"""The cost of cheaper caches: perplexity and memory of language models under each cache policy.

`python -m benchmarks.caches RUN [RUN ...]` runs every model token by token on the same windows of its validation text,
with the policy of its training and with the other policies.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F

from looped.config import CachePolicy
from looped.models import LoopedTransformer
from looped.tasks.base import Batch
from looped.tasks.text import Text, TextConfig
from looped.training import load_run

POLICIES: list[tuple[CachePolicy, int | None]] = [
    ("all", None), ("first", 1), ("first", 2), ("last", 1), ("last", 2), ("ring", 2),
]  # fmt: skip


@torch.no_grad()
def perplexity(model: LoopedTransformer, batch: Batch, policy: CachePolicy, kept: int | None) -> tuple[float, int]:
    """The perplexity of a batch of windows, read token by token, and the cache's bytes per token."""
    size, seq = batch.inputs.shape
    cache = model.new_cache(size, seq, policy=policy, cache_loops=kept)
    steps = [model(batch.inputs[:, i : i + 1], cache=cache).logits for i in range(seq)]
    logits = torch.cat(steps, dim=1)[batch.mask]
    return F.cross_entropy(logits, batch.targets[batch.mask]).exp().item(), cache.bytes // (size * seq)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--windows", type=int, default=256)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    rows = []
    for folder in arguments.runs:
        run, model, step = load_run(folder)
        assert isinstance(run.task, TextConfig)
        batch = Text(run.task).batch("validation", 0, arguments.windows, seed=0)
        trained = (run.model.cache, run.model.cache_loops or (None if run.model.cache == "all" else 1))
        for policy, kept in dict.fromkeys([trained, *POLICIES]):
            value, size = perplexity(model, batch, policy, kept)
            own = "  as trained" if (policy, kept) == trained else ""
            print(f"{folder.name:44} {policy:6} {kept or '':2} {value:9.2f} {size:6} bytes per token{own}")
            row = {"run": folder.name, "step": step, "trained": trained, "policy": policy, "cache_loops": kept}
            rows.append(row | {"perplexity": value, "bytes_per_token": size, "windows": len(batch.inputs)})
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
