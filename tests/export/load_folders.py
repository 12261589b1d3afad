"""Run by test_hf_folder.py in a process of its own: load folders with transformers, where this package is missing."""

import json
import sys
from pathlib import Path

MISSING = ("looped", "einops", "jaxtyping", "beartype")


class Missing:
    """Refuses the import of these packages, as on a machine that does not have them."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(root: Path) -> None:
    sys.meta_path.insert(0, Missing())
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(1)
    found = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        given = json.loads((root / f"{folder.name}.json").read_text())
        ids, mask = torch.tensor(given["ids"]), torch.tensor(given["mask"])

        def logits(model, **options):
            with torch.no_grad():
                return model(ids, attention_mask=mask, **options).logits  # noqa: B023

        def texts(model, **options):
            made = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=8, **options)  # noqa: B023
            return made[:, ids.shape[1] :].tolist()  # noqa: B023

        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
        assert type(model).__module__.startswith("transformers_modules.")
        again = root / "again" / folder.name
        model.save_pretrained(again)
        twice = AutoModelForCausalLM.from_pretrained(again, trust_remote_code=True)
        other = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, num_loops=2)
        found[folder.name] = {
            "logits": logits(model).tolist(),
            "logits again": logits(twice).tolist(),
            "logits of 2 loops": logits(model, num_loops=2).tolist(),
            "logits of 2 loops at load": logits(other).tolist(),
            "logits with a rule": logits(model, exit_rule=given["rule"]).tolist(),
            "texts": texts(model),
            "texts again": texts(twice),
            "texts of 1 loop": texts(model, num_loops=1),
            "texts with a rule": texts(model, exit_rule=given["rule"]),
            "texts without cache": texts(model, use_cache=False),
        }
        if (folder / "tokenizer.json").exists():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
            batch = tokenizer(given["texts"], return_tensors="pt", padding=True)
            found[folder.name]["tokens"] = [batch["input_ids"].tolist(), batch["attention_mask"].tolist()]
            found[folder.name]["decoded"] = tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
        classifier = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True, num_labels=3)
        assert logits(classifier).shape == (len(ids), 3)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
