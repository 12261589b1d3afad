"""The place of a process among those of one training, as torchrun, Slurm or `looped train` started them."""

import os
import re
from dataclasses import dataclass

MASTER = ("MASTER_ADDR", "MASTER_PORT")
LISTENER = "LOOPED_LISTENER"  # environment variable of rank 0: a handle that listens at MASTER_PORT


@dataclass(frozen=True)
class World:
    """The place of this process among those of one training."""

    rank: int
    size: int
    """Number of processes on all machines."""
    local_rank: int
    local_size: int
    """Number of processes on this machine."""

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.size // self.local_size


def find_world() -> World | None:
    """The place of this process; None if it trains alone.

    The variables are torchrun's: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. In a step
    of Slurm (`srun`) they are set from Slurm's variables. A batch script is no step, although it has SLURM_NTASKS.

    Raises:
        ValueError: a variable is missing or does not fit the others; names it.
    """
    if "RANK" not in os.environ and _number("SLURM_STEP_NUM_TASKS", 1) > 1:
        os.environ.update(_of_slurm() | {name: os.environ[name] for name in MASTER if name in os.environ})
    size = _number("WORLD_SIZE", 1)
    if size <= 1:
        return None
    rank = _number("RANK", None)
    local_size = _number("LOCAL_WORLD_SIZE", size)
    local_rank = _number("LOCAL_RANK", rank % local_size if local_size else 0)
    for name in MASTER:
        if not os.environ.get(name):
            raise ValueError(f"{name}: not set, but WORLD_SIZE={size}; expected the address and port of rank 0")
    if not 1 <= (port := _number("MASTER_PORT", None)) <= 65535:
        raise ValueError(f"MASTER_PORT={port}: expected a port from 1 to 65535")
    if not 0 <= rank < size:
        raise ValueError(f"RANK={rank}: expected a number from 0 to {size - 1}, because WORLD_SIZE={size}")
    if local_size < 1 or size % local_size:
        raise ValueError(f"LOCAL_WORLD_SIZE={local_size}: expected an equal part of WORLD_SIZE={size} on each machine")
    if not 0 <= local_rank < local_size:
        raise ValueError(f"LOCAL_RANK={local_rank}: expected a number from 0 to {local_size - 1}")
    os.environ |= {"LOCAL_RANK": str(local_rank), "LOCAL_WORLD_SIZE": str(local_size)}
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is imported; a lost connection is said once
    return World(rank, size, local_rank, local_size)


def _of_slurm() -> dict[str, str]:
    """torchrun's variables from those of a step of Slurm."""
    job, step = _number("SLURM_JOB_ID", 0), _number("SLURM_STEP_ID", 0)
    tasks = set(re.sub(r"\(x\d+\)", "", os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")).split(","))  # such as 4(x2)
    if len(tasks) > 1:
        given = os.environ["SLURM_STEP_TASKS_PER_NODE"]
        raise ValueError(f"SLURM_STEP_TASKS_PER_NODE={given}: expected as many tasks on each node (--ntasks-per-node)")
    return {
        "RANK": str(_number("SLURM_PROCID", None)),
        "WORLD_SIZE": str(_number("SLURM_STEP_NUM_TASKS", None)),
        "LOCAL_RANK": str(_number("SLURM_LOCALID", None)),
        "LOCAL_WORLD_SIZE": tasks.pop() or str(_number("SLURM_STEP_NUM_TASKS", None)),
        "MASTER_ADDR": _first_node(os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "")),
        "MASTER_PORT": str(15000 + (10 * job + step) % 10000),  # below the ports that the system gives to clients
    }


def _first_node(nodes: str) -> str:
    """The first name of Slurm's list of nodes, such as node05 of node[05-09,12],login1."""
    match = re.match(r"([^,\[]*)(?:\[([^,\-\]]+)[^\]]*\])?([^,]*)", nodes)
    name = "".join(filter(None, match.groups())) if match else ""
    if not name:
        raise ValueError("SLURM_STEP_NODELIST: not set; expected the nodes of the step, as srun sets them")
    return name


def _number(name: str, default: int | None) -> int:
    """The whole number in an environment variable; `default` if it is not set, unless that is None."""
    text = os.environ.get(name, "")
    if not text and default is not None:
        return default
    if not text.isdecimal():
        others = f", but WORLD_SIZE={os.environ.get('WORLD_SIZE')}" if name != "WORLD_SIZE" else ""
        raise ValueError(f"{name}={text!r}{others}; expected a whole number, as torchrun sets it")
    return int(text)
