#!/usr/bin/env bash
# One would guess: AutoTokenizer reads tokenizer.json and tokenizer_config.json, which name a class of transformers, so
# the code of the model in the same folder plays no part.
# What happens: it first loads the configuration of the model. It asks whether to run the model's code, on standard
# output, and waits 15 seconds for an answer. With trust_remote_code=True that code runs. With False nothing is asked,
# nothing runs, and the tokenizer is the same.
# Why it matters: looped models are published with their code (no looped architecture is served without it, except a
# few). A script that only counts tokens stops at a question, and its output begins with that question.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet transformers==5.24.0 tokenizers==0.23.3
mkdir "$folder/model"
cat > "$folder/model/modeling.py" <<'PYTHON'
from transformers import PreTrainedConfig

print("the code of the model runs")


class OwnConfig(PreTrainedConfig):
    model_type = "own"
PYTHON
echo '{"model_type": "own", "auto_map": {"AutoConfig": "modeling.OwnConfig"}}' > "$folder/model/config.json"
cat > "$folder/read.py" <<'PYTHON'
import sys

from transformers import AutoTokenizer, PreTrainedTokenizerFast
import tokenizers

folder, trust = sys.argv[1], {"True": True, "False": False, "None": None}[sys.argv[2]]
if trust is None:  # the first call makes the tokenizer, a plain one of transformers
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?").save_pretrained(folder)
options = {} if trust is None else {"trust_remote_code": trust}
print(AutoTokenizer.from_pretrained(folder, **options)("b").input_ids)
PYTHON
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
read() { "$folder/venv/bin/python" "$folder/read.py" "$folder/model" "$1" 2>/dev/null <<< "y"; }
asked=$(read None)
trusted=$(read True)
refused=$(read False)
printf 'by default:\n%s\ntrust_remote_code=True:\n%s\ntrust_remote_code=False:\n%s\n' "$asked" "$trusted" "$refused"
grep -q "custom code" <<< "$asked" || { echo "changed: nothing is asked"; exit 1; }
grep -q "the code of the model runs" <<< "$trusted" || { echo "changed: the model's code does not run"; exit 1; }
[ "$refused" = "[1]" ] || { echo "changed: without the model's code the tokenizer is not read"; exit 1; }
# Output seen (transformers 5.24.0, Python 3.11), shortened:
#   by default: The repository ... contains custom code ... Do you wish to run the custom code? [y/N] the code of the
#     model runs, [1]
#   trust_remote_code=True: the code of the model runs, [1]
#   trust_remote_code=False: [1]
