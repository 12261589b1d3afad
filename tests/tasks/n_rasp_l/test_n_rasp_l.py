"""The problems of Fan et al. (2024), compared with algorithms that work digit by digit."""

import itertools
from functools import reduce
from operator import xor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import result_or_line

from looped.tasks.n_rasp_l import NRaspL, NRaspLConfig
from looped.tasks.n_rasp_l.config import PROBLEMS
from looped.tasks.sequence import Example

TASKS = {problem: NRaspL(NRaspLConfig(problem=problem, length=6, eval_lengths=(9,))) for problem in PROBLEMS}


def added(a: str, b: str) -> str:
    """The sum of two numbers that begin with their least significant bits: one bit more than the longer one."""
    digits, carry = "", 0
    for x, y in itertools.zip_longest(a, b, fillvalue="0"):
        ones = (x == "1") + (y == "1") + carry
        digits, carry = digits + "01"[ones % 2], ones // 2
    return digits + str(carry)


def oracle(problem: str, text: str) -> str:
    """The answer, digit by digit."""
    if problem == "parity":
        return str(reduce(xor, map(int, text)))
    if problem == "copy":
        return text
    if problem == "sum":
        return reduce(added, text, "").rstrip("0")
    if problem == "unique_set":
        words = text.split()
        return " ".join(word for at, word in enumerate(words) if word not in words[:at])
    a, b = (number[::-1] for number in text.replace("*", "+").split("+"))
    if problem == "addition":
        return added(a, b)[::-1]
    rows = ["0" * at + b for at, bit in enumerate(a) if bit == "1"]
    return reduce(added, rows, "").ljust(len(a) + len(b), "0")[: len(a) + len(b)]


def solved(problem: str, text: str) -> Example:
    return TASKS[problem].read([text], "a file", "stop")[0][0]


def bits(most: int) -> list[str]:
    return ["".join(word) for n in range(1, most + 1) for word in itertools.product("01", repeat=n)]


