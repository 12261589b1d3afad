"""A script of two processes (gloo): what each holds and sends in a training step. The first one prints it as JSON."""

import json
import sys
from collections import Counter
from typing import Any

import torch
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from looped.config import RunConfig
from looped.costs.count import loops_with_gradient
from looped.models import LoopedTransformer
from looped.strict import from_dict
from looped.tasks.base import Batch
from looped.training import sharding
from looped.training.fabric import make_fabric
from looped.training.optim import make_optimizers
from looped.training.step import ModelWithLoss, train_step

OWN = sharding.shard
SCALARS = 64
"""Bytes of the largest tensor that is no weight: sums of losses, and the norm."""


class Collectives(TorchDispatchMode):
    """Counts the bytes of whole tensors that are gathered and reduced, and keeps their order."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = Counter[str]()
        self.order = list[int | str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            size = max((x.nbytes for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)), default=0)
            if size > SCALARS:
                self.bytes[func._schema.name.removeprefix("c10d::")] += size
                if "allreduce" in func._schema.name:
                    self.order.append(size)
        return func(*args, **(kwargs or {}))


def batch_of(run: RunConfig) -> Batch:
    config = run.model
    inputs = torch.randint(config.vocab_size or 0, (run.train.batch_size // 2, config.max_seq_len or 0))
    mask = torch.ones_like(inputs, dtype=torch.bool)
    return Batch(inputs, inputs, mask, mask)


def local(tensor: Any) -> int:
    """Bytes in this process."""
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).nbytes


def shard_by_layer(run: RunConfig, scored: Any, mesh: Any) -> Any:
    """The layers of the core have groups of their own too: `Communication.sent_by_loop`."""
    for layer in scored.model.core:
        fully_shard(layer, mesh=mesh["data_parallel"])
    return OWN(run, scored, mesh)


def measured(run: RunConfig) -> dict[str, Any]:
    fabric = make_fabric(run)
    fabric.launch()
    torch.manual_seed(0)
    model = LoopedTransformer(run.model)
    scored = fabric.setup_module(ModelWithLoss(model, run.train))
    optimizers = make_optimizers(model, run.optim)
    batch, loops = batch_of(run), (run.most_loops, loops_with_gradient(run))
    train_step(fabric, scored, optimizers, batch, run, 0, loops)
    with Collectives() as collectives:
        train_step(fabric, scored, optimizers, batch, run, 1, loops)
    weights = list(model.parameters())
    states = [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
    return {
        "weights": sum(map(local, weights)),
        "gradients": sum(local(weight.grad) for weight in weights),
        "moments": sum(local(state) for state in states if state.ndim),
        "collectives": collectives.bytes,
    }


def order(run: RunConfig) -> list[int | str]:
    """The bytes of each all-reduce of DDP with a bucket for each weight; "core 0" and so on after each backward pass of
    that layer."""
    model = LoopedTransformer(run.model)
    scored = DistributedDataParallel(ModelWithLoss(model, run.train), bucket_cap_mb=1e-6)

    def step() -> list[int | str]:
        with Collectives() as collectives:
            hooks = [
                layer.register_full_backward_hook(lambda *_, n=n: collectives.order.append(f"core {n}"))
                for n, layer in enumerate(model.core)
            ]
            with torch.autocast("cpu", torch.bfloat16):
                loss, _ = scored(batch_of(run), False, run.most_loops, run.most_loops)
            loss.backward()
        for hook in hooks:
            hook.remove()
        return collectives.order

    step()  # DDP learns the order of the weights in the first step
    return step()


if __name__ == "__main__":
    runs = [from_dict(RunConfig, one) for one in json.loads(sys.argv[1])]
    found = [measured(run) for run in runs]
    found[0]["order"] = order(runs[0])
    sharding.shard = shard_by_layer
    for one, run in zip(found, runs, strict=True):
        one["by_loop"] = measured(run)["collectives"] if run.train.strategy == "fsdp" else one["collectives"]
    if torch.distributed.get_rank() == 0:
        print("\n" + json.dumps(found))
