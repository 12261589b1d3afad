"""The memory of this machine, to refuse at once what cannot fit into it, its cores and GPUs, and its processor."""

import os
import platform
import sys
from pathlib import Path

MEMINFO, STATUS = Path("/proc/meminfo"), Path("/proc/self/status")
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Limits of a control group, in version 2 and 1."""
NVIDIA = Path("/proc/driver/nvidia/gpus")
"""Has a folder for each GPU."""
USED = (Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"))
"""The memory that the processes of a control group use."""


def machine_memory() -> int:
    """The memory in bytes that this process may use: that of its control group, or of the machine."""
    if not hasattr(os, "sysconf"):  # Windows does not say it in this way
        return sys.maxsize
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = (path.read_text().strip() for path in LIMITS if path.exists())
    return min([physical, *(int(limit) for limit in limits if limit.isdecimal())])


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(number) for number, _ in enumerate(NVIDIA.glob("*"))]


def processor() -> str:
    """The name of the processor."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def free_memory() -> int:
    """The memory in bytes that this process could still take, where the system says so; otherwise all of it."""
    limit = machine_memory()
    used = [int(path.read_text()) for path in USED if path.exists()]
    free = [limit - use for use in used]
    return min([limit, *free, *_entries(MEMINFO, "MemAvailable")])


def resident_memory() -> int:
    """The memory in bytes that this process uses now; 0 where the system does not say so."""
    return sum(_entries(STATUS, "VmRSS"))


def _entries(file: Path, name: str) -> list[int]:
    """The entry of a file of the Linux kernel, in bytes; [] where there is no such file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")]
