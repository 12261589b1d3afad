"""Time of `generate` through `looped.hf`, beside `looped.generate` of the same model.

Both write the same greedy text in turn, in one thread, and the processor's time counts. The ratios therefore depend
little on the load of the machine.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from looped.config import ModelConfig
from looped.hf import to_hf
from looped.models import LoopedTransformer
from looped.models.generation import Sampling, generate
from looped.training.logger import environment

PROMPT, LOOPS = 16, 6


def looped_model(d_model: int, vocab: int, length: int) -> LoopedTransformer:
    """One layer in 6 loops, with tied embeddings, and weights that write varied texts."""
    config = ModelConfig(
        vocab_size=vocab, output_size=vocab, max_seq_len=length, d_model=d_model, num_heads=d_model // 32,
        num_loops=LOOPS, causal=True, positions="rotary", activation="swiglu", tie_embeddings=True,
    )  # fmt: skip
    return LoopedTransformer(config).requires_grad_(False).eval()


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(d_model: int, vocab: int, batch: int, count: int, repeats: int) -> dict[str, float]:
    """Milliseconds of the processor for a token of each text, and the median ratio of neighbouring times."""
    native = looped_model(d_model, vocab, PROMPT + count)
    model = to_hf(native)
    prompts = torch.randint(vocab, (batch, PROMPT), generator=torch.Generator().manual_seed(0))

    def ours() -> list[list[int]]:
        return generate(native, list(prompts), max_new_tokens=count, sampling=Sampling(temperature=0.0))

    def theirs() -> list[list[int]]:
        return model.generate(prompts, max_new_tokens=count, do_sample=False)[:, PROMPT:].tolist()

    assert ours() == theirs()
    times = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    return {
        "looped.generate, ms per step": 1000 * min(own for own, _ in times) / count,
        "looped.hf, ms per step": 1000 * min(other for _, other in times) / count,
        "ratio": statistics.median(other / own for own, other in times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-model", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for d_model in args.d_model:
        for batch in args.batch:
            found = measure(d_model, args.vocab, batch, args.tokens, args.repeats)
            rows.append({"d_model": d_model, "batch": batch, **found})
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
            print(f"d_model {d_model}, batch {batch}: {numbers}", flush=True)
    if args.out:
        result = {
            "vocab": args.vocab,
            "tokens": args.tokens,
            "rows": rows,
            "environment": environment("fp32", torch.device("cpu")),
        }
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
