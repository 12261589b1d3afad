"""Files of pairs of strings: any line is a pair with its answer, or one clear line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import result_or_line

from looped.tasks.edit_distance import EditDistance, EditDistanceConfig
from looped.tasks.lcs import LCSConfig, LongestCommonSubsequence

TASKS = [
    EditDistance(EditDistanceConfig(length=8)),
    EditDistance(EditDistanceConfig(length=8, version="published")),
    LongestCommonSubsequence(LCSConfig(length=8)),
    LongestCommonSubsequence(LCSConfig(length=8, version="published")),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}, {task.version}")
@given(
    st.lists(
        st.sampled_from(["a", "bc", " ", ",", "\t", "|", "<sep>", "4", "é", "٣", "\x1b", "A", "\n", "kitten"]),
        max_size=14,
    )
)
@settings(deadline=None, max_examples=200)
def test_any_text_gives_pairs_or_one_clear_line(task, pieces):
    lines = "".join(pieces).split("\n")
    result_or_line(task.read, lines, "in", "stop")
    found = result_or_line(task.read, lines, "in", "skip")
    if not isinstance(found, str):
        assert task.encode(found[0]).mask.any(1).all()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}, {task.version}")
@pytest.mark.parametrize("line", ["a b <sep> " + "9" * 5000, "a" * 10**6 + " b", "a|" * 10**5, " " * 10**5 + "a"])
def test_long_lines(task, line):
    assert isinstance(result_or_line(task.read, [line], "in", "stop"), str)
