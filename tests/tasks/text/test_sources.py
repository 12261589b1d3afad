"""Text from JSON lines, from what Hugging Face's libraries save, and from objects in memory."""

import gzip
import json
import lzma
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard

from looped.cli import main
from looped.config import ModelConfig
from looped.models import LoopedTransformer
from looped.tasks.base import SPLITS, split_of
from looped.tasks.continuation import as_tokenizer
from looped.tasks.text import Text, TextConfig
from looped.tasks.text.corpus import open_corpus
from looped.tasks.text.tokenizer import ByteTokenizer, trained_bpe

STORIES = [f"Story {n}: the {n * n % 97} men\nwent to sea in boat {n % 7}.\n" for n in range(120)]


def json_lines(texts: list[str], field: str = "text") -> str:
    return "".join(json.dumps({"id": n, field: text}) + "\n" for n, text in enumerate(texts)) + "\n"


def tokens_of(texts: list[str]) -> dict[str, list[int]]:
    """Bytes of the documents of each split, with an end of text around each."""
    found = {}
    for split in SPLITS:
        mine = [text for text in texts if split_of(text.encode()) == split]
        found[split] = [256, *(i for text in mine for i in [*text.encode(), 256])]
        assert len(mine) > 2
    return found


PACK = {
    "": str.encode,
    ".gz": lambda text: gzip.compress(text.encode()),
    ".xz": lambda text: lzma.compress(text.encode()),
    ".zst": lambda text: zstandard.compress(text.encode()),
}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("folder", [False, True])
def test_each_object_is_a_document(packed: str, folder: bool, tmp_path: Path):
    path = tmp_path / "texts" / f"stories.jsonl{packed}"
    path.parent.mkdir()
    path.write_bytes(PACK[packed](json_lines(STORIES, "body")))
    source = str(path.parent if folder else path)
    corpus = open_corpus(
        TextConfig(train_files=(source,), text_field="body", context=16, cache=str(tmp_path / "cache"))
    )
    assert {split: np.asarray(corpus.tokens[split]).tolist() for split in SPLITS} == tokens_of(STORIES)
    assert sum(count["documents"] for count in corpus.counts.values()) == len(STORIES)


def test_objects_are_cut_as_files_are(tmp_path: Path):
    path = tmp_path / "stories.jsonl"
    path.write_text(json_lines(STORIES))
    config = TextConfig(
        train_files=(str(path),), text_field="text", document="line", context=16, cache=str(tmp_path / "cache")
    )
    lines = [line for story in STORIES for line in story.splitlines(keepends=True)]
    assert {split: np.asarray(ids).tolist() for split, ids in open_corpus(config).tokens.items()} == tokens_of(lines)


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        (
            json_lines(STORIES),
            None,
            r"stories\.jsonl: JSON lines; expected the name of the field",
        ),
        (json_lines(STORIES), "body", r"stories\.jsonl, line 1: fields id, text; expected .* in 'body'"),
        ('{"text": "a"}\n\n{"text": 7}\n', "text", r"stories\.jsonl, line 3: text=7: expected a text"),
        ('{"text": "a"}\n{"text": "b\n', "text", r"stories\.jsonl, line 2: not JSON"),
        ('{"text": "a"}\n["b"]\n', "text", r"stories\.jsonl, line 2: list; expected an object with the text in 'text'"),
    ],
)
def test_bad_json_lines(content: str, field: str | None, message: str, tmp_path: Path):
    (tmp_path / "stories.jsonl").write_text(content)
    config = TextConfig(
        train_files=(str(tmp_path / "stories.jsonl"),), text_field=field, context=8, cache=str(tmp_path / "cache")
    )
    with pytest.raises(ValueError, match=message):
        open_corpus(config)
    assert not list(tmp_path.glob("cache/*"))


def test_a_field_without_json_lines_is_an_error(tmp_path: Path):
    (tmp_path / "a.txt").write_text("some text\n")
    config = TextConfig(train_files=(str(tmp_path / "a.txt"),), text_field="text", cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"task\.text_field='text': has no effect without a \.jsonl file or a dataset"):
        open_corpus(config)


def test_json_lines_are_trained_on_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("stories.jsonl").write_text(json_lines(STORIES))
    small = "--model.d-model 16 --model.num-heads 2 --task.context 16 --task.tokenizer bytes --task.bpe-size 4096"
    small += " --train.steps 2 --train.batch-size 4 --train.eval-examples 4 --optim.warmup-steps 0 --train.workers 0"
    command = f"train language-looped --out run {small} --task.train-files stories.jsonl --task.document file"
    assert main(command.split()) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "stories.jsonl: JSON lines" in err
    assert not Path("run").exists()
    assert main([*command.split(), "--task.text-field", "text"]) == 0
    assert main(["generate", "run", "--prompt", "Story", "--tokens", "3"]) == 0
    assert "{" not in capsys.readouterr().out


# Hugging Face


def fast_tokenizer():
    transformers = pytest.importorskip("transformers", reason="needs transformers, of the extra looped[dev]")
    import tokenizers

    inner = tokenizers.Tokenizer.from_str(trained_bpe(STORIES, 300))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")


