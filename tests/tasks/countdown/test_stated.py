"""Solutions that a file states: accepted if and only if they are right."""

import itertools
import json
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import result_or_line

from looped.tasks.countdown import Countdown, CountdownConfig
from looped.tasks.countdown.stated import LONGEST, check_solution

TASK = Countdown(CountdownConfig())
NUMBERS, TARGET = (34, 19, 42, 7), 28
RIGHT = [
    ["34+42=76", "76/19=4", "7*4=28"],
    ["34 + 42 = 76", "76 / 19 = 4", "7 * 4 = 28"],
    ["34+42", "76/19", "7*4"],
    "34+42=76, 76/19=4, 7*4=28",
    "34+42=76; 76/19=4; 7*4=28",
    "34+42=76\n76/19=4\n7*4=28",
    "(34+42)/19*7",
    "(34 + 42) ÷ 19 × 7 = 28",
    "7 x ((42+34) / 19)",
    "(42+34):19·7",
    "(((7)))*(34+42)/(19)",
    ["34+42=76", "76/19*7=28"],
]
WRONG = [
    ("(34+42)/19*7=29", "is 28, not '29'"),
    ("34+42+19+7", "it leaves 102"),
    ("(34+42)/19", "it leaves 7, 4"),
    (["7*4=28", "34+42=76", "76/19=4"], "'4' is not (or no longer) among the numbers"),
    ("(34+42)/19*7*7", "'7' is not (or no longer)"),
    ("7/19*(34+42)", "7/19 is no whole number"),
    ("(19-34)*0", "19-34 is below zero"),
    ("34/(7-7)", "'7' is not"),
    ("34+42)/19*7", "cannot read ')'"),
    ("(34+42", "no complete expression"),
    ("34+", "no complete expression"),
    ("", "no complete expression"),
    ([], "it leaves 34, 19, 42, 7"),
    ("-34+42", "cannot read '-'"),
    ("34 42", "cannot read '42'"),
    ("34**2", "cannot read '*'"),
    ("34//19", "cannot read '/'"),
    ("٣٤+42", "cannot read '٣'"),
    ("__import__('os').getcwd()", "cannot read '_'"),
    ("9" * 400, "is not (or no longer) among the numbers"),
    ("(" * 400, "no complete expression"),
    ("(" * (LONGEST + 1), f"at most {LONGEST} characters"),
    (28, "expected a text or a list of texts"),
    ([["34+42=76"]], "expected a text or a list of texts"),
]


@pytest.mark.parametrize("stated", RIGHT, ids=repr)
def test_right_solutions_are_accepted(stated):
    check_solution(NUMBERS, TARGET, stated)
    row = json.dumps({"nums": NUMBERS, "target": TARGET, "solution": stated})
    assert TASK.read([row], "file", "stop")[0][0].numbers == NUMBERS


@pytest.mark.parametrize(("stated", "reason"), WRONG, ids=[repr(stated)[:30] for stated, _ in WRONG])
def test_wrong_solutions_say_why(stated, reason):
    with pytest.raises(ValueError, match=r"^[^\n]{1,400}$") as error:
        check_solution(NUMBERS, TARGET, stated)
    assert reason in str(error.value)


@given(st.integers(0, 10**9))
@settings(deadline=None, max_examples=200)
def test_expressions_have_the_value_of_exact_arithmetic(seed):
    """Random trees over all numbers, with Python's own arithmetic of fractions as the reference."""
    rng = random.Random(seed)
    numbers = [rng.randint(1, 20) for _ in range(rng.randint(2, 6))]
    parts = [(str(n), Fraction(n), True) for n in numbers]
    while len(parts) > 1:
        (x, a, fine), (y, b, also) = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        sign = rng.choice("+-*/" if b else "+-*")
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / (b or 1)}[sign]
        parts.append((f"({x} {sign} {y})", value, fine and also and value >= 0 and value.denominator == 1))
    text, value, allowed = parts[0]
    for target in {int(value), int(value) + 1, 1}:
        if allowed and target == value:
            check_solution(numbers, target, text)
            check_solution(numbers, target, text[1:-1])
        else:
            with pytest.raises(ValueError, match=r"^[^\n]+$"):
                check_solution(numbers, target, text)


def test_precedence_equals_pythons():
    for signs in itertools.product("+-*", repeat=3):
        text = "20{}3{}2{}4".format(*signs)
        value = eval(text)
        steps = (20, 3, 2, 4)
        if "-" not in signs or (signs.count("-") == 1 and signs[0] == "-" and value >= 0):
            check_solution(steps, value, text)


@given(st.text(alphabet="0123456789+-*/()= x×÷,;.eE\n٣", max_size=60))
@settings(deadline=None, max_examples=500)
def test_any_text_is_right_or_one_clear_line(text):
    result_or_line(check_solution, NUMBERS, TARGET, text)


ROWS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("HUGE")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.sampled_from(["nums", "target", "solution", "x"]), inner)
    ),
    max_leaves=12,
)


@given(st.one_of(ROWS, st.fixed_dictionaries({"nums": ROWS, "target": ROWS, "solution": ROWS})), st.booleans())
@settings(deadline=None, max_examples=300)
def test_any_json_gives_problems_or_one_clear_line(row, in_a_list):
    text = json.dumps([row] if in_a_list else row).replace('"HUGE"', "7" * 5000)
    for edited in (text, text[:-1], text.replace(" ", "", 1)):
        result_or_line(TASK.read, edited.split("\n"), "file", "stop")
        result_or_line(TASK.read, edited.split("\n"), "file", "skip")


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=200)
def test_any_line_gives_problems_or_one_clear_line(text):
    result_or_line(TASK.read, text.split("\n"), "file", "stop")
