"""The parts of a batch, for which the processes of an evaluation take turns."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from looped.tasks.batch import Batch

T = TypeVar("T")


def in_turns(batch: Batch, size: int, device: torch.device, compute: Callable[[Batch], T]) -> list[T]:
    """The results for the parts of a batch, in order. Processes that are connected share the work; each gets all.

    A part is the same for any number of processes, and therefore also its result.

    Args:
        size: the number of examples in a part.
        device: where a part is moved to before `compute`.
    """
    connected = dist.is_available() and dist.is_initialized()
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if connected else (0, 1)
    starts = range(0, len(batch.inputs), size)
    own = [
        compute(batch.map(lambda tensor, start=start: tensor[start : start + size].to(device)))
        for start in starts[rank::ranks]
    ]
    of_all: list[Any] = [own]
    if ranks > 1:
        of_all = [None] * ranks
        dist.all_gather_object(of_all, own)
    return [of_all[number % ranks][number // ranks] for number in range(len(starts))]
