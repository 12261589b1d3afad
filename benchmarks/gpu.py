"""Everything to check and measure on a GPU, in at most ten minutes: `python -m benchmarks.gpu --out runs/gpu`.

Each part runs in a process of its own, because an error on a GPU can spoil the process, and has a limit of time. It
writes OUT/PART.json after every value. A part that fails or takes too long leaves its values and the error. With
`--device cpu --small` the whole script runs in seconds, to test the script itself.
"""

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from benchmarks.gpu_steps import Results, Setting, Way, boards, on_random_boards, stepper, sudoku
from benchmarks.training_step import peak_bytes
from looped.config import ModelConfig, RunConfig, TrainConfig
from looped.costs.count import logits_in_training, training_flops
from looped.files import write_atomic
from looped.models import LoopedTransformer
from looped.models.exit_rules import StateChange, Unchanged
from looped.models.generation import Sampling, generate
from looped.models.iteration import Recompute
from looped.recipes import complete
from looped.tasks.base import Batch
from looped.tasks.sudoku import SudokuConfig
from looped.training import train
from looped.training.devices import computes_in_bf16, matmul_peak, should_compile
from looped.training.logger import environment
from looped.training.queue import REPEATS
from looped.training.step import ModelWithLoss

STORED = Path(__file__).resolve().parents[1] / "results/sudoku/summary.json"
"""The run of 12,492 steps with which the training is compared."""


def difference(one: list[Tensor], other: list[Tensor]) -> float:
    """Norm of the difference relative to the norm, in float64 on the cpu."""
    a, b = (torch.cat([x.detach().double().cpu().flatten() for x in xs]) for xs in (one, other))
    return ((a - b).norm() / b.norm()).item()


def equality(setting: Setting, results: Results) -> None:
    """Losses, gradients, exits and decoding compared with the CPU in fp32, as relative differences."""
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "modulated": {"modulation": "scale_gate", "gate_offset": 1, "norm_gain": False},
        "causal, rotary": {"causal": True, "positions": "rotary", "norm": "layer", "bias": True},
    }
    cpu, far = torch.device("cpu"), list[str]()

    def compare(name: str, value: float, limit: float) -> None:
        results.add(name, value)
        if not value <= limit:
            far.append(f"{name}: {value:.2g}, expected at most {limit:.2g}")

    for name, options in kinds.items():
        sizes: dict[str, Any] = {"vocab_size": 10, "output_size": 10, "max_seq_len": 81, "d_model": 64, "num_heads": 4}
        config = ModelConfig(**sizes, num_loops=4, **options)
        batch = boards(RunConfig(model=config, task=SudokuConfig(), train=TrainConfig(batch_size=4)), 0)
        real = torch.arange(81) < torch.tensor([81, 81, 60, 40])[:, None]
        batch = batch._replace(attention_mask=real, mask=batch.mask & real)

        def gradients(
            device: torch.device, bf16: bool, compiled: bool, config: ModelConfig = config, batch: Batch = batch
        ) -> list[Tensor]:
            model = LoopedTransformer(config).to(device)
            if compiled:
                model.compile_core()
            moved = batch.map(lambda tensor: tensor.to(device))
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss, _ = ModelWithLoss(model, TrainConfig(loss="all"))(moved, True, 4, 4)
            loss.backward()
            return [loss, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]

        loss, *expected = gradients(cpu, False, False)
        for bf16 in (False, True):
            for compiled in (False, True):
                if compiled and (setting.small or name != "modulated" or not should_compile(None, setting.device)):
                    continue
                found, *others = gradients(setting.device, bf16, compiled)
                what = f"{name}, {'bf16' if bf16 else 'fp32'}{', compiled' if compiled else ''}"
                compare(f"{what}: loss", difference([found], [loss]), 0.01 if bf16 else 1e-5)
                compare(f"{what}: gradients", difference(others, expected), 0.05 if bf16 else 1e-4)
        models = [LoopedTransformer(config).to(device).eval() for device in (cpu, setting.device)]
        for rule in (StateChange(threshold=0.3), Unchanged(loops=1, per="token")):
            with torch.no_grad():
                outputs = [
                    model(batch.inputs.to(model.device), attention_mask=real.to(model.device), exit_rule=rule)
                    for model in models
                ]
            taken = [output.loops_taken for output in outputs]
            what = f"{name}, {type(rule).__name__}"
            unequal = (taken[0] != taken[1].cpu()).double().mean().item()
            compare(f"{what}: share of tokens with other loops", unequal, 0.01)
            compare(f"{what}: logits", difference([outputs[1].logits], [outputs[0].logits]), 0.01)
        if config.causal:
            texts = [
                generate(model, list(batch.inputs[:, :9].to(model.device)), max_new_tokens=30, sampling=GREEDY)
                for model in models
            ]
            compare(f"{name}: texts that differ", sum(a != b for a, b in zip(*texts, strict=True)), 0)
    losses: dict[str, list[float]] = {}
    for device in dict.fromkeys(("cpu", setting.device.type)):
        for way in get_args(Way):
            small = dataclasses.replace(setting, small=True)
            run = on_random_boards(sudoku(small, device=device, precision="fp32", compile=False))
            _, start, read = stepper(run, way)
            for number in range(REPEATS + 8):
                start(boards(run, number))
            losses[f"{device}, {way}"] = read()
    first = torch.tensor(losses["cpu, waits"])
    for name, values in losses.items():
        worst = ((torch.tensor(values) - first) / first).abs().max().item()
        compare(f"losses of {len(values)} steps, {name}: largest difference", worst, 0.01)  # Muon computes in bf16
    if far:
        raise ValueError("; ".join(far))


