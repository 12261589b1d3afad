#!/usr/bin/env bash
# One would guess: jaxtyping's import hook only checks shapes, so `@torch.no_grad()` on a generator works as without it.
# What happens: under the hook every step of the generator runs with gradient. A plain function stays without.
# The hook wraps the generator function in a plain function, and no_grad then covers only the call that creates it.
# Why it matters: decoding is a generator over hundreds of passes through the same layers; with the hook on, as in
# tests, each token keeps the graph of all its loops, and a test of memory or of gradients sees another program.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6 jaxtyping==0.3.11 beartype==0.23.1
cat > "$folder/texts.py" <<'PYTHON'
import torch


@torch.no_grad()
def steps(layer):
    for _ in range(2):
        yield layer(torch.ones(1, 1)).requires_grad


@torch.no_grad()
def once(layer):
    return layer(torch.ones(1, 1)).requires_grad
PYTHON
cat > "$folder/run.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch

if sys.argv[1] == "hook":
    from jaxtyping import install_import_hook

    install_import_hook("texts", "beartype.beartype")
import texts

layer = torch.nn.Linear(1, 1)
found = list(texts.steps(layer)), texts.once(layer)
print(sys.argv[1], *(f"{name} {version(name)}" for name in ("torch", "jaxtyping", "beartype")), *found)
assert found == ([sys.argv[1] == "hook"] * 2, False), "changed"
PYTHON
cd "$folder"
"$folder/venv/bin/python" run.py plain
"$folder/venv/bin/python" run.py hook
# Output seen (Python 3.11):
#   plain torch 2.13.0+cpu jaxtyping 0.3.11 beartype 0.23.1 [False, False] False
#   hook torch 2.13.0+cpu jaxtyping 0.3.11 beartype 0.23.1 [True, True] False
