"""The fifteen problems against oracles that share nothing with their solvers, and the task around them."""

import itertools
import math
import operator
import re
from collections import Counter
from collections.abc import Iterator
from functools import reduce
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import result_or_line

from looped.tasks.chomsky import Chomsky, ChomskyConfig
from looped.tasks.chomsky.config import Problem
from looped.tasks.chomsky.problems import PROBLEMS, expression
from looped.tasks.sequence import Example

NAMES: tuple[Problem, ...] = get_args(Problem)
WORDS = {"cycle_navigation": "012", "bucket_sort": "01234"}  # problems on all words of these letters; else bits
ALL_WORDS = (
    "even_pairs", "parity_check", "cycle_navigation", "reverse_string", "duplicate_string", "odds_first", "bucket_sort",
)  # fmt: skip


def make(problem: Problem, **more) -> Chomsky:
    return Chomsky(ChomskyConfig(problem=problem, **more))


def number(bits: str) -> int:
    """The value of bits with the least significant one first."""
    return sum(1 << k for k, bit in enumerate(bits) if bit == "1")


def stack_by_cancelling(program: str) -> str:
    """A pop cancels the bit before it. Pops that find no bit do nothing."""
    left = program.replace("3", "0").replace("4", "1")
    while (shorter := re.sub("[01]2", "", left)) != left:
        left = shorter
    return left.lstrip("2")[::-1]


def expected(problem: Problem, text: str) -> str:
    """The answer by another way than the solver's."""
    n = len(text)
    match problem:
        case "even_pairs":
            return str((text.count("01") + text.count("10")) % 2)
        case "modular_arithmetic" | "modular_arithmetic_brackets":
            return str(eval(text) % 5)
        case "parity_check":
            return str(reduce(operator.xor, map(int, text)))
        case "cycle_navigation":
            place = 0
            for move in text:
                place = [[4, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0]][place][int(move)]
            return str(place)
        case "stack_manipulation":
            return stack_by_cancelling(text)
        case "reverse_string":
            return "".join(text[n - 1 - k] for k in range(n))
        case "solve_equation":
            if n < 3:
                return "0"
            left, right = text.split("=")
            (answer,) = [d for d in "01234" if eval(left.replace("x", d)) % 5 == int(right)]  # exactly one
            return answer
        case "duplicate_string":
            return "".join(text[k % n] for k in range(2 * n))
        case "missing_duplicate_string":
            at, half = text.find("2"), n // 2
            return "1" if n == 1 else text[at + half if at < half else at - half]
        case "odds_first":
            return "".join(text[k] for k in sorted(range(n), key=lambda k: (1 - k % 2, k)))
        case "binary_addition" | "binary_multiplication":
            if n <= 2:
                return (
                    ("0" if number(text) == 0 else text.rstrip("0")) if problem == "binary_addition" else "0" * (n - 1)
                )
            one, other = map(number, re.split(r"[+*]", text))
            return bin(one + other if problem == "binary_addition" else one * other)[:1:-1]
        case "compute_sqrt":
            k, best = int(text, 2), 0
            while (best + 1) ** 2 <= k:
                best += 1
            return bin(best)[2:].zfill(math.ceil(n / 2))
        case "bucket_sort":
            return "".join(letter * count for letter, count in sorted(Counter(text).items()))


def expressions(length: int, operators: str) -> Iterator[str]:
    """All expressions of the published grammar."""
    if length <= 4:
        before, after = [("", ""), ("-", ""), ("(", ")"), ("(-", ")")][length - 1]
        yield from (before + digit + after for digit in "01234")
    for left in range(1, length - 3):
        both = itertools.product(expressions(left, operators), operators, expressions(length - 3 - left, operators))
        yield from (f"({one}{sign}{other})" for one, sign, other in both)


