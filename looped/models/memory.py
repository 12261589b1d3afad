"""The memory of a machine, to refuse at once what cannot fit into it."""

import functools
import os
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup/memory.max")


@functools.cache
def memory_of(device: torch.device) -> int:
    """Bytes of memory: of the GPU, or else of the machine, within the limit of a container."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP.read_text().strip() if CGROUP.exists() else "max"
    return min(machine, int(limit)) if limit.isdecimal() else machine


def check_memory(what: str, size: int, device: torch.device) -> None:
    """Raises ValueError if `size` bytes are more than the device has."""
    if device.type != "meta" and size > memory_of(device):
        raise ValueError(f"{what}: needs {size / 1e9:,.1f} GB; this machine has {memory_of(device) / 1e9:,.1f} GB")
