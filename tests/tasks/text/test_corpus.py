"""A corpus is prepared once, whole or not at all, and what no longer fits it is noticed."""

import dataclasses
import gzip
import hashlib
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from looped import files
from looped.tasks.base import SPLITS, split_of
from looped.tasks.continuation import Tokenizer
from looped.tasks.text import Text, TextConfig, encoding
from looped.tasks.text.corpus import open_corpus
from looped.tasks.text.encoding import encode, pieces
from looped.tasks.text.sources import SplitPart
from looped.tasks.text.tokenizer import END_TOKEN, BPETokenizer, ByteTokenizer, read_bpe, tokenizer_files, trained_bpe

DATA = Path(__file__).resolve().parents[3] / "shared/data"
SENTENCE = "the cat sat on a mat and the dog ran to the house, isn't it? 12 345 Größe 日本語 🙂"
WORDS = ["\t", *SENTENCE.split()]
BPE = BPETokenizer(trained_bpe([" ".join(WORDS)] * 9, 290), END_TOKEN, "test")
TEXT = st.text(st.sampled_from([*" \n\t.,'1aeé日🙂_", *"abc"]), max_size=60) | st.text(max_size=30)


def story(number: int, sentences: int = 12) -> str:
    rng = np.random.default_rng(number)
    return "".join(" ".join(rng.choice(WORDS, 9)) + ".\n" for _ in range(sentences))


@pytest.fixture
def config(tmp_path: Path) -> TextConfig:
    """Three files, bytes."""
    names = {}
    for number, split in enumerate(SPLITS):
        (tmp_path / f"{split}.txt").write_text(story(number), encoding="utf-8")
        names[f"{split}_files"] = (str(tmp_path / f"{split}.txt"),)
    return TextConfig(**names, context=16, cache=str(tmp_path / "cache"))


def folder_of(config: TextConfig) -> Path:
    folder = open_corpus(config).folder
    assert folder is not None
    return folder


@given(TEXT)
def test_tokenizers_lose_nothing(text: str):
    for tokenizer in (ByteTokenizer(), BPE):
        (ids,) = tokenizer.encode([text])
        assert tokenizer.decode(ids) == text
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
        assert tokenizer.end not in ids


def test_the_name_of_the_end_is_only_text():
    for tokenizer in (ByteTokenizer(), BPE):
        (ids,) = tokenizer.encode([f"a{END_TOKEN}b"])
        assert len(ids) > 3
        assert tokenizer.end not in ids
        assert tokenizer.decode([tokenizer.end]) == END_TOKEN


def test_training_a_bpe_is_repeatable_and_worth_it():
    again = trained_bpe([" ".join(WORDS)] * 9, 290)
    assert again == trained_bpe([" ".join(WORDS)] * 9, 290)
    assert 257 < BPE.vocab_size <= 290
    assert len(BPE.encode(["the cat"])[0]) < len(b"the cat")


def encoded(texts: list[str], tokenizer: Tokenizer) -> list[int]:
    """The tokens of documents of one split."""
    found: list[int] = []
    parts: list[SplitPart] = [("train", text, True) for text in texts]
    encode(parts, tokenizer, lambda split, ids: found.extend(ids.tolist() if split == "train" else ()), "texts")
    return found


@given(st.lists(TEXT, min_size=1, max_size=4), st.integers(1, 9))
def test_cutting_long_documents_changes_no_token(texts: list[str], piece: int):
    before, encoding.PIECE = encoding.PIECE, piece
    try:
        cut = [[part for _, part, _ in pieces([("train", text, True)])] for text in texts]
        tokens = {tokenizer: encoded(texts, tokenizer) for tokenizer in (ByteTokenizer(), BPE)}
    finally:
        encoding.PIECE = before
    assert ["".join(pieces) for pieces in cut] == texts
    for tokenizer, found in tokens.items():
        plain = [tokenizer.end]
        for ids in tokenizer.encode(texts):
            plain += [*ids, tokenizer.end]
        assert found == plain


def test_documents_are_cut():  # or the test above would compare nothing
    assert len(list(pieces([("train", story(1) * 400, True)]))) > 2


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_prepared_tokens_are_the_text(config: TextConfig, tokenizer: str):
    size = {} if tokenizer == "bytes" else {"bpe_size": 300}
    config = dataclasses.replace(config, tokenizer=tokenizer, **size)
    prepared = open_corpus(config)
    manifest = json.loads((folder_of(config) / "manifest.json").read_text())
    for split in SPLITS:
        path = Path(getattr(config, f"{split}_files")[0])
        text, tokens = path.read_text(encoding="utf-8"), np.asarray(prepared.tokens[split])
        assert prepared.tokenizer.decode(tokens.tolist()) == f"{END_TOKEN}{text}{END_TOKEN}"
        assert all(isinstance(shard.base, np.memmap) for shard in prepared.tokens[split].shards)
        assert tokens.dtype == np.uint16
        assert prepared.counts[split] == {
            "tokens": len(tokens) - 1,
            "documents": 1,
            "words": len(text.split()),
            "bytes": len(path.read_bytes()),
        }
        assert manifest["sources"][split] == {str(path.resolve()): hashlib.sha256(path.read_bytes()).hexdigest()}
    assert manifest["vocab_size"] == prepared.tokenizer.vocab_size


def test_compressed_files_and_folders_are_the_same_text(config: TextConfig, tmp_path: Path):
    content = (tmp_path / "train.txt").read_bytes()
    packed = {"xz": lzma.compress, "gz": gzip.compress, "zst": zstandard.ZstdCompressor().compress}
    for ending, compress in packed.items():
        folder = tmp_path / ending / "inner"
        folder.mkdir(parents=True)
        (folder / f"part.txt.{ending}").write_bytes(compress(content))
        (folder / "notes.bin").write_bytes(b"\xff\xfe")  # no text, and not asked for
    plain = open_corpus(config).tokens["train"]
    for ending in packed:
        other = open_corpus(dataclasses.replace(config, train_files=(str(tmp_path / ending),)))
        np.testing.assert_array_equal(other.tokens["train"], plain)