def everything(problem: Problem, length: int) -> set[str]:
    """All inputs of a length."""
    bits = ["".join(word) for word in itertools.product("01", repeat=length)]
    match problem:
        case "modular_arithmetic":
            return {
                "".join(word)
                for word in itertools.product(*itertools.islice(itertools.cycle(("01234", "+-*")), length))
            }
        case "modular_arithmetic_brackets":
            return set(expressions(length, "+-*"))
        case "stack_manipulation":
            return {
                w for w in map("".join, itertools.product("01234", repeat=length)) if re.fullmatch("[01]+[2-4]*", w)
            } - (set(bits) if length > 1 else set())
        case "solve_equation":
            whole = (
                {f"{left}={eval(left) % 5}" for left in expressions(length - 2, "+-")} if length > 2 else {"0" * length}
            )
            places = itertools.product(whole, range(max(length - 2, 0)))
            return {f"{e[:k]}x{e[k + 1 :]}" for e, k in places if e[k].isdigit()} if length > 2 else whole
        case "missing_duplicate_string":
            if length == 1:
                return {"1"}
            half = length // 2
            words = ["".join(w) for w in itertools.product("01", repeat=half)]
            return {f"{(w + w)[:k]}2{(w + w)[k + 1 :]}{'3' * (length % 2)}" for w in words for k in range(2 * half)}
        case "binary_addition" | "binary_multiplication":
            sign = "+" if problem == "binary_addition" else "*"
            if length <= 2:
                return {b for b in bits if "0" in b}
            cut = [(b[:k], b[k + 1 :]) for b in bits for k in range(1, length - 1)]
            return {f"{one}{sign}{other}" for one, other in cut if "1" in one and "1" in other}
        case "compute_sqrt":
            return {b for b in bits if "1" in b}
        case _:
            return set(map("".join, itertools.product(WORDS.get(problem, "01"), repeat=length)))


@pytest.mark.parametrize("problem", NAMES)
def test_all_short_inputs(problem):
    for length in range(1, 7):
        if problem == "modular_arithmetic" and length % 2 == 0:
            continue
        inputs = everything(problem, length)
        assert inputs
        for text in inputs:
            answer = PROBLEMS[problem].solve(text)
            assert answer == expected(problem, text), text
            assert len(answer) <= PROBLEMS[problem].slots(length)


@pytest.mark.parametrize("problem", NAMES)
def test_draws_are_all_short_inputs_and_no_others(problem):
    rng = np.random.default_rng(0)
    for length in range(1, 6):
        possible = everything(problem, length - (problem == "modular_arithmetic" and length % 2 == 0))
        drawn = Counter(PROBLEMS[problem].draw(length, rng) for _ in range(min(8 * len(possible) + 400, 2000)))
        assert drawn.keys() <= possible
        assert len(drawn) >= min(0.9 * len(possible), 600)


@given(st.sampled_from([*set(NAMES) - {"modular_arithmetic"}]), st.integers(1, 120), st.integers(0, 2**32))
@settings(deadline=None, max_examples=300)
def test_draws_of_all_lengths(problem, length, seed):
    text = PROBLEMS[problem].draw(length, np.random.default_rng(seed))
    assert len(text) == length
    if problem != "compute_sqrt" or length < 20:
        assert PROBLEMS[problem].solve(text) == expected(problem, text)
    else:
        root = int(PROBLEMS[problem].solve(text), 2)
        assert root**2 <= int(text, 2) < (root + 1) ** 2


def test_longest_published_inputs():
    rng = np.random.default_rng(0)
    for problem in NAMES:
        text = PROBLEMS[problem].draw(500, rng)
        assert len(text) == (499 if problem == "modular_arithmetic" else 500)
        assert 1 <= len(PROBLEMS[problem].solve(text)) <= PROBLEMS[problem].slots(500)


def test_hand_made():
    answers = {
        "even_pairs": {"0110": "0", "10": "1", "1": "0"},
        "modular_arithmetic": {"2+3*4": "4", "1-3": "3", "4": "4"},
        "cycle_navigation": {"0": "4", "2222": "4", "102": "0"},
        "stack_manipulation": {"01": "10", "0142": "10", "0222": "", "01422342": "00"},
        "modular_arithmetic_brackets": {"(2*(-3))": "4", "((1-2)--4)": "3", "-1": "4"},
        "solve_equation": {"(x-3)=4": "2", "(-x)=1": "4", "x=3": "3"},
        "missing_duplicate_string": {"0121": "0", "0102": "1", "2111": "1", "203": "0"},
        "odds_first": {"01": "10", "0011": "0101"},
        "binary_addition": {"11+1": "001", "0+0": "0", "01": "01", "1+001": "101"},
        "binary_multiplication": {"11*11": "1001", "01*01": "001", "0": "", "10": "0"},
        "compute_sqrt": {"1111": "11", "10000": "100", "00011": "001"},
    }
    for problem, pairs in answers.items():
        for text, answer in pairs.items():
            assert PROBLEMS[problem].solve(text) == answer, (problem, text)


