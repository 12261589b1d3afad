"""Exported models beside the model itself: python -m benchmarks.exports.

Sizes of files as a share of the weights, then the time of a forward pass in onnxruntime (float32 and int8, the loop
count as an input) and in PyTorch, by turns in one run, with equal numbers of threads. The least of all rounds counts.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch

from looped.config import ModelConfig
from looped.export.onnx import export_onnx
from looped.export.program import export_program
from looped.models import LoopedTransformer

CONFIG = ModelConfig(
    vocab_size=8000, output_size=8000, max_seq_len=256, d_model=512, num_heads=8, causal=True, positions="rotary",
    tie_embeddings=True, num_loops=8, modulation="scale_gate", gate_offset=1,
)  # fmt: skip


def sizes(model: LoopedTransformer, folder: Path, counts: list[int | None]) -> None:
    """Print the sizes of all files as a share of the weights, and the largest difference of logits."""
    weights = sum(weight.nbytes for weight in model.parameters())
    print(f"weights: {weights:,} bytes")
    for loops in counts:
        for name, int8 in (("onnx", False), ("int8.onnx", True), ("pt2", False)):
            start, file = time.perf_counter(), folder / f"{loops}.{name}"
            if name == "pt2":
                worst = export_program(model, file, num_loops=loops)
            else:
                worst = export_onnx(model, file, num_loops=loops, int8=int8)
            size, seconds = file.stat().st_size, time.perf_counter() - start
            print(
                f"num_loops={loops} {name}: {size / weights:.3f} of the weights ({size - weights:+,} bytes), "
                f"difference {worst:.1e}, {seconds:.0f} s to export",
                flush=True,
            )


def speed(model: LoopedTransformer, folder: Path, rounds: int, threads: int) -> None:
    """Print the time of a forward pass, relative to PyTorch."""
    torch.set_num_threads(threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    for batch, seq in ((1, 1), (1, 128), (8, 32)):
        inputs, mask = torch.randint(8000, (batch, seq)), torch.ones(batch, seq, dtype=torch.bool)
        feed = {"inputs": inputs.numpy(), "attention_mask": mask.numpy()}
        runs: dict[str, Callable[[], object]] = {"PyTorch": lambda x=inputs, m=mask: model(x, attention_mask=m)}
        for name in ("onnx", "int8.onnx"):
            session = onnxruntime.InferenceSession(str(folder / f"None.{name}"), options)
            runs[name] = lambda session=session, feed=feed: session.run(None, feed)
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(rounds):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                best[name] = min(best[name], time.perf_counter() - start)
        shown = ", ".join(f"{name} {t * 1e3:.1f} ms ({t / best['PyTorch']:.2f}x)" for name, t in best.items())
        print(f"batch {batch}, length {seq}: {shown}", flush=True)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--loops", type=int, nargs="*", default=[1, 4, 16])
    args = parser.parse_args()
    model = LoopedTransformer(CONFIG).eval()
    for weight in model.parameters():
        weight += 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as name:
        sizes(model, Path(name), [None, *args.loops])
        speed(model, Path(name), args.rounds, args.threads)


if __name__ == "__main__":
    main()