def test_a_folder_of_save_pretrained(tmp_path: Path):
    tokenizer = fast_tokenizer()
    tokenizer.save_pretrained(tmp_path / "saved")
    (tmp_path / "a.txt").write_text("".join(STORIES))
    config = TextConfig(
        train_files=(str(tmp_path / "a.txt"),), document="line", tokenizer=str(tmp_path / "saved"), context=16,
        cache=str(tmp_path / "cache"),
    )  # fmt: skip
    corpus = open_corpus(config)
    (ids,) = corpus.tokenizer.encode([STORIES[0]])
    assert ids == tokenizer(STORIES[0], add_special_tokens=False)["input_ids"]
    assert 10 < len(ids) < len(STORIES[0])
    assert corpus.tokenizer.end == tokenizer.eos_token_id
    (tmp_path / "saved/tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"saved/tokenizer\.json: changed since"):
        open_corpus(config)


@pytest.mark.parametrize("splits", [False, True])
def test_a_folder_of_save_to_disk(splits: bool, tmp_path: Path):
    datasets = pytest.importorskip("datasets", reason="needs the extra looped[datasets]")
    lines = [line for story in STORIES for line in story.splitlines()]
    parts = {split: lines[k::3] for k, split in enumerate(SPLITS)}
    if splits:
        saved = datasets.DatasetDict({s: datasets.Dataset.from_dict({"body": rows}) for s, rows in parts.items()})
    else:
        saved = datasets.Dataset.from_dict({"body": lines})
    saved.save_to_disk(tmp_path / "saved")
    config = TextConfig(
        dataset=str(tmp_path / "saved"), text_field="body", document="line", context=16, cache=str(tmp_path / "cache")
    )
    tokens = {split: np.asarray(ids).tolist() for split, ids in open_corpus(config).tokens.items()}
    if splits:
        for split, rows in parts.items():
            assert tokens[split] == [256, *(i for row in rows for i in [*row.encode(), 10, 256])]
    else:
        assert tokens == tokens_of([f"{line}\n" for line in lines])
    wrong = TextConfig(dataset=str(tmp_path / "saved"), context=16, cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="no column text in a split train; expected one, named by --task"):
        open_corpus(wrong)
    datasets.Dataset.from_dict({"text": ["a", None]}).save_to_disk(tmp_path / "holes")
    with pytest.raises(ValueError, match="row 1 of train: text=None: expected a text"):
        open_corpus(TextConfig(dataset=str(tmp_path / "holes"), cache=str(tmp_path / "cache")))


def test_objects_in_memory_train_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    tokenizer = fast_tokenizer()
    task = Text.from_documents(TextConfig(context=16), STORIES, tokenizer)
    assert list(tmp_path.iterdir()) == []  # nothing is prepared on the disk
    assert task.spec.vocab_size == len(tokenizer)
    expected = [text for text in STORIES if split_of(text.encode()) == "test"]
    ids = [i for text in expected for i in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    assert np.asarray(task.corpus.tokens["test"]).tolist() == [tokenizer.eos_token_id, *ids]

    torch.manual_seed(0)
    sizes = {name: getattr(task.spec, name) for name in ("vocab_size", "output_size", "max_seq_len", "causal")}
    model = LoopedTransformer(ModelConfig(d_model=32, num_heads=2, num_loops=2, **sizes))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for step in range(30):
        batch = task.batch("train", step, 16, seed=0)
        logits = model(batch.inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]

    copy = pickle.loads(pickle.dumps(Text.from_documents(TextConfig(context=16), STORIES)))
    assert torch.equal(
        copy.batch("train", 3, 4, seed=0).inputs,
        Text.from_documents(TextConfig(context=16), STORIES).batch("train", 3, 4, seed=0).inputs,
    )


def test_documents_by_split_and_a_tokenizer_of_the_settings():
    parts = {split: STORIES[k::3] for k, split in enumerate(SPLITS)}
    task = Text.from_documents(TextConfig(context=16, tokenizer="bpe", bpe_size=300), parts)
    assert task.tokenizer.vocab_size == 300
    for split, texts in parts.items():
        ids = np.asarray(task.corpus.tokens[split]).tolist()
        assert task.tokenizer.decode([i for i in ids if i != task.tokenizer.end]) == "".join(texts)
    assert np.array_equal(task.corpus.tokens["train"].window(0, 1), [task.tokenizer.end])


def test_mistakes_with_objects():
    with pytest.raises(ValueError, match=r"task\.train_files, task\.dataset: a\.txt; expected none beside documents"):
        Text.from_documents(TextConfig(train_files=("a.txt",)), STORIES)
    with pytest.raises(ValueError, match="documents: no text in the validation split"):
        Text.from_documents(TextConfig(context=8), {"train": STORIES})
    with pytest.raises(ValueError, match=r"documents: .* tokens in the validation split; expected at least"):
        Text.from_documents(TextConfig(context=8), {"train": STORIES, "validation": ["a"], "test": ["b"]})
    with pytest.raises(ValueError, match="tokenizer: a int without encode, decode, vocab_size, end; expected a fast"):
        as_tokenizer(7, "<|endoftext|>")
    own = ByteTokenizer()
    assert as_tokenizer(own, "") is own
    tokenizer = fast_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="tokenizer: has no eos_token"):
        as_tokenizer(tokenizer, "<|endoftext|>")
