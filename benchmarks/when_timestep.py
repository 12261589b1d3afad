"""When does the timestep help? Small models on targets of rising roughness, with 2 to 16 loops.

    python -m benchmarks.when_timestep --out results/when-timestep --minutes 3.5

Xu & Sato (ICML 2025) prove that tied weights cost accuracy where neighbouring inputs have distant labels, and that
factors of the loop index restore it. If training finds such factors, their gain grows with the roughness of the target
and shrinks with the loops. Four arms of one layer see the same data:

- plain: one layer, looped;
- wide: plain, with a wider feed-forward layer that has as many parameters as the modulation;
- frozen: modulated, but the network reads t = 0 in every loop, so only the dependence on t is missing;
- modulated: scales and gates of the timestep.

The pilot comes first. It chooses a learning rate for each arm and number of loops, and shows how many seeds are needed.
Its seeds are not used again. A call does what the results file lacks, for at most `--minutes` of CPU time.
"""

import argparse
import itertools
import json
import math
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from looped.config import ModelConfig, OptimConfig
from looped.files import write_atomic
from looped.machine import processor
from looped.models import LoopedTransformer
from looped.nn.protocols import Modulation
from looped.theory import continuity
from looped.theory.functions import plateaus
from looped.training import devices
from looped.training.optim import make_optimizers

Tokens = Float[Tensor, "batch seq 1"]
Family = Literal["fourier", "labels"]

ARMS = ("plain", "wide", "frozen", "modulated")
LOOPS = (2, 4, 8, 16)
RATES = (0.01, 0.02, 0.04)
PILOT_SEEDS, SEEDS = (100, 101), tuple(range(8))
PARTS = ("pilot", "runs", "same_rate")
DELTAS = (1 / 32, 1 / 8)
"""Distances of the moduli. At the first they still grow with the number of labels; the second is in docs/theory.md."""
STEPS, WARMUP, BATCH = 300, 20, 32
D_MODEL, D_FF = 32, 128
MODULATION_IN_D_FF = 208
"""Hidden units with about as many weights as the modulation: 208 * 65 = 13,520 against 13,504."""


@dataclass(frozen=True)
class Target:
    """A family of random functions of one roughness: the frequency of fourier, or labels on level x level cells."""

    family: Family
    level: int

    def __str__(self) -> str:
        return f"{self.family}-{self.level}"

    def function(self, seed: int) -> Callable[[Tokens], Tokens]:
        """One of them; permutation-equivariant."""
        if self.family == "fourier":
            return fourier(self.level, seed=seed)
        return plateaus(1.0, n=self.level, width=1.0, seed=seed)

    @property
    def seq(self) -> int:
        return 4 if self.family == "fourier" else 2

    def moduli(self, seed: int, delta: float) -> tuple[float, float]:
        """The token and contextual modulus of a function, in units of its standard deviation.

        Fourier targets depend on the other tokens through their mean. To move all of them by delta is the same as to
        move the other one of two tokens, for which a grid is small.
        """
        f, ticks = self.function(seed), (torch.arange(128, dtype=torch.float64) + 0.5) / 128
        scale = f(torch.cartesian_prod(ticks, ticks)[..., None]).std().item()
        token, contextual = (
            continuity.on_grid(f, kind, delta, seq=2, dim=1, grid=128).value / scale for kind in ("token", "contextual")
        )
        return token, contextual


PILOT = (Target("fourier", 3), Target("labels", 12))
TARGETS = tuple(Target("fourier", n) for n in (1, 2, 4)) + tuple(Target("labels", n) for n in (12, 16))


