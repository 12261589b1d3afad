import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looped.tasks.p_hop import PHop, PHopConfig
from looped.tasks.p_hop.task import hop


def make(hops: int = 2, length: int = 24, **more) -> PHop:
    return PHop(PHopConfig(hops=hops, length=length, **more))


def find(word: str, i: int, p: int) -> int:
    """The published definition, positions from 1: find_1(v, i) = max {j <= i : v_{j-1} = v_i}, or 0 if empty."""
    if p == 0:
        return i
    before = find(word, i, p - 1)
    return max((j for j in range(2, before + 1) if word[j - 2] == word[before - 1]), default=0) if before else 0


@given(st.text("abc", min_size=1, max_size=20), st.integers(1, 6))
@settings(deadline=None, max_examples=200)
def test_hops_equal_the_definition_also_with_repeats(word, hops):
    numbers = np.array([[ord(letter) - ord("a") for letter in word]])
    expected = [max(0, find(word, i, hops) - 1) for i in range(1, len(word) + 1)]
    assert hop(numbers, hops)[0].tolist() == expected


@pytest.mark.parametrize(("hops", "length", "letters"), [(1, 8, 3), (2, 24, 4), (4, 64, 4), (3, 20, 26)])
@pytest.mark.parametrize("loss", ["last", "dense"])
def test_targets_equal_the_definition(hops, length, letters, loss):
    task = make(hops, length, letters=letters, loss=loss)
    words = task.sample("train", 60, np.random.default_rng(0))
    batch = task.encode(words)
    for word, targets, mask in zip(words, batch.targets.tolist(), batch.mask.tolist(), strict=True):
        for i in range(1, length + 1):
            j = find(word, i, hops)
            assert mask[i - 1] == (j > 0 and (loss == "dense" or i == length))
            if j:
                assert task.word(targets[i - 1]) == word[j - 1]
        assert mask[-1]
        assert all(a != b for a, b in itertools.pairwise(word))


def test_letters_are_uniform_and_most_words_have_an_answer():
    words = make().sample("train", 3000, np.random.default_rng(0))
    for place in (0, 1, 12, 23):
        counts = Counter(word[place] for word in words)
        assert sorted(counts) == list("abcd")
        assert all(abs(n / 3000 - 1 / 4) < 0.04 for n in counts.values())
    drawn = np.random.default_rng(1).integers(1, 4, (5000, 24)).cumsum(1) % 4
    assert (hop(drawn, 2)[:, -1] > 0).mean() > 0.998


@pytest.mark.parametrize("version", ["corrected", "repeats"])
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_the_majority_baseline_equals_a_count_over_all_words(version, hops):
    answers: dict[str, Counter] = {letter: Counter() for letter in "abc"}
    for word in map("".join, itertools.product("abc", repeat=8)):
        at = find(word, 8, hops)
        if at and (version == "repeats" or all(a != b for a, b in itertools.pairwise(word))):
            answers[word[-1]][word[at - 1]] += 1
    best = sum(max(counts.values()) for counts in answers.values())
    task = make(hops, 8, letters=3, version=version)
    assert task.majority_baseline == pytest.approx(best / sum(c.total() for c in answers.values()), abs=0.04)
    assert task.reported("accuracy", 0.75, "test") == {"accuracy": 0.75, "majority_baseline": task.majority_baseline}


def test_repeats_are_drawn_on_request():
    words = make(version="repeats").sample("train", 2000, np.random.default_rng(0))
    assert np.mean([word[-1] == word[-2] for word in words]) == pytest.approx(1 / 4, abs=0.04)
    assert all(find(word, 24, 2) for word in words)


def test_reading():
    task = make(1, 8)
    assert task.read(["a b c a d b c a", "", "aabbccdd"], "words", "stop") == (["abcadbca", "aabbccdd"], 0)
    assert [task.to_text(word)["expected"] for word in ("abcadbca", "aabbccdd")] == ["d", "d"]
    for line, reason in [
        ("abcadbcz", "'abcadbcz': expected the letters a-d"),
        ("abc", "3 letters; expected 8, the task's length"),
        ("abcabcbd", "'abcabcbd': has no answer, because a hop finds no earlier occurrence of its letter"),
    ]:
        with pytest.raises(ValueError, match=f"words, line 2: {reason}"):
            task.read(["abcadbca", line], "words", "stop")
        assert task.read(["abcadbca", line], "words", "skip") == (["abcadbca"], 1)
    with pytest.raises(ValueError, match="words: no word of the task p_hop in it"):
        task.read([""], "words", "stop")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"letters": 2}, "letters=2: expected 3 to 26"),
        ({"length": 3}, "length=3: expected 4 to"),
        ({"hops": 23}, "hops=23: expected 1 to 22, the length minus 2"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_words_that_hardly_exist_are_given_up():
    with pytest.raises(ValueError, match=r"hops=22, length=24, letters=4: found no word .* expected fewer hops"):
        make(22).sample("test", 1, np.random.default_rng(0))