def step(setting: Setting, results: Results) -> None:
    """Speed of the Sudoku recipe's step: share of the matmul peak, synchronisations, the longest kernels."""
    bf16 = computes_in_bf16(setting.device.type)
    peak = matmul_peak(setting.device, bf16)
    results.add("matmul peak, FLOP/s", peak)
    compiles = [False] if setting.small else [True, False]
    ways: list[Way] = ["recorded", "queued", "waits"]
    # The most important first, because time may run out.
    cases: list[tuple[int, bool, Way]] = [(256, compiles[0], way) for way in ways]
    cases.extend((256 * times, compiles[0], ways[0]) for times in (() if setting.small else (2, 3)))
    cases.extend((256, compiled, way) for compiled in compiles[1:] for way in ways)
    for size, compiled, way in cases:
        name = f"batch {size}, {'compiled' if compiled else 'eager'}, {way}"
        if setting.left < 0:
            results.add(f"{name}: left out", "no time")
            continue
        run = on_random_boards(sudoku(setting, batch_size=size, compile=compiled))
        results.attempt(name, partial(measured_step, setting, run, way, peak))


def measured_step(setting: Setting, run: RunConfig, way: Way, peak: float) -> dict[str, Any]:
    """Speed of a step after its first ones, which compile and record it."""
    _, start, read = stepper(run, way)
    batches = itertools.cycle([boards(run, number) for number in range(2)])
    began = time.perf_counter()
    for _ in range(REPEATS + 3):
        start(next(batches))
    read()
    first = time.perf_counter() - began
    seconds = setting.seconds(lambda: start(next(batches)), 2 if setting.small else 50)
    loops, size = run.model.num_loops, run.train.batch_size
    flops = size * training_flops(run.model, 81, loops, loops, logits_in_training(run, loops))
    values: dict[str, Any] = {
        "milliseconds": round(1e3 * seconds, 3),
        "share of the matmul peak": round(flops / seconds / peak, 5),
        "boards a second": round(size / seconds, 1),
        f"first {REPEATS + 3} steps, seconds": round(first, 2),
        "losses are finite": bool(torch.tensor(read()).isfinite().all()),
    }
    if setting.device.type == "cuda":
        values["synchronisations in 3 steps"] = synchronisations(lambda: start(next(batches)))
        values["longest kernels"] = longest_kernels(lambda: start(next(batches)))
    return values