def fourier(frequency: float, *, seed: int, features: int = 32) -> Callable[[Tokens], Tokens]:
    """A sum of random cosines of (token, mean of the other tokens), with frequencies from N(0, frequency^2)."""
    generator = torch.Generator().manual_seed(seed)
    waves = frequency * torch.randn(2, features, generator=generator, dtype=torch.float64)
    phases = 2 * math.pi * torch.rand(features, generator=generator, dtype=torch.float64)

    def f(x: Tokens) -> Tokens:
        others = (x.sum(1, keepdim=True) - x) / (x.shape[1] - 1)
        return torch.cos(2 * math.pi * torch.cat([x, others], -1) @ waves + phases).sum(-1, keepdim=True)

    return f


class Frozen(nn.Module):
    """A modulation that reads t = 0 in every loop."""

    def __init__(self, modulation: Modulation) -> None:
        super().__init__()
        self.modulation, self.names = modulation, modulation.names

    def forward(self, num_loops: int, device: torch.device) -> Float[Tensor, "loops rows d_model"]:
        return self.modulation(1, device).expand(num_loops, -1, -1)


def build(arm: str, loops: int, seed: int) -> LoopedTransformer:
    """The model of an arm. A modulated layer begins as the plain one (gate_offset=1)."""
    modulated = arm in ("frozen", "modulated")
    config = ModelConfig(
        inputs="vectors", input_dim=1, output_size=1, max_seq_len=4, positions="none", bias=True, d_model=D_MODEL,
        num_heads=2, d_ff=D_FF + (MODULATION_IN_D_FF if arm == "wide" else 0), num_loops=loops,
        modulation="scale_gate" if modulated else "none", gate_offset=1 if modulated else 0, initialisation="pytorch",
    )  # fmt: skip
    model = LoopedTransformer(config, seed=seed)
    if arm == "frozen":
        model.modulation = Frozen(model.modulation)
    model.use_native()
    return model


def data(target: Target, seed: int, steps: int) -> Iterator[tuple[Tokens, Tokens]]:
    """First the examples that are scored, then a batch for each step; inputs and outputs are standardised.

    A label set is learned by heart: every batch, and the test, are all pairs of cells. Fourier examples are new.
    """
    f, generator = target.function(seed), torch.Generator().manual_seed(1000 + seed)
    if target.family == "labels":
        centres = (torch.arange(target.level, dtype=torch.float64) + 0.5) / target.level
        inputs = [torch.combinations(centres, 2, with_replacement=True)[..., None]] * (steps + 1)
    else:
        sizes = (1024, *[BATCH] * steps)
        inputs = (torch.rand(size, target.seq, 1, generator=generator, dtype=torch.float64) for size in sizes)
    inputs = iter(inputs)
    first = next(inputs)
    mean, scale = f(first).mean(), f(first).std(correction=0)
    for x in itertools.chain([first], inputs):
        yield ((x - 0.5) * 12**0.5).float(), ((f(x) - mean) / scale).float()


def train(target: Target, arm: str, loops: int, rate: float, seed: int, steps: int = STEPS) -> float:
    """The score after training: the share of the target's variance that the model explains, at least 0."""
    model = build(arm, loops, seed)
    optimizers = make_optimizers(model, OptimConfig(optimizer="muon", learning_rate=rate))
    batches = data(target, seed, steps)
    test, wanted = next(batches)
    for step, (x, y) in enumerate(batches):
        now = rate * min((step + 1) / WARMUP, 1) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for optimizer in optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = now
        (model(x).logits - y).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
    with torch.no_grad():
        score = 1 - (model(test).logits - wanted).square().mean().item()
    return score if score > 0 else 0.0  # also after divergence: a constant output has 0


