"""Weights that are sharded among devices by PyTorch's FSDP2."""

from typing import Any

from torch import Tensor, nn

from looped.config import RunConfig
from looped.costs.count import logits_in_training


def shard(run: RunConfig, scored: nn.Module, mesh: Any) -> nn.Module:
    """Shard the weights of a `ModelWithLoss` among the devices of a mesh, in place.

    The layers of the prelude and of the coda are gathered one by one. All else is one group, which is gathered once a
    step: FSDP2 gathers a module in each of its calls, and reduces its gradient there, so a core of its own would be
    gathered and reduced once a loop.
    """
    from torch.distributed.fsdp import fully_shard

    model: Any = scored.model
    decoded_once = logits_in_training(run, run.most_loops) == 1
    for layer in [*model.prelude, *(model.coda if decoded_once else ())]:
        fully_shard(layer, mesh=mesh["data_parallel"])
    fully_shard(model, mesh=mesh["data_parallel"], reshard_after_forward=False)
    return scored


def whole(tensor: Tensor) -> Tensor:
    """All values of a tensor that may be sharded. All devices must call this."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()
