"""Epochs: every window once, in an order of its own, whatever the number of devices; nothing is stored."""

import math
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looped.strict import from_dict
from looped.tasks.base import SPLITS, Split
from looped.tasks.text import Text, TextConfig
from looped.tasks.text.epochs import epoch_starts, permuted


@given(st.integers(1, 3000), st.integers(0, 99))
def test_a_permutation_reaches_every_place_once(size: int, seed: int):
    found = permuted(np.arange(size), size, np.random.default_rng(seed))
    assert sorted(found.tolist()) == list(range(size))
    some = np.arange(size // 3, size // 2)  # each place depends on its number only
    np.testing.assert_array_equal(permuted(some, size, np.random.default_rng(seed)), found[some])


@pytest.mark.parametrize("size", [3, 4, 5])
def test_every_permutation_is_equally_probable(size: int):
    draws = 1000
    counts = Counter(
        tuple(permuted(np.arange(size), size, np.random.default_rng([1, n])).tolist()) for n in range(draws)
    )
    kinds = math.factorial(size)
    assert len(counts) == kinds
    chi_squared = sum((count - draws / kinds) ** 2 for count in counts.values()) / (draws / kinds)
    assert abs(chi_squared - (kinds - 1)) < 5 * math.sqrt(2 * (kinds - 1))


@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 5), st.integers(0, 99))
def test_an_epoch_has_each_token_at_most_once_and_all_but_a_few(windows: int, context: int, epoch: int, seed: int):
    tokens = windows * context + seed % context
    starts = epoch_starts(epoch * windows, windows, tokens=tokens, context=context, seed=seed)
    targets = (starts[:, None] + 1 + np.arange(context)) % tokens
    assert len(np.unique(targets)) == windows * context > tokens - context


@given(st.integers(3, 60), st.integers(0, 400), st.lists(st.integers(1, 40), min_size=1, max_size=3))
def test_a_batch_may_cross_the_end_of_an_epoch(windows: int, first: int, sizes: list[int]):
    def starts(first: int, size: int) -> list[int]:
        return epoch_starts(first, size, tokens=windows * 7 + 3, context=7, seed=1).tolist()

    parts = [starts(first + sum(sizes[:k]), size) for k, size in enumerate(sizes)]
    assert [start for part in parts for start in part] == starts(first, sum(sizes))


def test_epochs_and_seeds_are_independent():
    def order(epoch: int, seed: int) -> np.ndarray:
        return epoch_starts(epoch * 1000, 1000, tokens=8000, context=8, seed=seed)

    first = order(0, 0)
    for other in (order(1, 0), order(2, 0), order(0, 1)):
        assert len({(start - first[0]) % 8 for start in other.tolist()}) == 1  # cut at one place
        assert abs(np.corrcoef(first, other)[0, 1]) < 5 / math.sqrt(1000)
        places = (np.argsort(first)[np.argsort(np.argsort(other))] - np.arange(1000)) % 1000
        assert len(np.unique(places)) > 500  # one order is not the other one, shifted
    assert len({int(order(epoch, 0)[0]) % 8 for epoch in range(40)}) == 8  # at another place each time
    steps = np.diff(np.sort(first)), np.diff(first)
    assert set(steps[0]) == {8}
    assert (steps[1] == 8).mean() < 0.01  # neighbours do not follow each other


def test_ten_thousand_million_windows_need_no_memory():
    tracemalloc.start()
    starts = epoch_starts(6 * 10**9, 4096, tokens=10**13, context=1000, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
    assert len(np.unique(starts)) == 4096
    assert np.histogram(starts, 16, (0, 10**13))[0].min() > 190  # 256 expected, with a deviation of 15


def make(folder: Path, **options) -> Text:
    letters, names = np.random.default_rng(0), {}
    for split in SPLITS:
        path = folder / f"{split}.txt"
        path.write_text("".join(letters.choice(list("abcd efg\n"), 3001)))
        names[f"{split}_files"] = (str(path),)
    return Text(TextConfig(**names, cache=str(folder / "cache"), **options))


def test_batches_are_the_epoch_on_any_number_of_devices(tmp_path: Path):
    task = make(tmp_path, context=10, order="epochs")
    tokens = np.asarray(task.corpus.tokens["train"])
    windows = (len(tokens) - 1) // 10
    rows = []
    for step in range(-(-windows // 16)):
        whole = task.batch("train", step, 16, seed=5)
        parts = [task.batch("train", step, 16, seed=5, part=(rank, 4)) for rank in range(4)]
        assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
        assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
        rows += whole.targets.tolist()
    epoch = Counter(np.concatenate(rows[:windows]).tolist())
    everything = Counter(tokens[1:].tolist())
    assert sum((everything - epoch).values()) == (len(tokens) - 1) % 10  # the tokens that are left over
    assert not epoch - everything
    # The batch is a function of the seed and the step, and random windows are others.
    again = make(tmp_path, context=10, order="epochs")
    assert torch.equal(again.batch("train", 7, 16, seed=5).inputs, task.batch("train", 7, 16, seed=5).inputs)
    assert not torch.equal(task.batch("train", 7, 16, seed=6).inputs, task.batch("train", 7, 16, seed=5).inputs)
    random = make(tmp_path, context=10)
    assert not torch.equal(random.batch("train", 7, 16, seed=5).inputs, task.batch("train", 7, 16, seed=5).inputs)
    others: list[tuple[Split, str | None]] = [("validation", None), ("test", "sliding"), ("train", "published")]
    for split, group in others:  # these are drawn as ever
        mine, other = (each.batch(split, 0, 16, seed=5, group=group) for each in (task, random))
        assert torch.equal(mine.inputs, other.inputs)


def test_a_text_as_short_as_a_window(tmp_path: Path):
    task = make(tmp_path, context=3002, order="epochs")
    tokens = np.asarray(task.corpus.tokens["train"])
    batch = task.batch("train", 2, 3, seed=0)
    assert len({tuple(row) for row in batch.targets.tolist()}) == 3  # the ring begins at another place each time
    assert all(Counter(row) == Counter(tokens[1:].tolist()) for row in batch.targets.tolist())


def test_unknown_order():
    with pytest.raises(ValueError, match="order='shuffled': expected one of random, epochs"):
        from_dict(TextConfig, {"name": "text", "order": "shuffled"})