def synchronisations(run: Callable[[], None], steps: int = 3) -> dict[str, int]:
    """The places where the host waits for the GPU, with counts."""
    found: dict[str, int] = {}
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(steps):
                run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "synchroniz" in str(warning.message):
            place = f"{Path(warning.filename).name}:{warning.lineno}"
            found[place] = found.get(place, 0) + 1
    return found


def longest_kernels(run: Callable[[], None], steps: int = 3) -> dict[str, Any]:
    """Milliseconds per step of all kernels together and of the twelve that take longest, with their counts."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(steps):
            run()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in events) / steps / 1e3
    return {"all": round(total, 3), "number": sum(event.count for event in events) // steps} | {
        event.key[:80]: [round(event.self_device_time_total / steps / 1e3, 3), event.count // steps]
        for event in events[:12]
    }


def memory(setting: Setting, results: Results) -> None:
    """Peak memory and time of a forward and backward pass, for each level of recomputation."""
    for num_loops in (2,) if setting.small else (8, 64):
        for recompute in get_args(Recompute):
            name = f"recompute={recompute}, {num_loops} loops"
            if setting.left < 0:
                results.add(f"{name}: left out", "no time")
            else:
                results.attempt(name, partial(measured_memory, setting, recompute, num_loops))


def measured_memory(setting: Setting, recompute: Recompute, num_loops: int) -> dict[str, float]:
    run = on_random_boards(sudoku(setting))
    model = LoopedTransformer(dataclasses.replace(run.model, num_loops=num_loops)).to(setting.device)
    inputs = boards(run, 0).inputs.to(setting.device)

    def step() -> None:
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=computes_in_bf16(setting.device.type)):
            logits = model(inputs, recompute=recompute).logits
        logits.float().square().mean().backward()

    if setting.device.type == "cuda":
        step()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        size = torch.cuda.max_memory_allocated() - before
    else:
        size = peak_bytes(step)
    seconds = setting.seconds(step, 1 if setting.small else 5)
    return {"peak megabytes": round(size / 1e6, 2), "milliseconds": round(1e3 * seconds, 3)}


GREEDY = Sampling(temperature=0.0)


def decoding(setting: Setting, results: Results) -> None:
    """Tokens a second of greedy decoding: d=512, 6 loops, in bf16 on a GPU."""
    width, count, vocabularies, batches = 512, 256, (256, 50257), (1, 8, 64)
    if setting.small:
        width, count, vocabularies, batches = 32, 8, (16,), (1, 2)
    kind = torch.bfloat16 if setting.device.type == "cuda" else torch.float32
    for vocab in vocabularies:
        config = ModelConfig(
            vocab_size=vocab, output_size=vocab, max_seq_len=16 + count, d_model=width, num_heads=8, num_loops=6,
            causal=True, norm="layer", bias=True, activation="gelu_tanh", tie_embeddings=True,
        )  # fmt: skip
        model = LoopedTransformer(config).to(setting.device, kind).eval()
        for batch in batches:
            if setting.left < 0:
                return results.add(f"vocabulary {vocab}, batch {batch}: left out", "no time")
            prompts = list(torch.randint(vocab, (batch, 16), device=setting.device))

            def write(n: int, model: LoopedTransformer = model, prompts: list[Tensor] = prompts) -> list[list[int]]:
                return generate(model, prompts, max_new_tokens=n, sampling=GREEDY)

            write(8)
            seconds = setting.seconds(lambda: write(count), 1)
            results.add(f"vocabulary {vocab}, batch {batch}: tokens a second", batch * count / seconds)
    return None


def training(setting: Setting, results: Results) -> None:
    """The Sudoku recipe until the time is up or the stored run's steps, compared with the stored run."""
    began = time.monotonic()
    few = {"steps": 20, "eval_every": 10, "eval_examples": 16, "log_every": 5}
    run = sudoku(setting, **(few if setting.small else {}))
    if setting.files:
        run = dataclasses.replace(run, task=SudokuConfig(files=setting.files))
    results.add("puzzles", list(setting.files) or "generated; scores do not compare with the stored run's")
    run = complete(run)
    folder = results.path.parent / "sudoku"
    results.add("seconds to prepare the puzzles", time.monotonic() - began)
    # Ends the training as Ctrl+C does, with a checkpoint and a summary.
    timer = threading.Timer(max(1.0, setting.left - 5), os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        summary = train(run, folder)
    finally:
        timer.cancel()
    stored = json.loads(STORED.read_text())
    for name in ("steps", "seconds", "finished", "best"):
        results.add(name, summary[name])
        results.add(f"{name}, stored run", stored[name])
    pace, before = (one["seconds"] / one["steps"] for one in (summary, stored))
    results.add("time of a step / stored run's, with compilation and validation", pace / before)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steady = [line for line in lines if line["kind"] == "train"][1:]
    for name in ("matmul_share", "examples_per_s", "data_wait", "peak_memory"):
        results.add(f"{name}, median", torch.tensor([float(line[name]) for line in steady]).median().item())
    scores = [(line["step"], line["seconds"], line["scores"]["board"]) for line in lines if "scores" in line]
    results.add("step, seconds and share of boards at each validation", scores)


# In the order of their importance, with their shares of the time; the last one takes what is left.
PARTS: dict[str, tuple[Callable[[Setting, Results], None], float]] = {
    "equality": (equality, 0.15),
    "step": (step, 0.25),
    "memory": (memory, 0.1),
    "decoding": (decoding, 0.13),
    "training": (training, 1.0),
}


def run_part(name: str, setting: Setting, out: Path) -> None:
    """The main function of a part's process."""
    results = Results(out / f"{name}.json")
    try:
        precision = "bf16" if computes_in_bf16(setting.device.type) else "fp32"
        results.values |= environment(precision, setting.device)
        PARTS[name][0](setting, results)
    except Exception:
        results.add("error", traceback.format_exc())
        sys.exit(1)


def main(arguments: list[str] | None = None) -> int:
    """Run all parts. Returns the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON files")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--minutes", type=float, default=9.5, help="time for all parts")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to test this script")
    parser.add_argument("--files", nargs="*", default=[], help="puzzles, as --task.files of the stored run")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(device=torch.device(given.device), small=given.small, files=tuple(given.files))
    end, failed = time.monotonic() + 60 * given.minutes, 0
    print(f"{datetime.now(UTC).isoformat(timespec='seconds')}  torch {torch.__version__}, {given.minutes} minutes")
    for name in given.parts:
        limit = min(end - time.monotonic(), 60 * given.minutes * PARTS[name][1])
        print(f"{name}: at most {limit:.0f} s", flush=True)
        own = dataclasses.replace(setting, until=time.monotonic() + 0.85 * limit)
        # Forked, because this process has loaded everything but has not touched the GPU.
        process = multiprocessing.get_context("fork").Process(target=run_part, args=(name, own, given.out))
        process.start()
        process.join(max(1.0, limit))
        if process.is_alive():
            process.kill()
            process.join()
        if process.exitcode:
            failed += 1
            path = given.out / f"{name}.json"
            values = json.loads(path.read_text()) if path.exists() else {}
            values.setdefault("error", f"ended with exit code {process.exitcode} after at most {limit:.0f} s")
            write_atomic(path, json.dumps(values, indent=2) + "\n")
            print(f"{name} failed: {values['error'].splitlines()[-1]}", flush=True)
    print(f"{len(given.parts) - failed} of {len(given.parts)} parts done; results in {given.out}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
