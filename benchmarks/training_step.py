"""Speed, memory and compile time of a training step, compared with the plain reference (`make bench`).

All versions run in turn and in one process. The ratios therefore depend little on the load of the machine.
"""

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._inductor.utils import fresh_cache

from benchmarks.reference import PublishedTMLT, copy_weights
from looped.config import ModelConfig
from looped.models import LoopedTransformer
from looped.models.iteration import Recompute
from looped.training.devices import computes_in_bf16, should_compile

D_MODEL, HEADS, LOOPS, SEQ, BATCH, VOCAB = 256, 4, 16, 126, 16, 211


def config(num_loops: int = LOOPS, d_model: int = D_MODEL) -> ModelConfig:
    """The library's model of the same function as the reference."""
    return ModelConfig(
        vocab_size=VOCAB,
        output_size=VOCAB,
        max_seq_len=SEQ,
        d_model=d_model,
        num_heads=HEADS,
        num_loops=num_loops,
        modulation="scale_gate",
        norm_gain=False,
        activation="silu",
    )


def step(forward: Callable[[], Tensor]) -> None:
    forward().float().square().mean().backward()


def speed(repeats: int) -> dict[str, float]:
    """Median seconds of a forward and backward pass, and the speed of each version relative to the reference."""
    torch.manual_seed(0)
    reference = PublishedTMLT(VOCAB, SEQ, D_MODEL, HEADS, LOOPS)
    torch.nn.init.normal_(reference.block.modulation.weight, 0, 0.02)
    eager, compiled = LoopedTransformer(config()), LoopedTransformer(config())
    for model in (eager, compiled):
        copy_weights(reference, model)
    if should_compile(None, torch.device("cpu")):
        compiled.compile_core()
    inputs = torch.randint(VOCAB, (BATCH, SEQ))
    bf16 = computes_in_bf16("cpu")

    def default() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            return compiled(inputs).logits

    def uncompiled() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            return eager(inputs).logits

    versions: dict[str, Callable[[], Tensor]] = {
        "reference, fp32": lambda: reference(inputs),
        "looped, default settings": default,
        "looped, not compiled": uncompiled,
        "looped, fp32, compiled": lambda: compiled(inputs).logits,
        "looped, fp32, not compiled": lambda: eager(inputs).logits,
    }
    seconds: dict[str, list[float]] = {name: [] for name in versions}
    for forward in versions.values():
        step(forward)
    for _ in range(repeats):
        for name, forward in versions.items():
            began = time.perf_counter()
            step(forward)
            seconds[name].append(time.perf_counter() - began)
    result = {}
    for name, times in seconds.items():
        result[f"{name}: seconds"] = statistics.median(times)
        result[f"{name}: times the reference's speed"] = statistics.median(
            r / t for r, t in zip(seconds["reference, fp32"], times, strict=True)
        )
    return result


def peak_states(num_loops: int, recompute: Recompute, batch: int = 4, seq: int = 64, d_model: int = 64) -> float:
    """Peak activation memory of a training step, in units of one state (batch x seq x d_model, float32)."""
    model = LoopedTransformer(config(num_loops, d_model))
    inputs = torch.randint(VOCAB, (batch, seq))
    return peak_bytes(lambda: step(lambda: model(inputs, recompute=recompute).logits)) / (batch * seq * d_model * 4)


def peak_bytes(run: Callable[[], None]) -> int:
    """Peak bytes allocated by torch's CPU allocator during `run`, beyond those allocated before."""
    run()  # allocates the gradients, which stay, before the measurement
    gc.collect()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        run()
    alive = most = 0
    assert profile.profiler is not None
    events: list[Any] = profile.profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess]
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most


def memory() -> dict[str, float]:
    """Peak activation memory in units of one state, and its growth with the number of loops."""
    result = {}
    recompute: Recompute
    for recompute in ("none", "loop", "nested"):
        few, many = peak_states(8, recompute), peak_states(64, recompute)
        result[f"recompute={recompute}: states at 8 loops"] = few
        result[f"recompute={recompute}: states at 64 loops"] = many
        result[f"recompute={recompute}: states per further loop"] = (many - few) / 56
        result[f"recompute={recompute}: 64 loops / 8 loops"] = many / few
    return result


def compile_time() -> dict[str, float]:
    """Compile time in seconds at 4 and 64 loops: first step minus second. Fails on a later recompilation."""
    inputs = torch.randint(VOCAB, (2, 32))

    def first_step(num_loops: int) -> float:
        torch._dynamo.reset()
        model = LoopedTransformer(config(num_loops, 64))
        model.compile_core()
        times = []
        with fresh_cache():
            for _ in range(2):
                began = time.perf_counter()
                step(lambda: model(inputs).logits)
                times.append(time.perf_counter() - began)
        with torch._dynamo.config.patch(error_on_recompile=True):
            for other in (2, num_loops + 3):
                step(lambda other=other: model(inputs, num_loops=other).logits)  # raises on a recompilation
        return times[0] - times[1]

    first_step(4)  # loads the compiler itself
    few, many = first_step(4), first_step(64)
    return {"compile at 4 loops: seconds": few, "compile at 64 loops: seconds": many, "64 loops / 4 loops": many / few}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="timed steps of each version")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    cores = torch.get_num_threads()
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {cores} threads, {platform.machine()}")
    setting = {"d_model": D_MODEL, "heads": HEADS, "loops": LOOPS, "seq": SEQ, "batch": BATCH}
    results: dict[str, object] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "speed_setting": setting}
    results |= {"torch": torch.__version__, "python": platform.python_version(), "threads": cores}
    for part in (lambda: speed(arguments.repeats), memory, compile_time):
        for name, value in part().items():
            print(f"  {name:58} {value:10.3f}")
            results[name] = round(value, 4)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
