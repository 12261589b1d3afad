import json
import lzma
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from looped.tasks import strings
from looped.tasks.edit_distance import EditDistance, EditDistanceConfig
from looped.tasks.edit_distance.task import edit_distance, published_distance
from looped.tasks.strings import Pair

FILE = Path(__file__).resolve().parents[3] / "shared/data/strings/edit_distance_published_2000.txt.xz"
words = st.text("abc", min_size=1, max_size=9)


def make(**settings) -> EditDistance:
    return EditDistance(EditDistanceConfig(**settings))


def brute_force(a: str, b: str, border: int) -> int:
    @cache
    def cost(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return border * (i + j)
        substituted = cost(i - 1, j - 1) + (0 if a[i - 1] == b[j - 1] else 3)
        return min(cost(i - 1, j) + 2, cost(i, j - 1) + 2, substituted)

    return cost(len(a), len(b))


@given(st.lists(st.tuples(words, words), min_size=1, max_size=20))
@settings(deadline=None, max_examples=50)
def test_both_borders_equal_brute_force(pairs):
    for border in (1, 2):
        assert published_distance(pairs, border).tolist() == [brute_force(a, b, border) for a, b in pairs]
    assert edit_distance(pairs).tolist() == [brute_force(a, b, 2) for a, b in pairs]


@pytest.mark.parametrize(("length", "count", "labels"), [(6, 4000, 12), (60, 1000, 50), (100, 200, 50)])
def test_rapidfuzz_and_the_published_algorithm_agree_but_for_the_border(length, count, labels):
    pairs = make(length=length).draw_pairs(length, count, np.random.default_rng(0))
    found = edit_distance(pairs)
    assert found.dtype == np.int64
    assert len(set(found.tolist())) > labels
    assert published_distance(pairs, border=2).tolist() == found.tolist()
    assert (published_distance(pairs) != found).mean() > 0.1


def test_no_pairs():
    assert edit_distance([]).shape == published_distance([]).shape == (0,)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    if not FILE.exists():
        pytest.skip(f"{FILE.name} is not at hand")
    with lzma.open(FILE, "rt") as file:
        return file.read().splitlines()


def test_the_published_file_has_the_published_border(lines):
    pairs, skipped = make(length=20, version="published").read(lines, FILE.name, "stop")
    assert (len(pairs), skipped) == (2000, 0)
    pairs, skipped = make(length=20).read(lines, FILE.name, "skip")
    assert len(pairs) + skipped == 2000
    assert 0.41 < len(pairs) / 2000 < 0.46
    with pytest.raises(ValueError, match=r"xz, line \d+: states \d+, but the answer of version='corrected' is \d+"):
        make(length=20).read(lines, FILE.name, "stop")


def test_the_sampler_has_the_distribution_of_the_published_file(lines):
    task = make(length=20, version="published", max_letters=10)
    ours = task.sample("train", 4000, np.random.default_rng(0))
    theirs, _ = task.read(lines, FILE.name, "stop")
    for measure in (
        lambda pair: pair.answer,
        lambda pair: len(pair.first),
        lambda pair: len(pair.second),
        lambda pair: len(set(pair.first)),
    ):
        a, b = np.array([measure(p) for p in ours]), np.array([measure(p) for p in theirs])
        assert abs(a.mean() - b.mean()) < 4 * b.std() * (1 / 2000 + 1 / 4000) ** 0.5
        assert abs(a.std() - b.std()) < 0.1 * b.std()


def test_statistics_of_the_long_task():
    labels = np.array([p.answer for p in make(version="published").sample("train", 2500, np.random.default_rng(0))])
    assert abs(labels.mean() - 84) < 8
    assert abs(labels.std() - 45) < 5
    assert len(set(labels.tolist())) > 120


def test_pairs_keep_the_rules_of_the_sampler():
    task = make(length=6, eval_lengths=(12,), min_letters=2, max_letters=3)
    assert task.groups == ("6", "12")
    for group, n in ((None, 6), ("12", 12)):
        pairs = task.sample("train", 500, np.random.default_rng(0), group)
        lengths = {(len(p.first), len(p.second)) for p in pairs}
        assert lengths == {(n - 3, n), (n - 2, n), (n - 1, n), (n, n), (n, n + 1), (n, n + 2)}
        assert all(p.first != p.second and len(set(p.first + p.second)) <= 3 for p in pairs)
        assert [p.answer for p in pairs] == [Levenshtein.distance(p[0], p[1], weights=(2, 2, 3)) for p in pairs]
    with pytest.raises(ValueError, match="group='7': expected one of 6, 12"):
        task.sample("train", 1, np.random.default_rng(0), "7")


def test_published_vocabulary_never_overflows():
    corrected = make(length=4).sample("train", 4000, np.random.default_rng(0))
    published = make(length=4, version="published").sample("train", 4000, np.random.default_rng(0))
    assert max(p.answer or 0 for p in corrected) >= 12
    assert max(p.answer or 0 for p in published) == 11


def test_a_split_without_pairs_is_an_error(monkeypatch):
    monkeypatch.setattr(strings, "split_of", lambda key: "train")
    with pytest.raises(ValueError, match="length=6, min_letters=3, max_letters=26: found no pair"):
        make(length=6).sample("test", 1, np.random.default_rng(0))


def test_corrected_encoding():
    task = make(length=4)
    inputs, at = [3, 4, 2, 3, 28, 28, 1, 0, 0, 0, 0, 0], 6
    batch = task.encode([Pair("ab", "azz", 5), Pair("ab", "azz")])
    assert batch.inputs.tolist() == [inputs, inputs]  # the answer is no input
    assert batch.mask.sum(1).tolist() == [1, 1]
    assert batch.targets[0, at] == 5
    assert batch.mask[:, at].all()
    assert batch.targets.sum() == 5
    assert torch.equal(batch.attention_mask, batch.inputs != 0)
    assert (task.spec.vocab_size, task.spec.output_size) == (29, 17)


def test_published_encoding():
    task = make(length=60, version="published")
    assert (task.spec.vocab_size, task.spec.output_size, task.spec.max_seq_len) == (211, 211, 126)
    batch = task.encode([Pair("ab", "azz", 5), Pair("ab", "azz")])
    row = [5, 6, 3, 5, 30, 30, 1, 36, 2]
    assert batch.inputs[0].tolist() == row + [0] * 117
    assert batch.targets[0].tolist() == [0] * 6 + [36, 2] + [0] * 118
    assert batch.mask.nonzero().tolist() == [[0, 6], [0, 7], [1, 6]]
    assert batch.inputs[1].tolist() == [*row[:7], *[0] * 119]
    assert batch.targets[1].sum() == 0

    logits = torch.nn.functional.one_hot(batch.targets, 211).float()
    logits[0, 7] = 0  # the end token is wrong
    scores = task.score(batch, logits)
    assert scores["accuracy"][0] == 1
    assert scores["published_accuracy"][0] == 0
    logits[0, 6, 5] = 9.0  # a letter is no answer
    assert task.score(batch, logits)["accuracy"][0] == 0
    assert task.answer(Pair("ab", "azz"), logits[0])["answer"] == 5


def test_batches_are_as_wide_as_their_length():
    task = make(length=6, eval_lengths=(12,))
    assert task.batch("train", 0, 8, seed=0).inputs.shape == (8, 16)
    assert task.batch("train", 0, 8, seed=0, group="12").inputs.shape == (8, 28)
    with pytest.raises(ValueError, match="a pair needs 42 positions; this task has 28"):
        task.encode([Pair("a" * 20, "b" * 20)])


def test_answer_and_visualisation():
    task = make(length=6)
    pair = Pair("kitten", "sitting", 8)
    logits = torch.zeros(2, 15, task.spec.output_size)
    logits[0, 14, 3], logits[1, 14, 8] = 4.0, 9.0
    said = task.answer(pair, logits[1])
    assert (said["answer"], said["valid"]) == (8, None)
    assert 0.99 < said["confidence"] < 1
    assert "kitten | sitting" in task.describe(pair)
    assert "prediction: 8 (100%)" in task.describe(pair, logits[1])
    visualisation = json.loads(json.dumps(task.visualise(pair, logits)))
    assert (visualisation["kind"], visualisation["answer"], len(visualisation["loops"])) == ("distribution", "8", 2)
    labels = [[label for label, _ in loop["probabilities"]] for loop in visualisation["loops"]]
    assert labels[0] == labels[1] == sorted(labels[0], key=int)
    assert {"3", "8"} < set(labels[0])
    assert len(labels[0]) == 12


@pytest.mark.parametrize(
    "line",
    ["kitten sitting", "kitten,sitting", "kitten, sitting", " kitten\tsitting ", "k i t t e n | s i t t i n g",
     "sitting|kitten", "kitten | sitting <sep> 8", "kitten sitting <sep>"],
)  # fmt: skip
def test_read(line):
    pairs, skipped = make(length=6).read(["", line, "ab,cd"], "file", "stop")
    assert pairs == [Pair("kitten", "sitting", 8), Pair("ab", "cd", 6)]
    assert skipped == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("kitten", "expected two strings, not 1"),
        ("a b c", "expected two strings, not 3"),
        ("a | b | c", "expected two strings, not 3"),
        ("Kitten sitting", "'Kitten': expected one or more of the letters a-z"),
        ("a | <sep> 3", "'': expected one or more"),
        ("naïve naive", "'naïve': expected"),
        ("a | b <sep> x", "the answer 'x' is no number"),
        ("a | b <sep> 4", "states 4, but the answer of version='corrected' is 3"),
        ("abcdefghi a", "strings of 9 and 1 letters; the longest length 6 allows 8 letters in a string and 14"),
        ("abcdefgh abcdefgh", "strings of 8 and 8 letters"),
    ],
)
def test_bad_rows(line, reason):
    task = make(length=6)
    with pytest.raises(ValueError, match=r"^file, line 2: ") as error:
        task.read(["ab cd", line, "also bad !"], "file", "stop")
    assert reason in str(error.value)
    assert task.read(["ab cd", line], "file", "skip") == ([Pair("ab", "cd", 6)], 1)
    with pytest.raises(ValueError, match=r"file: no pair of strings in it \(1 bad rows\)"):
        task.read([line], "file", "skip")


def test_nothing_to_read():
    with pytest.raises(ValueError, match="file: no pair of strings"):
        make().read(["", "  "], "file", "stop")
    with pytest.raises(ValueError, match="line 1: the answer 12 does not fit the vocabulary of version='published'"):
        make(length=4, version="published").read(["aaaa bbbb"], "file", "stop")
