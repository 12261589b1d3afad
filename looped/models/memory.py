"""The memory of a device, to refuse at once what cannot fit into it."""

import functools

import torch

from looped.machine import machine_memory


@functools.cache
def memory_of(device: torch.device) -> int:
    """Bytes of memory: of the GPU, or else of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return machine_memory()


def check_memory(what: str, size: int, device: torch.device) -> None:
    """Raises ValueError if `size` bytes are more than the device has."""
    if device.type != "meta" and size > memory_of(device):
        raise ValueError(f"{what}: needs {size / 1e9:,.1f} GB; this machine has {memory_of(device) / 1e9:,.1f} GB")
