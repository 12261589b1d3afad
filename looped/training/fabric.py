"""The devices, precision and distribution of a run: one device, or several through Lightning Fabric."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from looped.config import RunConfig, TrainConfig
from looped.launch.world import find_world
from looped.training.devices import computes_in_bf16, find_device

CHATTER = ("FSDP2-wrapped module .* returned a view",)  # no output is changed in place
"""Warnings of Fabric and FSDP2 about which the user can do nothing."""


class OneDevice:
    """A training in one process. It has the part of Fabric's interface that a training needs.

    Fabric is imported for several devices only, because it loads torch's compiler. This takes about 80 MB, and as much
    time as torch itself.
    """

    is_global_zero, world_size, global_rank = True, 1, 0

    def __init__(self, device: torch.device, *, bf16: bool) -> None:
        self.device, self.bf16 = device, bf16

    def launch(self) -> None:
        """There are no other processes."""

    def setup_module(self, module: nn.Module) -> nn.Module:
        return module.to(self.device)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def no_backward_sync(self, module: nn.Module, enabled: bool = True) -> AbstractContextManager[None]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def all_reduce(self, values: Tensor, reduce_op: str) -> Tensor:
        return values

    def broadcast(self, value: Any) -> Any:
        return value


if TYPE_CHECKING:
    from lightning_fabric import Fabric

    Devices = Fabric | OneDevice
else:
    Devices = Any


def reduced(fabric: Devices, values: Tensor, operation: str = "sum") -> Tensor:
    """The sum (or max, min) over all devices, which must call this."""
    result = fabric.all_reduce(values, reduce_op=operation)
    assert isinstance(result, Tensor)
    return result


def make_fabric(run: RunConfig) -> Devices:
    """The devices and the precision of the configuration.

    Raises:
        ValueError: this machine has no such device, or not enough of them.
    """
    config, world = run.train, find_world() if run.train.devices > 1 else None
    device = find_device(config.device)
    here = world.local_size if world else config.devices
    count = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": here}[device]
    if here > count:
        raise ValueError(f"train.devices={config.devices}: {here} on this machine, but it has {count} {device} devices")
    bf16 = trains_in_bf16(config, device)
    if config.devices == 1:
        return OneDevice(torch.device("cpu") if device == "cpu" else torch.device(device, 0), bf16=bf16)
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision, Precision
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy

    from looped.training.sharding import shard

    if config.strategy == "fsdp":
        strategy = ModelParallelStrategy(partial(shard, run), data_parallel_size=config.devices, tensor_parallel_size=1)
    else:
        # The prelude has no gradient if the gradient window begins later and there is no input injection, and weights
        # of a loop have none if it is not run.
        unused = run.schedule.num_grad_loops is not None or run.model.own_weights
        strategy = DDPStrategy(find_unused_parameters=unused)
    for message in CHATTER:
        warnings.filterwarnings("ignore", message)
    precision = MixedPrecision("bf16-mixed", device) if bf16 else Precision()  # precision= would print a message
    return Fabric(
        accelerator=device,
        devices=here,
        num_nodes=world.nodes if world else 1,
        strategy=strategy,
        plugins=[precision, TorchElasticEnvironment()] if world else precision,
    )


def devices_of(run: RunConfig) -> dict[str, Any]:
    """The devices of a run, as fields of `run_folder.Environment`."""
    world = find_world()
    if world is None:
        return {"devices": 1, "nodes": 1, "strategy": None}
    return {"devices": world.size, "nodes": world.nodes, "strategy": run.train.strategy}


def trains_in_bf16(config: TrainConfig, device: str) -> bool:
    """Whether a training on this kind of device computes in bf16, with weights in float32."""
    return config.precision == "bf16" or (config.precision == "auto" and computes_in_bf16(device))
