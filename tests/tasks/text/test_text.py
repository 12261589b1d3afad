"""Windows, and perplexity against the slow obvious way: one forward pass for every token."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looped.config import ModelConfig
from looped.evaluation.scores import evaluate
from looped.models import LoopedTransformer
from looped.tasks.base import SPLITS, Batch
from looped.tasks.text import Text, TextConfig
from looped.tasks.text.task import Window


def make(folder: Path, length: int = 150, **options) -> Text:
    """Random letters, a vocabulary of bytes."""
    letters, names = np.random.default_rng(0), {}
    for split in SPLITS:
        path = folder / f"{split}.txt"
        path.write_text("".join(letters.choice(list("abcd efg\n"), length)))
        names[f"{split}_files"] = (str(path),)
    return Text(TextConfig(**names, cache=str(folder / "cache"), **options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text")


def small(task: Text, **options) -> LoopedTransformer:
    size = task.spec.vocab_size
    config = ModelConfig(
        vocab_size=size, output_size=size, max_seq_len=task.config.context, causal=True, d_model=16, num_heads=2,
        num_loops=2, **options,
    )  # fmt: skip
    model = LoopedTransformer(config, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_sliding_windows_score_every_token_once(folder: Path, context: int, stride: int, data: st.DataObject):
    task = make(folder, context=context, stride=min(stride, context))
    split = data.draw(st.sampled_from(SPLITS))
    tokens = np.asarray(task.corpus.tokens[split]).tolist()
    windows = task.sample(split, task.available(split, "sliding") or 0, task.rng(split, 0, 0), "sliding")
    scored = []
    for number, window in enumerate(windows):
        assert len(window.inputs) == len(window.targets) == context
        assert window.inputs[1:].tolist() == window.targets[:-1].tolist()
        assert 1 <= window.scored <= (context if number == 0 else task.stride)
        scored += window.targets[-window.scored :].tolist()
    assert scored == tokens[1:]


def test_training_windows_lie_anywhere(folder: Path):
    task = make(folder, context=8)
    tokens = np.asarray(task.corpus.tokens["train"]).tolist()
    every = {tuple(tokens[i : i + 9]) for i in range(len(tokens) - 8)}
    batch = task.batch("train", 5, 5000, seed=3)
    drawn = {(*row, last) for row, last in zip(batch.inputs.tolist(), batch.targets[:, -1].tolist(), strict=True)}
    assert {tuple(row) for row in drawn} == every
    assert batch.mask.all()
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])


@pytest.mark.parametrize("stride", [1, 4, 12])
def test_perplexity_equals_token_by_token(folder: Path, stride: int):
    context = 12
    task = make(folder, context=context, stride=stride)
    model = small(task)
    tokens = torch.tensor(np.asarray(task.corpus.tokens["test"]).tolist())
    ends = [context + k * stride for k in range(1000)]  # where windows end, in targets
    total = 0.0
    for place in range(1, len(tokens)):
        end = min(next(end for end in ends if end >= place), len(tokens) - 1)
        with torch.no_grad():
            logits = model(tokens[None, end - context : place], num_loops=3).logits[0, -1].double()
        total -= logits.log_softmax(-1)[tokens[place]].item()
    text = Path(task.config.test_files[0]).read_bytes()
    expected = {
        "perplexity": math.exp(total / (len(tokens) - 1)),
        "word_perplexity": math.exp(total / len(text.split())),
        "byte_perplexity": math.exp(total / len(text)),
    }
    rows = list(evaluate(model, task, loops=[1, 3], examples=2, groups=["sliding"]))
    found = {row["metric"]: row for row in rows if row["num_loops"] == 3}
    assert {name: row["value"] for name, row in found.items()} == pytest.approx(expected, rel=1e-5)
    assert expected["perplexity"] > 10  # and far from that of one loop:
    assert abs(rows[0]["value"] / expected["perplexity"] - 1) > 0.002
    for row in found.values():
        assert 1 < row["low"] < row["value"] < row["high"]
        assert row["n"] == task.available("test", "sliding")  # the whole split, whatever was asked for
        assert row["n"] > 2


def test_published_perplexity_is_that_of_random_windows(folder: Path):
    task = make(folder, context=12)
    model = small(task)
    (row,) = evaluate(model, task, loops=[2], examples=50, groups=["published"])
    batch = task.batch("test", 0, 50, seed=0, group="published")
    with torch.no_grad():
        logits = model(batch.inputs).logits
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
    means = losses.view(50, 12).mean(1).double()
    half = 1.959964 * means.std().item() / math.sqrt(50)
    ends = [means.mean().item() + sign * half for sign in (0, -1, 1)]
    assert [row["value"], row["low"], row["high"]] == pytest.approx([math.exp(end) for end in ends], rel=1e-5)


def test_what_was_not_learnt_has_a_finite_perplexity(folder: Path):
    task = make(folder, context=12)
    values = task.reported("loss", 400.0, "test", "sliding")
    assert values.keys() == {"perplexity", "word_perplexity", "byte_perplexity"}
    assert all(math.isfinite(value) for value in values.values())


def test_prompts_of_different_lengths_do_not_disturb_each_other(folder: Path):
    task = make(folder, context=12)
    model = small(task)
    prompts, skipped = task.read(["abc", "", "f", "x" * 12], "here", "skip")
    assert (len(prompts), skipped) == (2, 1)
    assert prompts[0].inputs.tolist() == [256, *b"abc"]
    batch = task.encode(prompts)
    assert not batch.targets.any()
    assert not batch.mask.any()
    with torch.no_grad():
        together = model(batch.inputs, attention_mask=batch.attention_mask).logits
        for prompt, logits in zip(prompts, together, strict=True):
            alone = model(torch.from_numpy(prompt.inputs)[None]).logits[0]
            said, expected = task.answer(prompt, logits), task.answer(prompt, alone)
            assert said["answer"] == expected["answer"] == task.tokenizer.decode([int(alone[-1].argmax())])
            assert said["confidence"] == pytest.approx(expected["confidence"])
    assert task.to_text(prompts[0]) == {"input": "abc", "expected": ""}


def test_padded_vocabulary_is_never_an_answer(folder: Path):
    task = make(folder, context=12)
    (prompt,), _ = task.read(["ab"], "here", "stop")
    logits = torch.zeros(2, 3, 300)
    logits[:, -1, 299], logits[:, -1, 97] = 9.0, 1.0
    assert task.answer(prompt, logits[0])["answer"] == "a"
    assert ["'a'", pytest.approx(math.e / (math.e + 256))] in task.visualise(prompt, logits)["loops"][0][
        "probabilities"
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [("x" * 12, r"here, line 1: a prompt of 13 tokens, .*at most task\.context=12"), ("  ", "here: no prompt in it")],
)
def test_bad_prompts(folder: Path, line: str, message: str):
    with pytest.raises(ValueError, match=message):
        make(folder, context=12).read([line], "here", "stop")


def test_weights_are_the_scored_tokens(folder: Path):
    task = make(folder, context=4)
    row = np.arange(4)
    batch = task.encode([Window(row, row + 1, 4), Window(row, row + 1, 1)])
    assert task.weights(batch).tolist() == [4, 1]
    assert batch.mask.tolist() == [[True] * 4, [False, False, False, True]]
    assert isinstance(batch, Batch)
