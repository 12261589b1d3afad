"""Weights that are sharded among devices by PyTorch's FSDP2."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from looped.config import RunConfig
from looped.costs.count import logits_in_training
from looped.nn.protocols import Context


def shard(run: RunConfig, scored: nn.Module, mesh: Any) -> nn.Module:
    """Shard the weights of a `ModelWithLoss` among the devices of a mesh, in place.

    The layers of the prelude and of the coda are gathered one by one. All else is one group, which is gathered once a
    step. FSDP2 gathers a module in each of its calls, so a core of its own would be gathered twice a loop.

    FSDP2 gives a gradient of zero, instead of none, to all that enters a sharded module and is not read there. The
    optimiser would then decay weights that it leaves alone on one device, so a layer gets no input that it does not
    read.
    """
    from torch.distributed.fsdp import fully_shard

    model: Any = scored.model
    decoded_once = logits_in_training(run, run.most_loops) == 1
    for layer in [*model.prelude, *(model.coda if decoded_once else ())]:
        fully_shard(layer, mesh=mesh["data_parallel"])
        layer.register_forward_pre_hook(_reads_only_the_state, prepend=True)
    fully_shard(model, mesh=mesh["data_parallel"], reshard_after_forward=False)
    return scored


def keep_gathered(model: nn.Module, keep: bool) -> None:
    """Say whether what is gathered once stays whole after a backward pass, because another part of a batch follows."""
    if hasattr(model, "set_reshard_after_backward"):
        sharded: Any = model
        sharded.set_reshard_after_backward(not keep, recurse=False)


def _reads_only_the_state(layer: nn.Module, inputs: tuple[Tensor, Context]) -> tuple[Tensor, Context]:
    state, context = inputs
    return state, context._replace(embedded=None, position_embedding=None)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside this context, all weights are whole on each device, and calls without gradient communicate nothing.

    Devices may therefore make different numbers of calls. At the end each device keeps its part again. FSDP2 would go
    on with the gathered weights of such a call, even after the sharded ones have changed. All devices must enter.
    """
    sharded: list[Any] = [module for module in model.modules() if hasattr(module, "unshard")]
    for module in sharded:
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()
            module.set_reshard_after_forward(module is not model, recurse=False)
