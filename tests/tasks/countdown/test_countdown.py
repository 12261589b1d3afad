import itertools
import json
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from looped.tasks.countdown import Countdown, CountdownConfig
from looped.tasks.countdown.solver import Step, canonical_solutions, obeys_rules
from looped.tasks.countdown.task import Problem

FILE = Path(__file__).resolve().parents[3] / "shared/data/countdown/countdown4_3000.json.xz"
PROBLEM = Problem((34, 19, 42, 7), 28, (Step(34, "+", 42, 76), Step(76, "/", 19, 4), Step(7, "*", 4, 28)))
TOKENS = [39, 1, 47, 5, 81, 81, 4, 24, 5, 9, 12, 3, 9, 5, 33]


def make(**settings) -> Countdown:
    return Countdown(CountdownConfig(**settings))


def search(numbers: list[int], target: int) -> list[str] | None:
    """The depth-first search, as plainly as it can be said."""
    if len(numbers) == 1:
        return [] if numbers[0] == target else None
    for i, j in itertools.combinations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        large, small = max(a, b), min(a, b)
        options = [(f"{a}+{b}", a + b), (f"{a}*{b}", a * b), (f"{large}-{small}", large - small)]
        if small > 0 and large % small == 0:
            options.append((f"{large}/{small}", large // small))
        rest = [x for k, x in enumerate(numbers) if k not in (i, j)]
        for text, result in options:
            steps = search([*rest, result], target)
            if steps is not None:
                return [f"{text}={result}", *steps]
    return None


def texts(solution: tuple[Step, ...] | None) -> list[str] | None:
    return None if solution is None else [str(step) for step in solution]


@given(st.integers(2, 4), st.integers(2, 30), st.data())
@settings(deadline=None, max_examples=60)
def test_solutions_equal_the_plain_search(count, largest, data):
    numbers = data.draw(st.lists(st.lists(st.integers(1, largest), min_size=count, max_size=count), min_size=1))
    targets = data.draw(st.lists(st.integers(1, 100), min_size=len(numbers), max_size=len(numbers)))
    found = [texts(solution) for solution in canonical_solutions(np.array(numbers), np.array(targets))]
    assert found == [search(row, target) for row, target in zip(numbers, targets, strict=True)]


def test_five_and_six_numbers_equal_the_plain_search():
    rng = np.random.default_rng(0)
    numbers, targets = rng.integers(1, 12, (12, 5)), rng.integers(80, 200, 12)
    expected = [search(row, target) for row, target in zip(numbers.tolist(), targets.tolist(), strict=True)]
    assert any(expected)
    assert not all(expected)
    assert [texts(solution) for solution in canonical_solutions(numbers, targets)] == expected
    numbers, targets = rng.integers(1, 99, (2, 6)), np.array([50, 60])
    expected = [search(row, target) for row, target in zip(numbers.tolist(), targets.tolist(), strict=True)]
    assert all(expected)
    assert [texts(solution) for solution in canonical_solutions(numbers, targets)] == expected


@pytest.mark.skipif(not FILE.exists(), reason=f"{FILE.name} is not at hand")
def test_the_public_generator_agrees():
    with lzma.open(FILE, "rt") as file:
        text = file.read()
    task = make()
    problems, skipped = task.read(text.splitlines(), FILE.name, "stop")
    rows = json.loads(text)
    assert (len(problems), skipped) == (3000, 0)
    assert [texts(p.steps) for p in problems] == [row["solution"] for row in rows]
    # It was made from the training targets of seed 4.
    assert {p.target for p in problems} == set(task.targets["seen"])
    assert (task.encode(problems).targets < task.spec.output_size).all()


def test_targets_are_held_out_and_splits_disjoint():
    task = make()
    assert (len(task.targets["held_out"]), len(task.targets["seen"])) == (9, 82)
    drawn = {
        (split, group): task.sample(split, 60, np.random.default_rng(0), group)
        for split in ("validation", "test")
        for group in (None, "seen", "held_out")
    }
    drawn["train", None] = task.sample("train", 300, np.random.default_rng(0))
    for (_, group), problems in drawn.items():
        targets = {p.target for p in problems}
        assert len(targets) > 5
        assert targets <= set(task.targets[group or "seen"])
    contents = {k: {(*sorted(p.numbers), p.target) for p in problems} for k, problems in drawn.items()}
    for one, other in itertools.combinations(contents, 2):
        assert one[0] == other[0] or not contents[one] & contents[other]
    with pytest.raises(ValueError, match="group='held_out': expected 'seen' in the train split"):
        task.sample("train", 1, np.random.default_rng(0), "held_out")
    with pytest.raises(ValueError, match="group='x': expected one of seen, held_out"):
        task.sample("test", 1, np.random.default_rng(0), "x")


def test_samples_are_uniform_in_the_target_and_canonical():
    problems = make().sample("train", 1000, np.random.default_rng(0))
    counts = Counter(p.target for p in problems)
    assert len(counts) == 82
    assert max(counts.values()) < 30  # 12 on average
    for problem in problems[:20]:
        assert texts(problem.steps) == search(list(problem.numbers), problem.target)


@pytest.mark.parametrize("settings", [{}, {"numbers": 3, "max_number": 9}, {"numbers": 4, "max_number": 6}])
def test_up_to_four_numbers_fit_the_vocabulary(settings):
    task = make(**settings)
    config = task.config
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, config.max_number + 1, (10000, config.numbers))
    solutions = canonical_solutions(numbers, rng.integers(config.min_target, config.max_target + 1, 10000))
    largest = [max(step.result for step in steps) for steps in solutions if steps]
    assert len(largest) > 100
    assert max(largest) <= task.largest
    if not settings:
        assert max(largest) > task.largest / 2  # the bound is no waste


def test_five_numbers_beyond_the_vocabulary_are_drawn_again():
    task = make(numbers=5)
    row = [93, 41, 69, 93, 67]
    solution = search(row, 62)
    assert solution == ["93+69=162", "41+67=108", "93*108=10044", "10044/162=62"]
    assert task.largest == 9900
    assert task.read([" ".join(map(str, [*row, 62]))], "file", "stop")[0][0].steps is None
    assert all(p.steps for p in task.sample("train", 20, np.random.default_rng(0)))


def test_out_of_reach():
    with pytest.raises(ValueError, match="numbers=2, max_number=3: found no solvable problem of the train split"):
        make(numbers=2, max_number=3).sample("train", 1, np.random.default_rng(0))


def test_encoding():
    task = make()
    unsolvable = Problem((1, 1, 1, 1), 99, None)
    batch = task.encode([PROBLEM, unsolvable])
    assert batch.inputs.tolist() == [[39, 24, 47, 12, 33] + [0] * 15, [6, 6, 6, 6, 104] + [0] * 15]
    assert batch.targets.tolist() == [[0] * 5 + TOKENS, [0] * 20]
    assert batch.mask.tolist() == [[False] * 5 + [True] * 15] * 2
    assert batch.attention_mask.all()
    assert (task.spec.vocab_size, task.spec.output_size) == (106, 9906)
    assert make(numbers=6).spec.max_seq_len == 32


def plainly_valid(numbers: tuple[int, ...], target: int, slots: list[int]) -> bool:
    pool, value = Counter(numbers), None
    for a, sign, b, equals, c in zip(*[iter(slots)] * 5, strict=True):
        a, b, value = a - 5, b - 5, c - 5
        if not 1 <= sign <= 4 or equals != 5 or min(a, b, value) < 0:
            return False
        text = f"{a}{'+-*/'[sign - 1]}{b}"
        if (sign == 4 and b == 0) or eval(text) != value:
            return False
        for used in (a, b):
            if not pool[used]:
                return False
            pool[used] -= 1
        pool[value] += 1
    return value == target


@given(st.lists(st.tuples(st.integers(0, 14), st.one_of(st.integers(0, 12), st.sampled_from(TOKENS))), max_size=2))
@settings(deadline=None, max_examples=200)
def test_rules_equal_the_plain_check(changes):
    slots = list(TOKENS)
    for at, token in changes:
        slots[at] = token
    found = obeys_rules(np.array([PROBLEM.numbers]), np.array([PROBLEM.target]), np.array([slots]))
    assert found[0] == plainly_valid(PROBLEM.numbers, PROBLEM.target, slots)


@pytest.mark.parametrize(
    ("numbers", "target", "steps", "valid"),
    [
        ((34, 19, 42, 7), 28, "34+42=76 76/19=4 7*4=28", True),
        ((34, 19, 42, 7), 28, "42+34=76 76/19=4 4*7=28", True),  # another order than the canonical one
        ((5, 5, 3, 1), 10, "5-5=0 3*0=0 1+0=1", False),  # misses the target
        ((5, 5, 3, 7), 7, "5-5=0 3*0=0 7+0=7", True),  # zero is a number
        ((5, 5, 3, 7), 7, "5-5=0 0/3=0 7-0=7", True),
        ((5, 5, 3, 7), 7, "5-5=0 3/0=0 7+0=7", False),
        ((5, 4, 3, 7), 7, "5-5=0 3*0=0 7+0=7", False),  # uses 5 twice
        ((5, 2, 3, 7), 12, "5+7=12 3-2=1 12+0=12", False),  # the unused result
        ((5, 2, 3, 7), 12, "5+7=12 3-2=1 12*1=12", True),
        ((5, 2, 3, 7), 12, "5+7=12 5-2=3 12+0=12", False),
        ((7, 2, 3, 7), 2, "7/2=3 7/3=2 3-1=2", False),  # inexact
    ],
)
def test_rules(numbers, target, steps, valid):
    task = make(min_target=1)
    line = json.dumps({"nums": numbers, "target": target, "solution": steps.split()})
    if valid:
        assert task.read([line], "file", "stop")[0][0].numbers == numbers
    else:
        with pytest.raises(ValueError, match=rf"file, line 1: the stated solution .*; expected .* that reach {target}"):
            task.read([line], "file", "stop")


def test_scores_answer_and_visualisation():
    task = make()
    batch = task.encode([PROBLEM] * 3)
    said = batch.targets.clone()
    said[1, 5], said[1, 7] = 47, 39  # 42 + 34: valid, not canonical
    said[2, 19] = 34  # wrong
    logits = 20 * torch.nn.functional.one_hot(said, task.spec.output_size).float()
    scores = task.score(batch, logits)
    assert scores["exact"].tolist() == [1, 0, 0]
    assert scores["valid"].tolist() == [1, 1, 0]
    answer = task.answer(PROBLEM, logits[1])
    assert (answer["answer"], answer["valid"]) == ("42+34=76, 76/19=4, 7*4=28", True)
    assert 0.99 < answer["confidence"] < 1
    assert "prediction: 34+42=76, 76/19=4, 7*4=29 (not valid, 100%)" in task.describe(PROBLEM, logits[2])
    assert "answer: none" in task.describe(PROBLEM._replace(steps=None))
    visualisation = json.loads(json.dumps(task.visualise(PROBLEM, logits)))
    assert (visualisation["kind"], len(visualisation["loops"])) == ("slots", 3)
    assert visualisation["loops"][0]["slots"] == visualisation["answer"]
    assert " ".join(visualisation["answer"]) == "34 + 42 = 76 76 / 19 = 4 7 * 4 = 28"
    odd = torch.nn.functional.one_hot(torch.tensor([0] * 5 + [5, 5, 0, 3, 7] * 3), 9906).float()
    assert task.answer(PROBLEM, odd)["answer"] == ", ".join(["0=_*2"] * 3)


@pytest.mark.parametrize(
    "lines",
    [
        ["34 19 42 7 28", "", "1,1,1,1,99"],
        ["# numbers and target", "34 19 42 7 28", " # the second", "1,1,1,1,99"],
        ['{"nums": [34, 19, 42, 7], "target": 28}', "1, 1, 1, 1, 99"],
        ['[{"nums": [34, 19, 42, 7], "target": 28},', '{"nums": [1, 1, 1, 1], "target": 99}]'],
    ],
)
def test_read(lines):
    assert make().read(lines, "file", "stop") == ([PROBLEM, Problem((1, 1, 1, 1), 99, None)], 0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1 2 3 4", "4 values; expected 4 numbers and a target. A model has slots for one count"),
        ("1 2 3 4 5 6", "6 values; expected 4 numbers"),
        ("1 2 x 4 5", "'x': expected a number from 1 to 99"),
        ("1 2 100 4 5", "100: expected a number from 1 to 99"),
        ("1 2 0 4 5", "0: expected a number from 1 to 99"),
        ("1 2 3 4 101", "101: expected a number from 1 to 100"),
        ("1 2 3.5 4 5", "'3.5': expected"),
        ('{"nums": [1, 2', "no JSON"),
        ('{"nums": [1, 2, 3, 4]}', 'expected {"nums"'),
        ('{"nums": [1, 2, true, 4], "target": 5}', "True: expected"),
        ('{"nums": [1, 2, 3, 4], "target": 10, "solution": "no"}', "the stated solution 'no': cannot read"),
        ('{"nums": [1, 2, 3, 4], "target": 10, "solution": ["1+2=3", "3+3=6", "6+4=11"]}', "6+4 is 10, not '11'"),
        ('{"nums": "1 2 3 4", "target": 10}', 'expected {"nums"'),
        ('{"nums": [1, 2, 3], "target": 6}', "A model has slots for one count of numbers (numbers=4)"),
        ('{"nums": [1, 2, 3, 4], "target": "10"}', "'10': expected a number"),
        ('{"nums": [1, 2, 3, 4], "target": 10.0}', "10.0: expected a number"),
        ('{"nums": [1, 2, 3, 4], "target": NaN}', "nan: expected a number"),
        ('{"nums": [1, 2, 3, [4]], "target": 10}', "[4]: expected a number"),
        ('{"nums": [1, 2, 3, ' + "7" * 5000 + '], "target": 10}', "7777'): expected a number".replace(")", "")),
        ('{"nums": [1, 2, 3, 4], "target": ' + "[" * 900 + "]" * 900 + "}", "[...]"),
        ('{"nums": ' + "[" * 100_000, "no JSON: too deeply nested"),
        ('{"nums": [1, 2, 3, 4], "target": 10, "solution": {"a": 1}}', "expected a text or a list of texts"),
        ('{"nums": [1, 2, 3, 4], "target": 10, "solution": [10]}', "expected a text or a list of texts"),
    ],
)
def test_bad_rows(line, reason):
    task = make()
    with pytest.raises(ValueError, match=r"^file, line 2: ") as error:
        task.read(["34 19 42 7 28", line], "file", "stop")
    assert reason in str(error.value)
    assert task.read(["34 19 42 7 28", line], "file", "skip") == ([PROBLEM], 1)
    with pytest.raises(ValueError, match=r"file: no countdown problem in it \(1 bad rows\)"):
        task.read([line], "file", "skip")


def test_bad_files():
    with pytest.raises(ValueError, match="file: no countdown problem"):
        make().read([""], "file", "stop")
    with pytest.raises(ValueError, match="file, line 2: no JSON"):
        make().read(["[", "x]"], "file", "stop")
    with pytest.raises(ValueError, match="file, line 1: no JSON: too deeply nested"):
        make().read(["[" * 100_000], "file", "stop")
    with pytest.raises(ValueError, match="file, item 2: 5: expected an object"):
        make().read(['[{"nums": [34, 19, 42, 7], "target": 28}, 5]'], "file", "stop")
