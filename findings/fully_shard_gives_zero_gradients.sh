#!/usr/bin/env bash
# One would guess: `fully_shard` changes where weights are, so a weight without gradient stays without, and AdamW leaves
# it alone.
# What happens: what a sharded module gets in a tuple and does not read has a gradient of zero instead of none. AdamW
# then decays the weights behind it. Nothing warns, and the loss moves away slowly.
# FSDP2 passes all inputs through one autograd function, whose backward turns missing gradients into zeros.
# Why it matters: a looped model trains through its last loops only. The layers before the loop have no gradient, but
# their output goes on to later layers in a context, among masks and positions.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard


class Last(nn.Linear):
    def forward(self, state, context):
        return super().forward(state)


class Looped(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.core, self.last = nn.Linear(4, 4), nn.Linear(4, 4), Last(4, 4)

    def forward(self, x):
        state = embedded = self.first(x)
        with torch.no_grad():
            state = self.core(state)
        return self.last(self.core(state), (embedded,))


dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
for sharded in (False, True):
    torch.manual_seed(0)
    model = Looped()
    if sharded:
        fully_shard(model.last, mesh=dist.init_device_mesh("cpu", (1,)))
    weight = model.first.weight
    before = weight.detach().clone()
    model(torch.ones(1, 4)).sum().backward()
    torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5).step()
    gradient = "none" if weight.grad is None else f"{weight.grad.abs().max():g}"
    print(f"torch {torch.__version__} fully_shard={sharded}: gradient {gradient}, factor {(weight / before).mean():.2f}")
    assert (gradient == "0") == sharded, "changed"
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
# Output seen (Python 3.11):
#   torch 2.13.0+cpu fully_shard=False: gradient none, factor 1.00
#   torch 2.13.0+cpu fully_shard=True: gradient 0, factor 0.95
