"""Tokens in several files are one ring, of which only what is asked for is read."""

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from looped.tasks.text import Text, TextConfig, tokens
from looped.tasks.text.corpus import open_corpus
from looped.tasks.text.tokens import Tokens, TokenWriter, mapped_tokens


@given(st.integers(2, 60), st.lists(st.integers(0, 60), max_size=6), st.data())
def test_windows_do_not_depend_on_the_files(size: int, places: list[int], data: st.DataObject):
    ids = np.arange(100, 100 + size).astype(np.uint16)
    ids[-1] = ids[0]  # the end of text
    ends = [0, *sorted(min(place, size) for place in places), size]
    found = Tokens([ids[i:j] for i, j in pairwise(ends)])
    assert len(found) == size
    np.testing.assert_array_equal(np.asarray(found), ids)
    start, length = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    ring = np.concatenate([ids, ids[1:], ids[1:]])
    np.testing.assert_array_equal(found.window(start, length), ring[start : start + length])


@pytest.mark.parametrize("kind", [np.uint16, np.uint32])
def test_files_of_bounded_size(kind: type[np.unsignedinteger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokens, "SHARD", 10)
    ids = np.random.default_rng(0).integers(0, 60_000, 37).astype(kind)
    writer = TokenWriter(tmp_path, "train", kind)
    for part in np.split(ids, [1, 1, 25]):
        writer.write(part)
    writer.close()
    assert writer.lengths == [10, 10, 10, 7]
    assert [len(np.load(file)) for file in sorted(tmp_path.iterdir())] == writer.lengths
    found = mapped_tokens(tmp_path, "train", writer.lengths)
    np.testing.assert_array_equal(np.asarray(found), ids)
    inside = found.window(21, 5)
    assert np.shares_memory(inside, found.shards[2])  # a view, which reads nothing yet
    for copy in (found, pickle.loads(pickle.dumps(found))):
        assert all(isinstance(shard.base, np.memmap) for shard in copy.shards)
        np.testing.assert_array_equal(copy.window(8, 25), ids[8:33])
    assert len(pickle.dumps(found)) < 1000


def prepared(folder: Path) -> TextConfig:
    (folder / "text.txt").write_text("".join(f"A document number {n}.\n" for n in range(200)))
    return TextConfig(train_files=(str(folder / "text.txt"),), document="line", context=16, cache=str(folder / "cache"))


def test_a_corpus_in_many_files_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = prepared(tmp_path)
    one = Text(config)
    for file in one.corpus.folder.rglob("*") if one.corpus.folder else ():
        file.unlink()
    assert one.corpus.folder
    one.corpus.folder.rmdir()
    monkeypatch.setattr(tokens, "SHARD", 100)
    many = Text(config)
    assert len(many.corpus.tokens["train"].shards) > 20
    for group in ("sliding", "published", None):
        a, b = (task.batch("train", 3, 40, seed=1, group=group) for task in (one, many))
        assert a.inputs.equal(b.inputs)
        assert a.targets.equal(b.targets)


def test_damaged_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokens, "SHARD", 1000)
    config = prepared(tmp_path)
    folder = open_corpus(config).folder
    assert folder
    second = folder / "train-00001.npy"
    content = second.read_bytes()
    second.write_bytes(content[:-1])
    with pytest.raises(
        ValueError, match=r"train-00001\.npy: damaged or cut short; expected 1000 tokens; delete .*text-"
    ):
        open_corpus(config)
    second.unlink()
    with pytest.raises(ValueError, match=r"train-00001\.npy: no such file; expected 1000 tokens; delete .*text-"):
        open_corpus(config)
    second.write_bytes(content)
    assert len(open_corpus(config).tokens["train"].shards) > 2
    np.save(second, np.full_like(np.load(second), 999))
    task = Text(config)
    with pytest.raises(ValueError, match=r"text-\w+: token 999 is out of range; expected ids below 257; delete the"):
        task.batch("train", 0, 100, seed=0)
