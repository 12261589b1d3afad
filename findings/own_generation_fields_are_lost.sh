#!/usr/bin/env bash
# One would guess: a field of one's own in `model.generation_config` is saved with the model and read again, because
# `GenerationConfig` keeps unknown fields and generation_config.json holds it.
# What happens: the file holds the field, and `from_pretrained` drops it without a word. The generation_config of a new
# model was made from its config; it is marked `_from_model_config`, and a reader ignores unknown fields of such a file.
# A `GenerationConfig` that the user made keeps the same field.
# Why it matters: the recommended number of loops of a looped model is such a field. A published model would silently
# generate with another number.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet transformers==5.24.0 torch==2.13.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

transformers.logging.set_verbosity_error()
print("transformers", transformers.__version__)
sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
found = {}
for name in ("made from the config", "made by the user"):
    model = LlamaForCausalLM(LlamaConfig(**sizes))
    if name == "made by the user":
        model.generation_config = GenerationConfig()
    model.generation_config.num_loops = 5
    folder = Path(sys.argv[1]) / name
    model.save_pretrained(folder)
    assert json.loads((folder / "generation_config.json").read_text())["num_loops"] == 5
    read = LlamaForCausalLM.from_pretrained(folder).generation_config
    found[name] = getattr(read, "num_loops", None)
    print(f"{name}: 5 is in the file, {found[name]} is read")
assert found == {"made from the config": None, "made by the user": 5}, "changed"
PYTHON
# Output seen (transformers 5.24.0, torch 2.13.0, Python 3.11):
#   made from the config: 5 is in the file, None is read
#   made by the user: 5 is in the file, 5 is read
