"""A `LoopedOutput` is a pytree, in which DistributedDataParallel with static_graph finds the tensors."""

import os
import subprocess
import sys

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_flatten, tree_unflatten

from looped.config import ModelConfig
from looped.models import LoopedOutput, LoopedTransformer


def model() -> LoopedTransformer:
    return LoopedTransformer(ModelConfig(vocab_size=5, output_size=5, max_seq_len=4, d_model=8, num_heads=2))


def test_an_output_is_taken_apart_and_put_together():
    output = model()(torch.arange(4)[None])
    leaves, structure = tree_flatten(output)
    assert {id(leaf) for leaf in leaves} >= {id(output.logits), id(output.loop_logits), id(output.state)}
    again = tree_unflatten(leaves, structure)
    assert type(again) is LoopedOutput
    assert again.logits is output.logits
    assert again.num_loops == output.num_loops


def gradients_are_equal(rank: int, store: str) -> bool:
    """Whether two processes with different inputs have equal gradients after a step."""
    distributed.init_process_group("gloo", rank=rank, world_size=2, init_method=f"file://{store}")
    wrapped = DistributedDataParallel(model(), static_graph=True)
    wrapped(torch.tensor([[rank, 1, 2, 3]])).logits.square().sum().backward()
    gradient = wrapped.module.head.weight.grad
    both = [torch.empty_like(gradient) for _ in range(2)]
    distributed.all_gather(both, gradient)
    distributed.destroy_process_group()
    return bool(gradient.any()) and torch.equal(*both)


def test_static_graph_reduces_the_gradients(tmp_path):
    command = [sys.executable, __file__, str(tmp_path / "store")]
    assert subprocess.run(command, timeout=120, capture_output=True, text=True).stdout == "equal\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    child = os.fork()  # the second process need not load torch again
    found = gradients_are_equal(int(child == 0), sys.argv[1])
    if child:
        os.waitpid(child, 0)
        print("equal" if found else "different")
