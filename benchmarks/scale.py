"""The formulas of docs/scale.md against measured steps: `python -m benchmarks.scale --out results/scale/scale.json`.

Steps of the CPU are compared with a roofline of the CPU, whose two numbers are measured first. The traffic of compiled
layers is what torch's compiler says that its kernels read and write. A step that was measured on a GPU before is
compared with the roofline of that GPU.
"""

import argparse
import json
import logging
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import looped.nn.attention
from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.costs import cluster
from looped.costs.activations import layer_activations
from looped.costs.cluster import TRAFFIC, Setting, setting
from looped.costs.gpus import GPU, GPUS
from looped.machine import processor
from looped.models.transformer import LoopedTransformer
from looped.nn.block import TransformerBlock
from looped.tasks.base import Batch
from looped.tasks.edit_distance import EditDistanceConfig
from looped.training.devices import fast_products, matmul_peak
from looped.training.fabric import make_fabric
from looped.training.optim import make_optimizers
from looped.training.step import ModelWithLoss, train_step

ROOT = Path(__file__).resolve().parents[1]
SUDOKU = ROOT / "results/sudoku"
SEQ, SYMBOLS = 128, 1000
STEPS: dict[str, dict[str, Any]] = {
    "width 256, 1 layer x 4": {"d_model": 256, "num_loops": 4},
    "width 512, 1 layer x 4": {"d_model": 512, "num_loops": 4},
    "width 512, 2 layers x 4, prelude and coda": {
        "d_model": 512, "num_loops": 4, "core_layers": 2, "prelude_layers": 1, "coda_layers": 1,
    },
    "width 1024, 1 layer x 2": {"d_model": 1024, "num_loops": 2},
}  # fmt: skip
GPU_MODEL: dict[str, Any] = {
    "vocab_size": 10, "output_size": 10, "max_seq_len": 81, "d_model": 256, "num_heads": 8, "core_layers": 2,
    "num_loops": 8, "norm_gain": False, "modulation": "scale_gate", "gate_offset": 1,
}  # fmt: skip
LAYERS: dict[str, dict[str, Any]] = {
    "plain": {}, "swiglu": {"activation": "swiglu"}, "LayerNorm, bias": {"norm": "layer", "bias": True},
    "rotary": {"positions": "rotary"},
}  # fmt: skip


def run_of(model: dict[str, Any], rows: int = 8) -> RunConfig:
    sizes: dict[str, Any] = {"vocab_size": SYMBOLS, "output_size": SYMBOLS, "max_seq_len": SEQ, "num_heads": 8}
    train = TrainConfig(batch_size=rows, device="cpu", precision="bf16", compile=False)
    return RunConfig(model=ModelConfig(**{**sizes, "causal": True, **model}), task=EditDistanceConfig(), train=train)


def memory_bandwidth() -> float:
    """Bytes a second that one addition of two tensors, larger than the caches, reads and writes: the best of five."""
    a, b = torch.ones(1 << 26), torch.ones(1 << 26)
    out, best = torch.empty_like(a), float("inf")
    for _ in range(5):
        began = time.perf_counter()
        torch.add(a, b, out=out)
        best = min(best, time.perf_counter() - began)
    return 3 * a.nbytes / best


