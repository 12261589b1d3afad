"""Speed of text generation: with cache, without cache, and GPT-2 of equal width in `transformers` (`make bench`).

All versions generate the same number of tokens, in turn and in one process. The ratios therefore depend little on
the load of the machine. A GPU also runs batches of 8 and 64, in bf16.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers

from looped.config import ModelConfig
from looped.models import LoopedTransformer
from looped.models.generation import Sampling, generate

D_MODEL, HEADS, LOOPS, PROMPT = 512, 8, 6, 16
GREEDY = Sampling(temperature=0.0)


def looped_model(vocab: int, length: int) -> LoopedTransformer:
    """One layer looped once for each layer of GPT-2, with GPT-2's LayerNorm, biases and tied embeddings."""
    return LoopedTransformer(
        ModelConfig(
            vocab_size=vocab,
            output_size=vocab,
            max_seq_len=length,
            d_model=D_MODEL,
            num_heads=HEADS,
            num_loops=LOOPS,
            causal=True,
            norm="layer",
            bias=True,
            activation="gelu_tanh",
            tie_embeddings=True,
        )
    ).eval()


def gpt2(vocab: int, length: int) -> transformers.GPT2LMHeadModel:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=vocab,
            n_positions=length,
            n_embd=D_MODEL,
            n_layer=LOOPS,
            n_head=HEADS,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()


@torch.no_grad()
def without_cache(model: LoopedTransformer, tokens: torch.Tensor, count: int) -> list[int]:
    """Greedy generation with a full forward pass per token, which computes only the last position's logits."""
    for _ in range(count):
        token = model(tokens, last_logits=1).logits[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, token], dim=1)
    return tokens[0, -count:].tolist()


def measure(vocab: int, count: int, batch: int, repeats: int, device: torch.device) -> dict[str, float]:
    """Tokens per second, and ratios of times that were measured one after another."""
    torch.manual_seed(0)
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = looped_model(vocab, PROMPT + count).to(device, kind)
    other = gpt2(vocab, PROMPT + count).to(device=device, dtype=kind)  # pyright: ignore[reportCallIssue]
    prompt = torch.randint(vocab, (batch, PROMPT), device=device)

    def cached(n: int) -> None:
        texts = generate(model, list(prompt), max_new_tokens=n, sampling=GREEDY)
        assert {len(text) for text in texts} == {n}

    def theirs(n: int) -> None:
        out = other.generate(  # pyright: ignore[reportCallIssue]
            prompt, max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0
        )
        assert out.shape == (batch, PROMPT + n)

    versions: dict[str, Callable[[int], object]] = {"cached": cached, "GPT-2": theirs}
    if batch == 1:
        versions["without cache"] = lambda n: without_cache(model, prompt, n)
        few = min(count, 32)
        assert (
            without_cache(model, prompt, few) == generate(model, list(prompt), max_new_tokens=few, sampling=GREEDY)[0]
        )
    seconds: dict[str, list[float]] = {name: [] for name in versions}
    for write in versions.values():
        write(min(count, 8))
    for _ in range(repeats):
        for name, write in versions.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            write(count)
            seconds[name].append(time.perf_counter() - began)
    result = {}
    for name, times in seconds.items():
        result[f"{name}: tokens a second"] = batch * count / statistics.median(times)
        ratios = [t / c for t, c in zip(times, seconds["cached"], strict=True)]
        result[f"{name}: its time / cached"] = statistics.median(ratios)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vocab", type=int, nargs="+", default=[256, 50257], help="bytes, and GPT-2's")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    results: dict[str, object] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "device": name, **versions}
    results |= {"python": platform.python_version(), "tokens": arguments.tokens, "repeats": arguments.repeats}
    print(", ".join(f"{key} {value}" for key, value in results.items()))
    for vocab in arguments.vocab:
        for batch in (1, 8, 64) if device.type == "cuda" else (1,):
            for name, value in measure(vocab, arguments.tokens, batch, arguments.repeats, device).items():
                key = f"vocabulary {vocab}, batch {batch}, {name}"
                print(f"  {key:62} {value:10.3f}")
                results[key] = round(value, 4)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
