"""Lightning Fabric with the devices, precision and distribution of a run."""

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.strategies.ddp import DDPStrategy

from looped.config import RunConfig
from looped.training.devices import computes_in_bf16, find_device


def make_fabric(run: RunConfig) -> Fabric:
    """The devices and the precision of the configuration.

    Raises:
        ValueError: this machine has no such device, or not enough of them.
    """
    config = run.train
    device = find_device(config.device)
    count = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": config.devices}[device]
    if config.devices > count:
        raise ValueError(f"train.devices={config.devices}: this machine has {count} {device} devices")
    bf16 = config.precision == "bf16" or (config.precision == "auto" and computes_in_bf16(device))
    # The prelude has no gradient if the gradient window begins later and there is no input injection.
    strategy = DDPStrategy(find_unused_parameters=run.schedule.num_grad_loops is not None)
    return Fabric(
        accelerator=device,
        devices=config.devices,
        strategy="auto" if config.devices == 1 else strategy,
        plugins=MixedPrecision("bf16-mixed", device) if bf16 else Precision(),  # precision= would print a message
    )