def test_sizes_are_uniform():
    rng = np.random.default_rng(0)
    stacks = Counter(len(PROBLEMS["stack_manipulation"].draw(9, rng).rstrip("234")) for _ in range(4000))
    assert sorted(stacks) == [*range(1, 9)]
    sums = Counter(PROBLEMS["binary_addition"].draw(10, rng).index("+") for _ in range(4000))
    assert sorted(sums) == [*range(1, 9)]
    lefts = Counter(len(expression(9, rng).split("+")[0]) for _ in range(100))
    assert len(lefts) > 3
    for counts in (stacks, sums):
        assert all(abs(n / 4000 - 1 / 8) < 0.03 for n in counts.values())


@pytest.mark.parametrize("problem", NAMES)
def test_a_training_step_has_one_length(problem):
    task = make(problem, length=9, eval_lengths=(12,))
    seen = set()
    for step in range(60):
        lengths = {len(example.input) for example in task.sample_step(step, 8, task.rng("train", step, 0))}
        assert len(lengths) == 1
        seen |= lengths
    assert {1, 9} <= seen <= {*range(1, 10)}
    assert (problem == "modular_arithmetic") == (8 not in seen)
    batch = task.batch("train", 0, 8, seed=0)
    assert batch.attention_mask.all()
    assert batch.loops is not None


def test_outputs_after_the_end_count_in_the_loss_only():
    task = make("binary_addition", length=8)
    batch = task.encode([Example(tuple("11+01"), tuple("101")), Example(tuple("1+111"), tuple("0001"))])
    assert batch.mask.sum(1).tolist() == [6, 6]
    targets = torch.nn.functional.one_hot(batch.targets, task.spec.output_size).float()
    wrong = targets.clone()
    wrong[:, -1] = torch.tensor([1.0, 0, 0, 0])  # the first has its end two places earlier, the second one place
    assert {k: v.tolist() for k, v in task.score(batch, wrong).items()} == {
        "accuracy": [1, 1],
        "token_accuracy": [1, 1],
    }
    wrong[0, 8] = torch.tensor([1.0, 0, 0, 0])  # the end itself
    scores = task.score(batch, wrong)
    assert scores["accuracy"].tolist() == [0, 1]
    assert scores["token_accuracy"].tolist() == [0.75, 1]


def test_loops():
    cases: list[tuple[Problem, str, int]] = [
        ("parity_check", "0110", 4),
        ("modular_arithmetic", "1+2", 3),
        ("binary_addition", "11+1", 4),
        ("binary_multiplication", "11*101", 6),
        ("compute_sqrt", "11101", 9),
    ]
    for problem, text, loops in cases:
        task = make(problem)
        assert task.loops_for(task.read([text], "a file", "stop")[0][0]) == loops


@pytest.mark.parametrize(
    ("problem", "line", "reason"),
    [
        ("parity_check", "0120", "'2': expected symbols of 0 1"),
        ("parity_check", "0" * 17, "17 symbols; expected at most 16"),
        ("modular_arithmetic", "1++2", r"'1\+\+2': expected an expression of single digits"),
        ("modular_arithmetic", "12", "'12': expected an expression of single digits"),
        ("modular_arithmetic_brackets", "(1+2", r"'\(1\+2': expected an expression of single digits"),
        ("modular_arithmetic_brackets", "(1)(2)", r"'\(1\)\(2\)': expected an expression of single digits"),
        ("cycle_navigation", "013", "'013': expected the moves 0, 1 and 2"),
        ("stack_manipulation", "031", "'031': expected the bits of a stack and then actions 2, 3 and 4"),
        ("solve_equation", "(1+2)=3", r"'\(1\+2\)=3': expected an expression with one x, = and a digit"),
        ("solve_equation", "(x+x)=3", r"'\(x\+x\)=3': expected an expression with one x"),
        ("missing_duplicate_string", "0110", "'0110': expected a word twice, with 2 in the place of one bit"),
        ("missing_duplicate_string", "0011020011", "'0011020011': expected a word twice; its halves differ"),
        ("missing_duplicate_string", "012", "'012': expected a word twice"),
        ("binary_addition", "0110", r"'0110': expected two binary numbers with \+ between them"),
        ("binary_multiplication", "01*", r"'01\*': expected two binary numbers with \* between them"),
    ],
)
def test_bad_lines(problem, line, reason):
    with pytest.raises(ValueError, match=f"^a file, line 1: {reason}"):
        make(problem).read([line], "a file", "stop")


@given(st.sampled_from(NAMES), st.data())
@settings(deadline=None, max_examples=300)
def test_any_line_gives_an_answer_or_one_clear_line(problem, data):
    line = data.draw(st.text(alphabet=PROBLEMS[problem].symbols + " 9", max_size=16))
    result_or_line(make(problem).read, [line], "in", "stop")
