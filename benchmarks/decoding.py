"""Speed of text generation, beside GPT-2 of equal width in `transformers` and beside older versions (`make bench`).

`--opened` compares GPT-2 and Llama of 6 layers, opened by `looped.pretrained`, with the classes that they come from.
The time includes the prompts, which are short or long.

All versions generate the same number of tokens in turn, on a CPU in one thread, where only the processor's time counts.
The ratios therefore depend little on the load of the machine. `--older FOLDER` adds the version in another checkout,
which runs in a process of its own in each round. A GPU also runs batches of 64, in bf16.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import transformers

from looped.config import ModelConfig, OutputWeights
from looped.models import LoopedTransformer
from looped.models.generation import Sampling, generate
from looped.pretrained import open_model
from looped.training.logger import environment

D_MODEL, HEADS, LOOPS, PROMPT = 512, 8, 6, 16
GREEDY, ANY = Sampling(temperature=0.0), Sampling()


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


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the processor; with a GPU, of the clock."""
    if device.type == "cpu":
        began = time.process_time()
        work()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


OLDER = """
import inspect, sys, time, torch
from benchmarks.decoding import PROMPT, looped_model
from looped.models.generation import Sampling, generate, stream
vocab, count, batch, sampling = *map(int, sys.argv[1:4]), Sampling(temperature=float(sys.argv[4]))
torch.set_num_threads(1)
torch.manual_seed(0)
model = looped_model(vocab, PROMPT + count)
prompts = list(torch.randint(vocab, (batch, PROMPT)))
limit = "max_new_tokens" if "max_new_tokens" in inspect.signature(stream).parameters else "count"  # an older name
generate(model, prompts, **{limit: 8}, sampling=sampling)
began = time.process_time()
generate(model, prompts, **{limit: count}, sampling=sampling)
print(time.process_time() - began)
"""


def commit(folder: Path) -> str:
    """The commit of a checkout."""
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def older(folder: Path, vocab: int, count: int, batch: int, temperature: float) -> float:
    """Seconds of the version in `folder`, in a process of its own."""
    command = [sys.executable, "-c", OLDER, str(vocab), str(count), str(batch), str(temperature)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    return float(subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True, text=True).stdout)


def measure(
    vocab: int, count: int, batch: int, repeats: int, device: torch.device, folder: Path | None
) -> dict[str, float]:
    """Tokens per second, and ratios of times that were measured one after another."""
    torch.manual_seed(0)
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = looped_model(vocab, PROMPT + count).to(device, kind)
    other = gpt2(vocab, PROMPT + count).to(device=device, dtype=kind)  # pyright: ignore[reportCallIssue]
    prompt = torch.randint(vocab, (batch, PROMPT), device=device)

    def ours(n: int, sampling: Sampling = GREEDY, output_weights: OutputWeights = "exact") -> list[list[int]]:
        return generate(model, list(prompt), max_new_tokens=n, sampling=sampling, output_weights=output_weights)

    def theirs(n: int) -> None:
        out = other.generate(  # pyright: ignore[reportCallIssue]
            prompt, max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0
        )
        assert out.shape == (batch, PROMPT + n)

    versions: dict[str, Callable[[int], object]] = {"ours": ours, "GPT-2": theirs}
    versions["ours, temperature 1"] = lambda n: ours(n, ANY)
    if device.type == "cpu":
        versions["ours, temperature 1, int8"] = lambda n: ours(n, ANY, "int8")
    if batch == 1:
        versions["ours, no cache"] = lambda n: without_cache(model, prompt, n)
        few = min(count, 32)
        assert without_cache(model, prompt, few) == ours(few)[0]
    times: dict[str, list[float]] = {name: [] for name in versions}
    for write in versions.values():
        write(min(count, 8))
    for _ in range(repeats):
        for name, write in versions.items():
            times[name].append(seconds(partial(write, count), device))
        if folder is not None:
            for name, temperature in (("older version", 0), ("older version, temperature 1", 1)):
                times.setdefault(name, []).append(older(folder, vocab, count, batch, temperature))
    result = {}
    for name, taken in times.items():
        result[f"{name}: tokens a second"] = batch * count / statistics.median(taken)
        result[f"{name}: its time / ours"] = statistics.median(t / c for t, c in zip(taken, times["ours"], strict=True))
    return result


OPENED = {
    "gpt2": lambda: transformers.GPT2Config(vocab_size=50257, n_embd=D_MODEL, n_layer=6, n_head=HEADS),
    "llama": lambda: transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=D_MODEL,
        intermediate_size=1408,
        num_hidden_layers=6,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
}


def measure_opened(family: str, batch: int, prompt: int, count: int, repeats: int) -> dict[str, float]:
    """Seconds of an opened model and of its own class for the same greedy texts, and their ratio."""
    torch.manual_seed(0)
    config = OPENED[family]()
    config.bos_token_id = config.eos_token_id = None
    their = transformers.AutoModelForCausalLM.from_config(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        their.save_pretrained(folder)
        our = open_model(folder).model
    prompts = torch.randint(30_000, (batch, prompt))
    mask, options = torch.ones_like(prompts), {"max_new_tokens": count, "do_sample": False, "pad_token_id": 0}

    def ours() -> list[list[int]]:
        return generate(our, list(prompts), max_new_tokens=count, sampling=GREEDY)

    def theirs() -> list[list[int]]:
        return their.generate(prompts, attention_mask=mask, **options)[:, prompt:].tolist()

    assert ours() == theirs()
    times = [(seconds(ours, our.device), seconds(theirs, our.device)) for _ in range(repeats)]
    return {
        "ours": statistics.median(a for a, _ in times),
        "theirs": statistics.median(b for _, b in times),
        "their time / ours": statistics.median(b / a for a, b in times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vocab", type=int, nargs="+", default=[256, 50257], help="bytes, and GPT-2's")
    parser.add_argument("--older", type=Path, help="a checkout of another version to compare with, on a CPU")
    parser.add_argument("--opened", action="store_true", help="opened models beside their own classes, and no others")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    results: dict[str, object] = environment("bf16" if device.type == "cuda" else "fp32", device)
    results |= {"commit": commit(Path(__file__).parent), "older": arguments.older and commit(arguments.older)}
    results |= {"transformers": transformers.__version__, "tokens": arguments.tokens, "repeats": arguments.repeats}
    print("\n".join(f"{key}: {value}" for key, value in results.items()))
    for family in OPENED if arguments.opened else ():
        for batch, prompt, count in ((1, 16, 128), (1, 512, 1), (1, 512, 32), (8, 16, 64), (8, 128, 32)):
            found = measure_opened(family, batch, prompt, count, arguments.repeats)
            key = f"{family}, batch {batch}, prompt of {prompt}, {count} new tokens"
            print(f"  {key:62} " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
            results |= {f"{key}, {name}": round(value, 4) for name, value in found.items()}
    for vocab in () if arguments.opened else arguments.vocab:
        for batch in (1, 8, 64) if device.type == "cuda" else (1, 8):
            found = measure(vocab, arguments.tokens, batch, arguments.repeats, device, arguments.older)
            for name, value in found.items():
                key = f"vocabulary {vocab}, batch {batch}, {name}"
                print(f"  {key:62} {value:10.3f}")
                results[key] = round(value, 4)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
