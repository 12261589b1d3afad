#!/usr/bin/env bash
# One would guess: a module on the meta device has no values, so building one costs next to nothing.
# What happens: `normal_` on a meta tensor imports the compiler (torch._dynamo and about 800 modules, near a second).
# `uniform_` does not: nn.Linear is built at once, while the first nn.Embedding pays. A generator changes nothing.
# Why it matters: counting weights on the meta device is the natural way to plan a looped model, whose size does not
# follow from its depth; every command that does so starts a second later, unless it skips the initialisation.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

import torch

print("torch", torch.__version__)


def cost(name, build):
    before, began = len(sys.modules), time.process_time()
    build()
    loaded = len(sys.modules) - before
    print(f"{name}: {loaded} modules, {time.process_time() - began:.2f} CPU s, compiler {'torch._dynamo' in sys.modules}")
    return loaded


assert "torch._dynamo" not in sys.modules
assert cost("nn.Linear", lambda: torch.nn.Linear(8, 8, device="meta")) < 10
assert "torch._dynamo" not in sys.modules
assert cost("nn.Embedding", lambda: torch.nn.Embedding(8, 8, device="meta")) > 300
assert "torch._dynamo" in sys.modules, "changed: normal_ on the meta device no longer loads the compiler"
PYTHON
# Output seen (torch 2.13.0+cpu, Python 3.11):
#   nn.Linear: 0 modules, 0.00 CPU s, compiler False
#   nn.Embedding: 823 modules, 0.87 CPU s, compiler True
