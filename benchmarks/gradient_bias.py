"""The bias of gradients at a fixed point: each way to compute them, against the gradient through all loops.

`python -m benchmarks.gradient_bias RUN [RUN ...] --out bias.json` takes trained models whose loops do not depend on t.
Everything is in float64. The bias is |found - exact| / |exact| over all weights together.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from looped.analysis.stability import jacobian_spectrum
from looped.models import LoopedTransformer
from looped.models.fixed_point import FixedPointGradient
from looped.tasks import TASKS
from looped.tasks.base import Batch
from looped.training import load_run
from looped.training.logger import environment

WAYS: dict[str, dict[str, Any]] = {
    "last 4 loops": {"num_grad_loops": 4},
    "one step": {"gradient": FixedPointGradient("neumann", 1)},
    "4 terms": {"gradient": FixedPointGradient("neumann", 4)},
    "16 terms": {"gradient": FixedPointGradient("neumann", 16)},
    "phantom, 4 loops, d=0.5": {"gradient": FixedPointGradient("phantom", 4, 0.5)},
    "implicit": {"gradient": FixedPointGradient("implicit", 1000)},
}


def gradient(model: LoopedTransformer, batch: Batch, num_loops: int, **options: Any) -> tuple[torch.Tensor, Any]:
    """The gradient of the mean cross-entropy with respect to all weights, flattened, and the facts of the pass."""
    model.zero_grad()
    output = model(batch.inputs, num_loops=num_loops, **options)
    F.cross_entropy(output.logits[batch.mask], batch.targets[batch.mask]).backward()
    flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([g.flatten() for g in flat]), output.fixed_point


def measure(folder: Path, examples: int, num_loops: int) -> dict[str, Any]:
    """The bias and the cosine of every way for one run, and how the loop behaves at the last state."""
    run, model, step = load_run(folder)
    model.double()
    batch = TASKS[run.task.name](run.task).batch("validation", 0, examples, seed=0)
    exact, _ = gradient(model, batch, num_loops)
    loop = model.loop(batch.inputs, num_loops=num_loops)
    state = loop.initial
    with torch.no_grad():
        for t in range(num_loops):
            state = loop.step(state, t)
    spectrum = jacobian_spectrum(
        lambda h: loop.step(h, 0), state.detach(), batch.attention_mask, torch.Generator().manual_seed(0)
    )
    ways: dict[str, dict[str, float]] = {}
    residual = float("nan")
    for name, options in WAYS.items():
        found, facts = gradient(model, batch, num_loops, **options)
        ways[name] = {
            "bias": ((found - exact).norm() / exact.norm()).item(),
            "cosine": F.cosine_similarity(found, exact, dim=0).item(),
        }
        if name == "implicit":
            ways[name] |= {"terms": facts.terms, "converged": facts.converged}
            residual = facts.residual.item()
    radius = spectrum.radius.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.double)).tolist()
    return {"run": folder.name, "step": step, "residual": residual, "radius_quantiles": radius, "ways": ways}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--loops", type=int, default=64)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    rows = [measure(folder, arguments.examples, arguments.loops) for folder in arguments.runs]
    for row in rows:
        print(f"{row['run']}: residual {row['residual']:.1e}, radius {row['radius_quantiles'][1]:.2f}")
        for name, way in row["ways"].items():
            print(f"  {name:24} bias {way['bias']:.3f}  cosine {way['cosine']:.3f}")
    if arguments.out:
        facts = environment("64-true", torch.device("cpu")) | {"examples": arguments.examples, "loops": arguments.loops}
        arguments.out.write_text(json.dumps({"environment": facts, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
