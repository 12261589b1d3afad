"""Model cards: their metadata as huggingface_hub reads it, and texts of run folders that stay texts."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from looped.card import model_card
from looped.config import ModelConfig, RunConfig
from looped.models import LoopedTransformer
from looped.strict import from_dict, to_dict

HOSTILE = (
    '<script>alert(1)</script><img src="http://a.b/c">&amp;"\'',
    "a|b\n# head\n| c | d |", "x\n---\nlicense: mit\n---\n",
    "- a: [b, {c: *d}]\n\ttab", "\x1b[31mred\x07\x9b1m\u202eevil", "\ud800\udfff",
    "```\nls\n````\n~~~ `x` [a](javascript:b)",
    "!!python/object/apply:os.system ['ls']", "'\"%@`&*!|>{}[]#: -?", "null", "名前" * 40,
)  # fmt: skip
HF: Any = {"auto_class": "AutoModelForCausalLM", "code": "modeling_looped.py"}
SIZES = {"vocab_size": 30, "output_size": 30, "max_seq_len": 16, "d_model": 16, "num_heads": 2, "num_loops": 4}


def model(**settings: Any) -> LoopedTransformer:
    return LoopedTransformer(from_dict(ModelConfig, {**SIZES, "causal": True, **settings}))


def write_run(folder: Path, text: str, value: float = 12.5, rule: str | None = None) -> Path:
    """A run folder whose texts are all `text`."""
    task = {"name": "text", "train_files": [text], "dataset": None, "text_field": text}
    config = from_dict(RunConfig, {"recipe": text, "note": text, "task": task, "model": {**SIZES, "causal": True}})
    folder.mkdir()
    files: dict[str, Any] = {
        "config.json": {"looped": "0.1.0", "run": to_dict(config)},
        "environment.json": dict.fromkeys(
            ("command", "date", "machine", "python", "torch", "looped", "precision", "device"), text
        ) | {"threads": 1},
        "summary.json": {
            "recipe": text, "metric": text, "lower_is_better": True, "steps": 1000, "examples": 8000, "seconds": 5.0,
            "finished": "steps", "parameters": 1, "non_embedding_parameters": 1, "effective_depth": 4,
            "flops_per_example": 1, "best": None,
        },
    }  # fmt: skip
    row = {"exit_rule": rule, "num_loops": 3, "mean_loops": 2.5, "value": value, "low": value, "high": value}
    files["calibration.json"] = {
        "metric": text, "lower_is_better": True, "split": text, "examples": 7, "tolerance": 0.0, "trained_loops": 4,
        "rows": [row], "best": row, "recommendation": row | {"seconds": 1.0, "seconds_of_best": 1.0}, "warning": text,
        "step": 1000, "device": "cpu", "threads": 1,
    }  # fmt: skip
    rows = [
        {"group": group, "num_loops": n, "metric": text, "value": value / n, "low": value / n, "high": value / n,
         "n": 9, "split": text, "trained_loops": 4, "step": 1000, "flops_per_example": 1}
        for group in (text, f"{text} 2") for n in (1, 4)
    ]  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def structure(text: str) -> list[str]:
    """The kinds of blocks and of parts of lines that a reader of Markdown finds, without plain text."""
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = [(block.type, [part.type for part in block.children or [] if part.type != "text"]) for block in blocks]
    assert {"table_open", "fence", "heading_open", "bullet_list_open"} <= {kind for kind, _ in kinds}
    return [str(kind) for kind in kinds]


def parts(text: str) -> tuple[dict[str, Any], str]:
    """The metadata and the rest, as huggingface_hub reads a card."""
    card = ModelCard(text)
    return card.data.to_dict(), card.text


def test_a_card_has_the_facts_of_the_run(tmp_path: Path):
    run = write_run(tmp_path / "run", "plain", rule="kl:0.01")
    data, text = parts(model_card(model(), "mine", run=run, weights_license="mit", **HF))
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == ("mit", "transformers", "text-generation")
    (index,) = data["model-index"]
    found = {(r["dataset"]["config"], m["name"]): m["value"] for r in index["results"] for m in r["metrics"]}
    assert found == {("plain", "plain, 4 loops"): 12.5 / 4, ("plain 2", "plain, 4 loops"): 12.5 / 4}
    assert "| plain | plain | 12.5 (12.5-12.5) | 3.125 (3.125-3.125) |" in text
    assert "`kl:0.01` with at most 3 loops" in text
    assert "a core of 1 layer that is applied 4 times" in text
    assert "trust_remote_code=True" in text
    assert "- steps: 1,000" in text
    assert "```sh\nplain\n```" in text


def test_a_card_without_a_run_says_less():
    data, text = parts(model_card(model(modulation="table", max_loops=6), "mine"))
    assert "model-index" not in data
    assert data["library_name"] == "looped"
    assert "LoopedTransformer.load" in text
    assert "at most 6 loops" in text
    assert not {"## Training", "## Scores", "trust_remote_code"} & {*text.splitlines()}


@pytest.mark.parametrize("hostile", HOSTILE, ids=[f"text{i}" for i in range(len(HOSTILE))])
def test_texts_of_a_run_folder_are_only_texts(hostile: str, tmp_path: Path):
    plain = write_run(tmp_path / "plain", "plain", rule="plain")
    written = write_run(tmp_path / "hostile", hostile, rule=hostile)
    expected, harmless = parts(model_card(model(), "mine", run=plain))
    text = model_card(model(), hostile, run=written)
    text.encode()  # no halves of characters
    data, body = parts(text)
    assert data.keys() == expected.keys()
    assert data["tags"] == expected["tags"]
    assert "license" not in data
    assert structure(body) == structure(harmless)
    assert not set(body) & set("\x1b\x07\x9b\u202e")


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_scores_that_are_not_finite(value: float, tmp_path: Path):
    data, text = parts(model_card(model(), "mine", run=write_run(tmp_path / "run", "plain", value)))
    assert "model-index" not in data
    assert "not finite" in text


def test_a_damaged_run_folder_is_one_line(tmp_path: Path):
    run = write_run(tmp_path / "run", "plain")
    (run / "calibration.json").write_text("{}")
    with pytest.raises(ValueError, match=r"calibration.json:1: .*missing"):
        model_card(model(), "mine", run=run)


def test_saved_models_of_transformers_get_a_card_once(tmp_path):
    from looped.hf import LoopedForCausalLM, LoopedForSequenceClassification, to_hf

    made = to_hf(model())
    made.save_pretrained(tmp_path / "mine")
    data, text = parts((tmp_path / "mine/README.md").read_text())
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "text-generation")
    assert "import looped.hf" in text
    assert "AutoModelForCausalLM.from_pretrained" in text
    assert "trust_remote_code" not in text
    (tmp_path / "mine/README.md").write_text("my own")
    LoopedForCausalLM.from_pretrained(tmp_path / "mine").save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine/README.md").read_text() == "my own"
    LoopedForSequenceClassification(made.config).save_pretrained(tmp_path / "classes")
    assert "AutoModelForSequenceClassification" in (tmp_path / "classes/README.md").read_text()