ALL = {
    "parity": bits(8),
    "copy": bits(8),
    "sum": bits(8),
    "addition": [f"{a}+{b}" for a in bits(4) for b in bits(4) if len(a) == len(b)],
    "multiplication": [f"{a}*{b}" for a in bits(2) for b in bits(5)],
    "unique_set": [" ".join(word) for n in range(1, 5) for word in itertools.product(("3", "33", "49"), repeat=n)],
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_answers_to_all_small_inputs(problem):
    task = NRaspL(NRaspLConfig(problem=problem, length=8))
    examples, _ = task.read(ALL[problem], "a file", "stop")
    for text, example in zip(ALL[problem], examples, strict=True):
        assert task.joint.join(example.output) == oracle(problem, text), text


def test_answers_by_hand():
    assert solved("sum", "000").output == ()
    assert solved("sum", "0110").output == ("0", "1")  # least significant bit first
    assert "".join(solved("addition", "011+110").output) == "1001"  # most significant bit first
    assert "".join(solved("multiplication", "11*101").output) == "11110"  # 15, least significant bit first
    assert solved("unique_set", "7 49 7 3 49").output == ("7", "49", "3")


@given(st.sampled_from(PROBLEMS), st.integers(1, 150), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_answers_to_long_inputs(problem, length, seed):
    task = NRaspL(NRaspLConfig(problem=problem, length=length))
    (example,) = task.sample("train", 1, np.random.default_rng(seed))
    assert task.joint.join(example.output) == oracle(problem, task.joint.join(example.input))


LENGTHS = {
    # at length 6: symbols of the input, of the answer, loops, and the published length of the row
    "parity": (6, 1, 6, 6 + 2),
    "copy": (6, 6, 6, 2 * (6 + 2)),
    "addition": (13, 7, 6, 3 * (6 + 2)),
    "sum": (6, None, 6, 6 + 9),
    "multiplication": (9, 8, 12, 4 * (6 + 2)),
    "unique_set": (6, None, 6, 2 * (6 + 2)),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_rows_as_published(problem):
    """Query, `=`, then ends of sequence. The answer begins at the last token of the query, and its tail is scored."""
    task = TASKS[problem]
    size, answer, loops, width = LENGTHS[problem]
    examples = task.sample("test", 20, np.random.default_rng(0), "6")
    batch = task.with_loops(task.encode(examples), examples)
    assert batch.inputs.shape == (20, width)
    assert batch.attention_mask.all()
    assert batch.loops is not None
    assert batch.loops.tolist() == [loops] * 20
    end, equals = len(task.vocabulary), 1
    for row, example in enumerate(examples):
        assert len(example.input) == size
        assert answer in (None, len(example.output))
        query = [2 + task.vocabulary.index(symbol) for symbol in example.input]
        assert batch.inputs[row].tolist() == [*query, equals, *[0] * (width - size - 1)]
        target = [task.vocabulary.index(symbol) for symbol in example.output]
        assert batch.targets[row, size:].tolist() == [*target, *[end] * (width - size - len(target))]
        assert batch.mask[row].tolist() == [False] * size + [True] * (width - size)
    assert task.spec.causal
    longest = task.encode(task.sample("test", 1, np.random.default_rng(0), "9"))
    assert longest.inputs.shape[1] == task.spec.max_seq_len > width == task.trained_seq_len


def test_a_wrong_end_is_a_wrong_answer():
    task = TASKS["copy"]
    batch = task.encode([solved("copy", "01"), solved("copy", "0110")])
    logits = torch.nn.functional.one_hot(batch.targets, 3).float()
    assert task.score(batch, logits)["accuracy"].tolist() == [1, 1]
    logits[0, -1] = torch.tensor([1.0, 0, 0])  # the last end in the tail of the shorter problem
    assert task.score(batch, logits)["accuracy"].tolist() == [0, 1]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_problems_grow(problem):
    task = NRaspL(NRaspLConfig(problem=problem, length=8, start_length=1, length_every=10))
    longest = []
    for step in (0, 9, 10, 35, 1000):
        examples = task.sample_step(step, 200, np.random.default_rng(step))
        loops = np.array([task.loops_for(example) for example in examples])
        longest.append(int(loops.max()))
        assert set(loops.tolist()) >= set(range(1, 1 + min(8, 1 + step // 10)))
    assert longest == ([2, 2, 4, 8, 16] if problem == "multiplication" else [1, 1, 2, 4, 8])


def test_the_first_factor_has_one_or_two_bits_and_two_in_evaluation():
    task = TASKS["multiplication"]
    lengths = [len("".join(e.input).partition("*")[0]) for e in task.sample("train", 400, np.random.default_rng(0))]
    assert set(lengths) == {1, 2}
    assert 150 < lengths.count(1) < 250
    evaluated = task.sample("test", 50, np.random.default_rng(0), "6")
    assert {"".join(e.input).partition("*")[0] for e in evaluated} == {"00", "01", "10", "11"}


def test_symbols_of_unique_set_are_uniform():
    drawn = TASKS["unique_set"].sample("train", 2000, np.random.default_rng(0), "9")
    counts = np.bincount([int(symbol) for example in drawn for symbol in example.input], minlength=50)
    assert counts.min() > 280
    assert counts.max() < 440  # 360 are expected


@pytest.mark.parametrize(
    ("problem", "line", "message"),
    [
        ("parity", "012x", "'2': expected symbols of 0 1"),
        ("parity", "0" * 10, "10 symbols; expected at most 9, as in the longest group"),
        ("unique_set", "1 2 50", "'50': expected symbols of 0 1 2"),
        ("addition", "01+1", r"'01\+1': expected two numbers with \+ between them, of equal length"),
        ("addition", "0110", r"'0110': expected two numbers with \+ between them, of equal length"),
        ("addition", "+", r"'\+': expected two numbers"),
        ("addition", "1+1+1", "expected two numbers"),
        ("multiplication", "101*1", r"expected two numbers with \* between them, of 1 or 2 bits and of any length"),
        ("multiplication", "10*", "expected two numbers"),
    ],
)
def test_bad_lines(problem, line, message):
    with pytest.raises(ValueError, match=f"a file, line 2: .*{message}"):
        TASKS[problem].read([ALL[problem][0], line], "a file", "stop")
    assert TASKS[problem].read([ALL[problem][0], line], "a file", "skip")[1] == 1


@given(st.sampled_from(PROBLEMS), st.text(alphabet="012 5*+=x\t", max_size=12))
@settings(deadline=None, max_examples=200)
def test_any_line_gives_a_problem_or_one_clear_line(problem, line):
    result_or_line(TASKS[problem].read, [line], "a file", "stop")
