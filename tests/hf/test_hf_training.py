"""Trainer, adapters and pipelines with looped models."""

import dataclasses
import json

import pytest
import torch
from hf.hf_cases import TINY, built, natively, padded, tokens
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments, pipeline

from looped.hf import LoopedConfig, LoopedForCausalLM, LoopedForSequenceClassification, to_hf

pytestmark = [
    pytest.mark.usefixtures("one_thread", "untyped"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning"),
]
CONFIG = dataclasses.replace(TINY, modulation="scale_gate", gate_offset=1, core_layers=1, coda_layers=0)
IDS = tokens(2, 6)


def batch(rows: list[dict]) -> dict[str, torch.Tensor]:
    """Texts of unequal lengths, padded on the right."""
    length = max(len(row["input_ids"]) for row in rows)
    found = {name: [] for name in ("input_ids", "attention_mask", "labels")}
    for row in rows:
        ids, more = row["input_ids"], (0, length - len(row["input_ids"]))
        found["input_ids"].append(torch.nn.functional.pad(ids, more))
        found["attention_mask"].append(torch.nn.functional.pad(torch.ones_like(ids), more))
        labels = torch.nn.functional.pad(ids, more, value=-100)
        found["labels"].append(row.get("labels", labels))
    return {name: torch.stack(values) for name, values in found.items()}


TEXTS = [{"input_ids": tokens(3 + i % 5, seed=i)} for i in range(16)]


def trained(folder, model=None, data=TEXTS, resume=None, **options) -> tuple:
    """A model after 2 steps of 4 texts, and the losses of the steps."""
    model = model or LoopedForCausalLM(LoopedConfig.from_model(CONFIG))
    settings = {
        "per_device_train_batch_size": 4, "max_steps": 2, "logging_steps": 1, "save_strategy": "no", "report_to": [],
        "use_cpu": True, "disable_tqdm": True, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "seed": 1,
        **options,
    }  # fmt: skip
    arguments = TrainingArguments(output_dir=str(folder), **settings)
    trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=batch)
    trainer.train(resume_from_checkpoint=resume)
    return model, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], trainer


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple:
    folder = tmp_path_factory.mktemp("plain")
    return (*trained(folder, save_strategy="steps", save_steps=1), folder)


def weights(model) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in model.parameters()]


def test_the_loss_is_that_of_the_next_tokens():
    model, rows = to_hf(built(CONFIG)), batch(TEXTS[:4])
    found = model(**rows)
    flat = found.logits[:, :-1].flatten(0, 1), rows["labels"][:, 1:].flatten()
    torch.testing.assert_close(found.loss, torch.nn.functional.cross_entropy(*flat))
    total = torch.nn.functional.cross_entropy(*flat, reduction="sum")
    torch.testing.assert_close(model(**rows, num_items_in_batch=torch.tensor(50)).loss, total / 50)
    tokens_, loss = model(**rows, return_dict=False)[:2][::-1]
    assert torch.equal(loss, found.loss)
    assert torch.equal(tokens_, found.logits)


def test_a_run_that_is_resumed_is_the_run(plain, tmp_path):
    whole, losses, trainer, folder = plain
    resumed, after, _ = trained(tmp_path, resume=str(folder / "checkpoint-1"))
    assert all(map(torch.equal, weights(whole), weights(resumed)))
    assert after == losses
    assert losses[-1] != losses[0]
    scores = trainer.evaluate(eval_dataset=TEXTS[:8])
    with torch.no_grad():
        torch.testing.assert_close(scores["eval_loss"], whole(**batch(TEXTS[:8])).loss.item())
    assert trainer.predict(TEXTS[:8]).predictions.shape == (8, 7, 23)


