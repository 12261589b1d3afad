"""Collective operations of a training step on several devices: how many, and of how many bytes.

`torchrun --nproc-per-node 2 -m benchmarks.devices --out FOLDER` prints a table, and writes it with the versions.
"""

import argparse
import json
import os
import platform
from collections import Counter
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from looped.config import ModelConfig, RunConfig, ScheduleConfig, TrainConfig
from looped.models.transformer import LoopedTransformer
from looped.recipes import complete
from looped.tasks import TASKS
from looped.tasks.edit_distance import EditDistanceConfig
from looped.training import sharding
from looped.training.fabric import make_fabric
from looped.training.optim import make_optimizers
from looped.training.step import ModelWithLoss, train_step

KINDS = ("all_gather", "reduce_scatter", "all_reduce")
LOOPS = (1, 4, 16)
SETTINGS: list[dict[str, Any]] = [{}, {"recompute": "loop"}, {"window": 1}, {"accumulation": 2}]


class Collectives(TorchDispatchMode):
    """Inside this context, counts the collective operations of this process and the bytes of their whole tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if DTensor in types:
            return NotImplemented  # its own operations come here afterwards
        result = func(*args, **(kwargs or {}))
        if func.namespace in ("c10d", "_c10d_functional"):
            name = func._schema.name.partition("::")[2].replace("_", "")
            for kind in KINDS:
                if name.startswith(kind.replace("_", "")):
                    tensors = [x for x in tree_leaves((args, result)) if isinstance(x, torch.Tensor)]
                    self.calls[kind] += 1
                    self.bytes[kind] += max(tensor.nbytes for tensor in tensors)
        return result


def each_layer(run: RunConfig, scored: Any, mesh: Any, *, reshards: bool = True) -> nn.Module:
    """The usual way, in place of `sharding.shard`: each layer is sharded, also those of the core."""
    from torch.distributed.fsdp import fully_shard

    for layer in (*scored.model.prelude, *scored.model.core, *scored.model.coda):
        fully_shard(layer, mesh=mesh["data_parallel"], reshard_after_forward=reshards)
    return fully_shard(scored.model, mesh=mesh["data_parallel"]) and scored


def run_of(strategy: Any, loops: int, window: int | None = None, *, devices: int, **settings: Any) -> RunConfig:
    return complete(
        RunConfig(
            task=EditDistanceConfig(length=4, max_letters=3),
            model=ModelConfig(d_model=64, num_heads=2, prelude_layers=1, core_layers=2, coda_layers=1, num_loops=loops),
            schedule=ScheduleConfig(num_grad_loops=window),
            train=TrainConfig(
                batch_size=4 * devices, devices=devices, strategy=strategy, device="cpu", precision="fp32", **settings
            ),
        )
    )


def count(run: RunConfig) -> Collectives:
    """The collectives of a step of a run, which is not its first one."""
    fabric = make_fabric(run)
    fabric.launch()
    task, model = TASKS[run.task.name](run.task), LoopedTransformer(run.model)
    scored = fabric.setup_module(ModelWithLoss(model, run.train))
    optimizers = make_optimizers(model, run.optim)
    loops, found = run.model.num_loops, Collectives()
    for step in range(2):
        part = fabric.global_rank, fabric.world_size
        batch = task.batch("train", step, run.train.batch_size, seed=0, part=part)
        found = Collectives()
        with found:
            train_step(fabric, scored, optimizers, batch, run, step, (loops, run.schedule.num_grad_loops or loops))
    return found


def measure(devices: int) -> list[dict[str, Any]]:
    rows = []
    ways: dict[str, Any] = {
        "ddp": sharding.shard,
        "fsdp": sharding.shard,
        "each layer": each_layer,
        "each layer, kept after the forward pass": partial(each_layer, reshards=False),
    }
    for (name, way), setting, loops in product(ways.items(), SETTINGS, LOOPS):
        with patch.object(sharding, "shard", way):
            found = count(run_of("ddp" if name == "ddp" else "fsdp", loops, devices=devices, **setting))
        rows.append({"strategy": name, "loops": loops, **setting, "calls": found.calls, "bytes": found.bytes})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    devices = int(os.environ["WORLD_SIZE"])
    rows = measure(devices)
    weights = sum(p.numel() for p in LoopedTransformer(run_of("ddp", 1, devices=devices).model).parameters())
    if torch.distributed.get_rank() == 0:
        for row in rows:
            about = {name: row.get(name, "-") for name in ("strategy", "loops", "recompute", "window", "accumulation")}
            numbers = [f"{row['calls'][kind]} ({row['bytes'][kind]:,})" for kind in KINDS]
            print(f"| {' | '.join(map(str, [*about.values(), *numbers]))} |")
        versions = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
        content = {"devices": devices, "versions": versions, "bytes_of_weights": 4 * weights, "rows": rows}
        out.mkdir(parents=True, exist_ok=True)
        (out / "collectives.json").write_text(json.dumps(content, indent=2) + "\n")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