def test_one_corpus_is_split_by_content(tmp_path: Path):
    parts = [f"{story(n, 2)}" for n in range(60)]
    (tmp_path / "all.txt").write_text("\n".join(parts), encoding="utf-8")
    config = TextConfig(
        train_files=(str(tmp_path / "all.txt"),), document="paragraph", context=16, cache=str(tmp_path / "cache")
    )
    prepared = open_corpus(config)
    for split in SPLITS:
        ids = np.asarray(prepared.tokens[split]).tolist()
        found = prepared.tokenizer.decode(ids).split(END_TOKEN)[1:-1]
        assert found == [part.strip("\n") for part in parts if split_of(part.strip("\n").encode()) == split]
        assert found


def test_prepared_once(config: TextConfig):
    folder = folder_of(config)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert folder_of(config) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing temporary is left
    assert folder_of(dataclasses.replace(config, document="line")) != folder
    assert folder_of(dataclasses.replace(config, context=8)) == folder  # tokens are tokens


def test_a_failure_leaves_nothing(config: TextConfig, monkeypatch: pytest.MonkeyPatch):
    real = files.sync

    def full_disk(path: Path) -> None:
        if path.name == "manifest.json":
            raise OSError(28, "No space left on device", str(path))
        real(path)

    monkeypatch.setattr(files, "sync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        open_corpus(config)
    assert not Path(config.cache).exists()
    monkeypatch.undo()
    assert open_corpus(config).counts["train"]["documents"] == 1


def damage(config: TextConfig, name: str) -> str:
    """Do what `name` says to a prepared corpus; returns what the complaint has to say."""
    folder = folder_of(config)
    train = folder / "train-00000.npy"
    if name == "source changed":
        Path(config.train_files[0]).write_text(story(9), encoding="utf-8")
        return r"train\.txt: changed since .*text-.* was prepared from it; restore it, or delete"
    if name == "tokens cut short":
        train.write_bytes(train.read_bytes()[:-10])
        return r"train-00000\.npy: damaged or cut short; expected \d+ tokens"
    if name == "tokens emptied":
        train.write_bytes(b"")
        return r"train-00000\.npy: damaged or cut short; expected \d+ tokens"
    if name == "header damaged":
        train.write_bytes(train.read_bytes().replace(b"(", b"\n", 1))
        return r"train-00000\.npy: damaged or cut short; expected \d+ tokens"
    if name == "tokens zipped":
        with train.open("wb") as file:
            np.savez(file, np.zeros(3))
        return r"train-00000\.npy: damaged or cut short; expected \d+ tokens"
    if name == "ids out of range":
        np.save(train, np.full_like(np.load(train), 65_000))
        return r"text-\w+: token 65000 is out of range; expected ids below \d+"
    if name == "another tokenizer":
        (folder / "tokenizer.json").write_text(trained_bpe([story(9)], 290))
        return r"tokenizer\.json: not the tokenizer that made these tokens"
    (folder / "manifest.json").write_text("{}" if name == "manifest emptied" else "{")
    return r"manifest\.json: damaged; expected the manifest"


@pytest.mark.parametrize(
    "name",
    [
        "source changed", "tokens cut short", "tokens emptied", "header damaged", "tokens zipped", "ids out of range",
        "another tokenizer", "manifest emptied", "manifest cut short",
    ],
)  # fmt: skip
def test_what_no_longer_fits_is_noticed(config: TextConfig, name: str):
    config = dataclasses.replace(config, tokenizer="bpe", bpe_size=300)
    message = damage(config, name)
    with pytest.raises(ValueError, match=message):
        Text(config).batch("train", 0, 1, seed=0)


needs_data = pytest.mark.skipif(not DATA.exists(), reason="the real texts are not at hand")


@needs_data
def test_gpt2_tokens():
    folder = str(DATA / "gpt2-bpe")
    gpt2 = BPETokenizer(read_bpe(tokenizer_files(folder)), END_TOKEN, folder)
    assert gpt2.encode(["Hello world"]) == [[15496, 995]]
    assert (gpt2.vocab_size, gpt2.end) == (50_257, 50_256)


@needs_data
def test_wikitext_counts(tmp_path: Path):
    test, validation = (str(DATA / f"wikitext-2/{name}.txt.xz") for name in ("test", "valid"))
    (tmp_path / "train.txt").write_text("any other text\n" * 9)
    config = TextConfig(
        train_files=(str(tmp_path / "train.txt"),),
        validation_files=(validation,),
        test_files=(test,),
        tokenizer=str(DATA / "gpt2-bpe"),
        version="published",
        context=16,
        cache=str(tmp_path / "cache"),
    )
    prepared = open_corpus(config)
    counts = {split: (c["documents"], c["words"]) for split, c in prepared.counts.items()}
    assert counts["validation"] == (3760, 213_886)
    assert counts["test"] == (4358, 241_211)
    ends = np.asarray(prepared.tokens["validation"]) == 50_256
    assert ends.sum() == 1 + 3760
    assert (ends[1:] & ends[:-1]).sum() == 1299  # blank lines: nothing between two ends
    corrected = open_corpus(dataclasses.replace(config, version="corrected"))
    assert (np.asarray(corrected.tokens["validation"]) == 50_256).sum() == 2
    assert corrected.counts["validation"]["words"] == 213_886
