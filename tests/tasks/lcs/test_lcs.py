from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looped.tasks.lcs import LCSConfig, LongestCommonSubsequence
from looped.tasks.strings import Pair

words = st.text("abc", min_size=1, max_size=9)


def make(**settings) -> LongestCommonSubsequence:
    return LongestCommonSubsequence(LCSConfig(**settings))


def brute_force(a: str, b: str) -> int:
    @cache
    def length(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return 0
        if a[i - 1] == b[j - 1]:
            return length(i - 1, j - 1) + 1
        return max(length(i - 1, j), length(i, j - 1))

    return length(len(a), len(b))


@given(st.lists(st.tuples(words, words), max_size=20))
@settings(deadline=None, max_examples=50)
def test_answers_equal_brute_force(pairs):
    assert make().answers(pairs).tolist() == [brute_force(a, b) for a, b in pairs]


@pytest.mark.parametrize("version", ["corrected", "published"])
def test_sampled_answers_equal_brute_force(version):
    pairs = make(length=30, version=version).sample("train", 50, np.random.default_rng(0))
    assert len({p.answer for p in pairs}) > 8
    assert [p.answer for p in pairs] == [brute_force(p.first, p.second) for p in pairs]


def labels(**settings) -> np.ndarray:
    return np.array([p.answer for p in make(**settings).sample("train", 2000, np.random.default_rng(0))])


def test_statistics_of_the_public_generators():
    found = labels(version="published")
    assert abs(found.mean() - 50) < 6
    assert abs(found.std() - 22) < 6
    assert found.max() >= 97
    assert labels().mean() > labels(version="published").mean() + 5  # copies of full length survive more edits


def test_inserting_inserts_unless_published():
    edits = [(1, 0.0, "z"), (0, 0.99, "y"), (1, 0.5, "x")]
    assert make()._edited("abcd", edits) == "zaxbc"
    assert make(version="published")._edited("abcd", edits) == "zxc"


def test_pairs_keep_the_rules_of_the_samplers():
    for version in ("corrected", "published"):
        pairs = make(length=8, version=version, max_letters=4).sample("train", 500, np.random.default_rng(0))
        lengths = {(len(p.first), len(p.second)) for p in pairs}
        assert {(5, 8), (8, 5), (8, 10), (10, 8)} <= lengths <= {(i, j) for i in range(5, 11) for j in range(5, 11)}
        assert all(8 in (len(p.first), len(p.second)) and p.first != p.second for p in pairs)
        assert all(len(set(p.first + p.second)) <= 4 for p in pairs)


def test_vocabularies():
    spec = make().spec
    assert (spec.vocab_size, spec.output_size, spec.max_seq_len) == (29, 102, 204)
    spec = make(version="published").spec
    assert (spec.vocab_size, spec.output_size, spec.max_seq_len) == (204, 204, 209)
    assert make(version="published", length=8).spec.vocab_size == 40  # the public formula says 20
    batch = make(version="published").encode([Pair("ab", "zb", 1)])
    assert batch.inputs[0, :8].tolist() == [4, 5, 3, 29, 5, 1, 31, 2]
    assert batch.targets[0, 4:8].tolist() == [0, 31, 2, 0]
    assert batch.mask.sum() == 2


def test_read_keeps_the_order_and_checks_the_answer():
    task = make(length=6)
    pairs, _ = task.read(["sitting kitten", "a b | b a <sep> 1"], "file", "stop")
    assert pairs == [Pair("sitting", "kitten", 4), Pair("ab", "ba", 1)]
    with pytest.raises(ValueError, match="file, line 1: states 2, but the answer of version='corrected' is 1"):
        task.read(["a b | b a <sep> 2"], "file", "stop")