@pytest.mark.parametrize(
    "options",
    [{"activation_checkpointing": True}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}],
    ids=["checkpointing", "accumulation"],
)
def test_memory_is_saved_without_another_result(options: dict, plain, tmp_path, monkeypatch):
    """The texts have unequal lengths, so a mean of the means of small batches would differ."""
    whole, losses, *_ = plain
    recomputed = []
    forward = type(whole.looped).forward

    def spy(self, *args, **kwargs):
        recomputed.append(kwargs["recompute"])
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(whole.looped), "forward", spy)
    other, found, _ = trained(tmp_path, **options)
    assert {*recomputed} == {"loop" if "activation_checkpointing" in options else "none"}
    assert found == pytest.approx(losses, rel=1e-5)
    for a, b in zip(weights(whole), weights(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_regression_is_divided_by_the_accumulated_batches(tmp_path):
    data = [{"input_ids": tokens(6, seed=i), "labels": torch.tensor(float(i % 5))} for i in range(16)]

    def model() -> LoopedForSequenceClassification:
        torch.manual_seed(0)
        config = LoopedConfig.from_model(CONFIG, num_labels=1, pad_token_id=0)
        return LoopedForSequenceClassification(config)

    plain, _, _ = trained(tmp_path, model(), data, learning_rate=0.01)
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 0.01}
    other, _, _ = trained(tmp_path, model(), data, **options)
    for a, b in zip(weights(plain), weights(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert not torch.equal(weights(plain)[0], weights(model())[0])


@pytest.mark.parametrize("causal", [True, False])
def test_a_classifier_reads_the_last_real_token(causal: bool):
    config = dataclasses.replace(CONFIG, causal=causal)
    model = LoopedForSequenceClassification(LoopedConfig.from_model(config, num_labels=3, pad_token_id=0)).eval()
    short = IDS[1, :3]
    with torch.no_grad():
        expected = model(short[None]).logits[0]
        left = padded([IDS[0], short])
        right = {name: torch.stack([rows[0], rows[1].roll(-3)]) for name, rows in left.items()}
        for rows in (left, right):
            torch.testing.assert_close(model(**rows).logits[1], expected)
    if causal:  # padding behind a text then changes nothing
        torch.testing.assert_close(model(right["input_ids"]).logits[1].detach(), expected)
    loss = model(**left, labels=torch.tensor([0, 2])).loss
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(model(**left).logits, torch.tensor([0, 2])))


@pytest.mark.parametrize(
    "changes", [{}, {"cache": "first"}, {"values": "state"}, {"qk_norm": "full", "num_kv_heads": 2}], ids=str
)
def test_adapters_act_in_every_loop(changes: dict, tmp_path):
    """Trained, saved, loaded, merged; and written into the weights of a native model by hand."""
    peft = pytest.importorskip("peft")
    config = dataclasses.replace(CONFIG, **changes)
    settings = peft.LoraConfig(
        target_modules=["qkv", "project", "up", "down"], r=2, init_lora_weights=False, task_type="CAUSAL_LM"
    )
    torch.manual_seed(0)
    adapted = peft.get_peft_model(to_hf(built(config)), settings)
    optimiser = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], 0.1)
    adapted(input_ids=IDS, labels=IDS).loss.backward()
    optimiser.step()
    adapted.eval()
    native = built(config)
    before = native(IDS).logits
    with torch.no_grad():
        found = adapted(input_ids=IDS).logits
        for name, module in adapted.base_model.model.looped.named_modules():
            if hasattr(module, "lora_A"):
                native.get_parameter(f"{name}.weight").add_(module.get_delta_weight("default"))
        expected = native(IDS).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, before, atol=0.1)
    text = adapted.generate(input_ids=IDS, max_new_tokens=4, do_sample=False).tolist()
    assert [row[6:] for row in text] == natively(native, list(IDS), 4)
    adapted.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(to_hf(built(config)), tmp_path)
    with torch.no_grad():
        assert torch.equal(again(input_ids=IDS).logits, found)
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(merged(IDS).logits, expected, rtol=1e-4, atol=1e-4)


def test_adapters_that_would_reach_one_loop_only_are_refused():
    peft = pytest.importorskip("peft")
    model = to_hf(built(dataclasses.replace(CONFIG, core_tied="attention")))
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["qkv"], r=2))
    with pytest.raises(ValueError, match="adapters of PEFT: expected a model whose loops share all weights"):
        adapted(input_ids=IDS)


def test_a_pipeline_writes_what_looped_writes(tmp_path):
    vocabulary = {"[PAD]": 0, **{chr(96 + i): i for i in range(1, 23)}}
    words = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[PAD]"}
    parts = {"type": "Whitespace"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"version": "1.0", "model": words, "pre_tokenizer": parts, "added_tokens": []}))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path), pad_token="[PAD]", padding_side="left")
    native = built(CONFIG)
    to_hf(native).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    write = pipeline("text-generation", model=str(tmp_path / "model"), device="cpu")
    found = write(["a b c", "d"], max_new_tokens=6, do_sample=False, return_full_text=False, num_loops=2, batch_size=2)
    expected = natively(native, [torch.tensor([1, 2, 3]), torch.tensor([4])], 6, num_loops=2)
    assert [row[0]["generated_text"].split() for row in found] == [
        [chr(96 + token) if token else "[PAD]" for token in text] for text in expected
    ]