def step_seconds(run: RunConfig, repeats: int) -> float:
    fabric = make_fabric(run)
    model = LoopedTransformer(run.model)
    scored = fabric.setup_module(ModelWithLoss(model, run.train))
    optimizers = make_optimizers(model, run.optim)
    inputs = torch.randint(SYMBOLS, (run.train.batch_size, SEQ))
    mask = torch.ones_like(inputs, dtype=torch.bool)
    seconds, loops = [], (run.model.num_loops, run.model.num_loops)
    for step in range(repeats + 1):
        began = time.perf_counter()
        train_step(fabric, scored, optimizers, Batch(inputs, inputs, mask, mask), run, step, loops)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def steps_of_the_cpu(repeats: int) -> dict[str, Any]:
    device = torch.device("cpu")
    with fast_products(device):
        cpu = GPU(flops=matmul_peak(device, True), memory=0, bandwidth=memory_bandwidth(), nvlink=1.0, network=1.0)
        found: dict[str, Any] = {"matmul peak, FLOP/s": cpu.flops, "memory, bytes/s": cpu.bandwidth}
        for name, model in STEPS.items():
            run = run_of(model)
            # The measured numbers are what the CPU reaches, and its attention is two products.
            shares = cluster.SHARE, cluster.ATTENTION_SHARE
            cluster.SHARE, cluster.ATTENTION_SHARE = 1.0, 1.0
            predicted = setting(run, "ddp", cpu, 1)
            cluster.SHARE, cluster.ATTENTION_SHARE = shares
            found[name] = compared(predicted, step_seconds(run, repeats))
    return found


def compared(predicted: Setting, measured: float) -> dict[str, Any]:
    return {
        "predicted, seconds": predicted.step,
        "measured, seconds": measured,
        "predicted / measured": round(predicted.step / measured, 3),
        "parts": predicted.seconds,
    }


def compiled_traffic() -> dict[str, Any]:
    """Bytes of each further compiled layer: forward and backward pass, without matrix products and attention."""
    import torch._inductor.compile_fx as compile_fx
    from torch._inductor import config, metrics

    compile_fx.inductor_metrics_log.setLevel(logging.INFO)
    compile_fx.inductor_metrics_log.propagate = False
    config.force_disable_caches = True
    own = looped.nn.attention._fused_is_faster
    looped.nn.attention._fused_is_faster = lambda q, mask: True
    found = {}
    for name, options in LAYERS.items():
        model = run_of({"d_model": 256, **options}).model
        counts = []
        for layers in (1, 2):
            torch._dynamo.reset()
            metrics.reset()
            stack = torch.nn.Sequential(*(TransformerBlock(model) for _ in range(layers)))
            x = torch.randn(8, SEQ, model.d_model, requires_grad=True)
            with torch.autocast("cpu", torch.bfloat16):
                y = torch.compile(stack)(x)
            y.sum().backward()
            nodes = [node for node, _ in metrics.nodes_num_elem if not node.is_extern()]
            counts.append(sum(node.get_read_write_buffers_sizes() for node in nodes))
        measured = counts[1] - counts[0]
        predicted = sum(TRAFFIC) * 8 * SEQ * layer_activations(model)
        found[name] = {"predicted": predicted, "compiled": measured, "ratio": round(predicted / measured, 3)}
    looped.nn.attention._fused_is_faster = own
    return found


def step_of_a_gpu() -> dict[str, Any]:
    """The stored run of 9x9 Sudoku on an H200: seconds of a step, with compilation and validation."""
    summary = json.loads((SUDOKU / "summary.json").read_text())
    environment = json.loads((SUDOKU / "environment.json").read_text())
    gpu, model = GPUS["h200"], ModelConfig(**GPU_MODEL)  # its config.json has names of options from then
    train = TrainConfig(batch_size=256, loss="all", precision="bf16")
    optim = OptimConfig(optimizer="muon", ema_decay=0.999)
    run = RunConfig(model=model, task=EditDistanceConfig(), train=train, optim=optim)
    return {
        "matmul peak / published": round(environment["matmul_peak"] / gpu.flops, 3),
        **compared(setting(run, "ddp", gpu, 1), summary["seconds"] / summary["steps"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "command": "python -m benchmarks.scale", "processor": processor(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "python": platform.python_version(),
        "a GPU's step": step_of_a_gpu(), "CPU's steps": steps_of_the_cpu(arguments.repeats),
        "compiled traffic of a layer, bytes": compiled_traffic(),
    }  # fmt: skip
    print(json.dumps(results, indent=2))
    if arguments.out:
        arguments.out.parent.mkdir(exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