def chosen_rates(pilot: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each arm and number of loops, the rate with the highest mean score over the pilot's targets and seeds."""
    scores: dict[tuple[str, int, float], list[float]] = {}
    for run in pilot:
        scores.setdefault((run["arm"], run["loops"], run["rate"]), []).append(run["score"])
    means = {key: sum(values) / len(values) for key, values in scores.items()}
    return {arm: {str(loops): max(RATES, key=lambda rate: means[arm, loops, rate]) for loops in LOOPS} for arm in ARMS}


def pilot_cells() -> Iterator[tuple[Target, str, int, float, int]]:
    for seed, target, loops, arm, rate in itertools.product(PILOT_SEEDS, PILOT, LOOPS, ARMS, RATES):
        yield target, arm, loops, rate, seed


def main_cells(rates: dict[str, dict[str, float]]) -> Iterator[tuple[Target, str, int, float, int]]:
    """The cells, ordered by seed. An early end then leaves whole seeds."""
    for seed, target, loops, arm in itertools.product(SEEDS, TARGETS, LOOPS, ARMS):
        yield target, arm, loops, rates[arm][str(loops)], seed


def same_rate_cells(rates: dict[str, dict[str, float]]) -> Iterator[tuple[Target, str, int, float, int]]:
    """The frozen arm at the rates of the modulated arm, where its own differ."""
    for seed, target, loops in itertools.product(SEEDS, TARGETS, LOOPS):
        rate = rates["modulated"][str(loops)]
        if rate != rates["frozen"][str(loops)]:
            yield target, "frozen", loops, rate, seed


def about() -> dict[str, Any]:
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True, cwd=Path(__file__).parent)
    return {
        "command": "python -m benchmarks.when_timestep --out results/when-timestep", "commit": commit.strip(),
        "processor": processor(), "threads": 1, "python": platform.python_version(), "torch": torch.__version__,
        "seeds": SEEDS, "pilot_seeds": PILOT_SEEDS, "steps": STEPS, "batch": BATCH, "d_model": D_MODEL, "d_ff": D_FF,
        "parameters": {arm: sum(p.numel() for p in build(arm, 2, 0).parameters()) for arm in ARMS},
    }  # fmt: skip


def save(path: Path, content: dict[str, Any]) -> None:
    """JSON with one line for each run."""
    lines = [f'"{key}": {json.dumps(value)}' for key, value in content.items() if key not in PARTS]
    for key in PARTS:
        lines.append(f'"{key}": [\n' + ",\n".join(map(json.dumps, content[key])) + "\n]")
    write_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results.json")
    parser.add_argument("--part", choices=["pilot", "all"], default="all")
    parser.add_argument("--minutes", type=float, default=math.inf, help="CPU time after which this call stops")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    devices.keep_freed_memory()
    path = arguments.out / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = json.loads(path.read_text()) if path.exists() else about()
    content: dict[str, Any] = {part: [] for part in PARTS} | stored

    def run(part: str, cells: Iterator[tuple[Target, str, int, float, int]]) -> bool:
        """Whether all cells are done."""
        names = ("target", "arm", "loops", "rate", "seed")
        done = {tuple(row[name] for name in names) for row in content[part]}
        for target, arm, loops, rate, seed in cells:
            cell = (str(target), arm, loops, rate, seed)
            if cell in done:
                continue
            if time.process_time() > 60 * arguments.minutes:
                return False
            began = time.process_time()
            score = train(target, arm, loops, rate, seed)
            row = dict(zip(names, cell, strict=True)) | {"score": round(score, 5)}
            content[part].append(row | {"seconds": round(time.process_time() - began, 2)})
            if len(content[part]) % 20 == 0:
                save(path, content)
        save(path, content)
        return True

    with devices.fast_products(torch.device("cpu")):
        if run("pilot", pilot_cells()):
            content["rates"] = chosen_rates(content["pilot"])
            content["moduli"] = {
                f"{delta:g}": {str(target): [target.moduli(seed, delta) for seed in SEEDS] for target in TARGETS}
                for delta in DELTAS
            }
            save(path, content)
            if arguments.part == "all" and run("runs", main_cells(content["rates"])):
                run("same_rate", same_rate_cells(content["rates"]))
    save(path, content)
    print({part: len(content[part]) for part in PARTS}, f"{time.process_time():.0f} CPU-seconds")


if __name__ == "__main__":
    main()
