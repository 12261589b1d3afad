"""The memory of this machine, to refuse at once what cannot fit into it, and the name of its processor."""

import os
import platform
from pathlib import Path

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Limits of a control group, in version 2 and 1."""


def machine_memory() -> int:
    """The memory in bytes that this process may use: that of its control group, or of the machine."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = (path.read_text().strip() for path in LIMITS if path.exists())
    return min([physical, *(int(limit) for limit in limits if limit.isdecimal())])


def processor() -> str:
    """The name of the processor."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
