"""Tasks with chains against other ways to find the answers: Python's parser, substitution, brute force, rapidfuzz."""

import ast
import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from looped.tasks import TASKS
from looped.tasks.arithmetic import ArithmeticConfig
from looped.tasks.edit_distance import EditDistanceConfig
from looped.tasks.edit_distance_chain import EditDistanceChainConfig
from looped.tasks.equations import EquationsConfig
from looped.tasks.increasing_subsequence import IncreasingSubsequenceConfig

seeds = st.integers(0, 2**32)
for name in ("arithmetic", "edit_distance", "edit_distance_chain", "equations", "increasing_subsequence"):
    TASKS[name]  # imports the task, which may take longer than an example of a test


def drawn(config, count=12, seed=0):
    task: Any = TASKS[config.name](config)
    return task, task.draw(config.length, count, np.random.default_rng(seed))


def steps(task, problem):
    """Question, steps and answer, each as a tuple of words."""
    found, words = [], [*problem.question, *problem.chain, *problem.answer, task.separator]
    while words:
        at = words.index(task.separator)
        found.append(tuple(words[:at]))
        words = words[at + 1 :]
    return found


class Residue:
    """A number modulo a prime, for Python's own parser."""

    def __init__(self, value, p):
        self.value, self.p = value % p, p

    def __add__(self, other):
        return Residue(self.value + other.value, self.p)

    def __sub__(self, other):
        return Residue(self.value - other.value, self.p)

    def __mul__(self, other):
        return Residue(self.value * other.value, self.p)

    def __truediv__(self, other):
        inverses = [n for n in range(self.p) if n * other.value % self.p == 1]
        return Residue(self.value * inverses[0], self.p)


def evaluated(words, p):
    return eval(re.sub(r"(\d+)", rf"Residue(\1, {p})", " ".join(words))).value


@settings(deadline=None)
@given(st.integers(1, 7), st.sampled_from([2, 3, 5, 11]), seeds)
def test_every_expression_of_a_chain_has_the_value_of_the_answer(length, modulus, seed):
    task, problems = drawn(ArithmeticConfig(length=length, modulus=modulus), 4, seed)
    for problem in problems:
        found = steps(task, problem)
        assert len(found) == length + 1
        assert {evaluated(words, modulus) for words in found} == {int(problem.answer[0])}
        operators = [sum(word in {*"+-*/"} for word in words) for words in found]
        assert operators == list(range(length, -1, -1))
        own = task.solve(problem.question[:-1])
        assert own.answer == problem.answer
        assert {evaluated(words, modulus) for words in steps(task, own)} == {int(problem.answer[0])}


class First(ast.NodeTransformer):
    """Computes the first operation of two numbers in an expression that Python has parsed."""

    def __init__(self, tree, p):
        operations = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp)]
        ready = [n for n in operations if isinstance(n.left, ast.Constant) and isinstance(n.right, ast.Constant)]
        self.chosen, self.p = min(ready, key=lambda node: node.col_offset), p

    def visit_BinOp(self, node):
        if node is self.chosen:
            return ast.Constant(evaluated(ast.unparse(node).split(), self.p))
        return self.generic_visit(node)


@settings(deadline=None)
@given(st.integers(1, 6), seeds)
def test_with_one_order_each_step_computes_the_first_operation(length, seed):
    task, problems = drawn(ArithmeticConfig(length=length, modulus=7, order="first"), 3, seed)
    for problem in problems:
        assert task.solve(problem.question[:-1]) == problem
        for before, after in itertools.pairwise(steps(task, problem)):
            tree = ast.parse(" ".join(before), mode="eval")
            assert ast.dump(First(tree, 7).visit(tree)) == ast.dump(ast.parse(" ".join(after), mode="eval"))


def test_the_brackets_of_an_expression_are_needed():
    _, problems = drawn(ArithmeticConfig(length=4), 400)
    for problem in problems:
        words = problem.question[:-1]
        for at in [i for i, word in enumerate(words) if word == "("]:
            depth = np.cumsum([(word == "(") - (word == ")") for word in words])
            end = next(i for i in range(at, len(words)) if depth[i] < depth[at])
            bare = [word for i, word in enumerate(words) if i not in (at, end)]
            # Without these brackets another operation of the expression comes first: it is another expression.
            tree = re.sub(r"\d+", "x", " ".join(words)), re.sub(r"\d+", "x", " ".join(bare))
            assert compile(tree[0], "", "eval").co_code != compile(tree[1], "", "eval").co_code


def test_arithmetic_takes_all_numbers_and_operators():
    _, problems = drawn(ArithmeticConfig(length=1, modulus=3), 3000)
    seen = {problem.question[:-1] for problem in problems}
    every = {(str(a), o, str(b)) for a in range(3) for o in "+-*/" for b in range(3) if o != "/" or b}
    assert seen == every


expressions = st.recursive(
    st.integers(0, 6).map(str),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/"]), inner).map(" ".join) | inner.map("( {} )".format)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(expressions)
def test_the_expressions_of_users_are_computed_as_python_does(text):
    task: Any = TASKS["arithmetic"](ArithmeticConfig(length=20, modulus=7))
    try:
        expected = str(evaluated(text.split(), 7))
    except IndexError:  # a division by 0
        with pytest.raises(ValueError, match="divided by 0"):
            task.read([text], "mine", "stop")
        return
    (problem,), _ = task.read([text.replace(" ", "")], "mine", "stop")
    assert problem.answer == (expected,)


def equation(text, values, p):
    """Whether some values (by variable) solve an equation such as `2 a + b = 1`."""
    left, right = text.split("=")
    found = 0
    for term in left.split("+"):
        *factor, variable = term.split()
        found += (int(factor[0]) if factor else 1) * values[variable]
    return found % p == int(right)


@settings(deadline=None)
@given(st.integers(1, 4), st.sampled_from([2, 3, 5, 11]), seeds)
def test_the_answer_solves_every_system_of_its_chain(length, modulus, seed):
    task, problems = drawn(EquationsConfig(length=length, modulus=modulus), 3, seed)
    for problem in problems:
        found = steps(task, problem)
        assert len(found) == length + 1
        values = dict(re.findall(r"([a-z]) = (\d+)", " ".join(problem.answer)))
        assert list(values) == list("abcd"[:length])
        numbers = {name: int(value) for name, value in values.items()}
        for words in found:
            rows = " ".join(words).split(" , ")
            assert len(rows) == length
            assert all(equation(row, numbers, modulus) for row in rows)
        assert tuple(map(len, problem)) == task.most_words(length)
        assert task.solve(problem.question[:-1]) == problem


def test_equations_are_all_those_with_one_solution():
    task: Any = TASKS["equations"](EquationsConfig(length=2, modulus=2))
    solvable = set()
    for a, b, c, d, e, f in itertools.product(range(2), repeat=6):
        text = f"{a} a + {b} b = {c} , {d} a + {e} b = {f}"
        solutions = [
            (x, y)
            for x, y in itertools.product(range(2), repeat=2)
            if all(equation(row, {"a": x, "b": y}, 2) for row in text.split(" , "))
        ]
        if len(solutions) == 1:
            solvable.add(text)
            (problem,), _ = task.read([text], "mine", "stop")
            assert problem.answer == tuple(f"a = {solutions[0][0]} , b = {solutions[0][1]}".split())
        else:
            with pytest.raises(ValueError, match="exactly one solution"):
                task.read([text], "mine", "stop")
    problems = task.draw(2, 500, np.random.default_rng(0))
    assert {" ".join(problem.question[:-1]) for problem in problems} == solvable


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 9), st.integers(0, 12), seeds)
def test_increasing_subsequences_by_brute_force(length, more, seed):
    config = IncreasingSubsequenceConfig(length=length, numbers=2 * length + 1 + more)
    task, problems = drawn(config, 3, seed)
    for problem in problems:
        numbers = [int(word) for word in problem.question[:-1]]
        assert len(numbers) == length
        assert length < min(numbers) <= max(numbers) < config.numbers
        longest = [1] * length  # of those that end at each number
        for size in range(2, length + 1):
            for places in itertools.combinations(range(length), size):
                if all(numbers[i] < numbers[j] for i, j in itertools.pairwise(places)):
                    longest[places[-1]] = size
        assert problem.chain == (*map(str, longest), "<sep>")
        assert problem.answer == (str(max(longest)),)
        assert task.solve(problem.question[:-1]) == problem


def test_increasing_runs_are_planted():
    _, problems = drawn(IncreasingSubsequenceConfig(length=50), 300)
    answers = np.array([int(problem.answer[0]) for problem in problems])
    assert answers.max() > 40  # uniform numbers have at most about 2 sqrt(50) = 14
    assert np.median(answers) > 14
    assert answers.min() < 12


@settings(deadline=None)
@given(st.integers(4, 9), st.sampled_from(["corrected", "published"]), seeds)
def test_tables_of_edit_distance(length, version, seed):
    task, problems = drawn(EditDistanceChainConfig(length=length, version=version), 3, seed)
    plain: Any = TASKS["edit_distance"](EditDistanceConfig(length=length, version=version))
    for problem in problems:
        first, _, second = "".join(problem.question[:-1]).partition("|")
        assert len(first) <= len(second)
        rows = [row.split() for row in " ".join(problem.chain).split(",")[:-1]]
        for i, row in enumerate(rows, start=1):
            pairs = [(first[:i], second[:j]) for j in range(1, len(second) + 1)]
            if version == "corrected":
                expected = [Levenshtein.distance(*pair, weights=(2, 2, 3)) for pair in pairs]
            else:
                expected = plain.answers(pairs).tolist()
            assert row == list(map(str, expected))
        assert problem.answer == (rows[-1][-1],)
        assert task.solve(problem.question[:-1]) == problem


@pytest.mark.parametrize(
    ("config", "direct", "chain"),
    [  # the largest numbers of tokens in the public code, which counts one more
        (ArithmeticConfig(length=4), 19, 43),
        (ArithmeticConfig(length=6), 27, 87),
        (EquationsConfig(length=3), 46, 91),
        (EquationsConfig(length=5), 106, 316),
    ],
)
def test_sizes_are_those_of_the_public_code(config, direct, chain):
    task, problems = drawn(config, 300)
    words = [(len(p.question) + len(p.answer), len(p.question) + len(p.chain) + len(p.answer)) for p in problems]
    question, middle, answer = task.most_words(config.length)
    assert (question + answer, question + middle + answer) == tuple(np.max(words, 0))
    assert (question + answer + 1, question + middle + answer + 1) in [(direct, chain), (direct - 1, chain - 1)]


def test_lengths_in_training_are_drawn_in_proportion_to_themselves():
    task: Any = TASKS["arithmetic"](ArithmeticConfig(length=4, min_length=1))
    problems = task.sample("train", 4000, np.random.default_rng(0))
    operators = [sum(word in {*"+-*/"} for word in problem.question) for problem in problems]
    shares = np.bincount(operators, minlength=5)[1:] / len(problems)
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)
    assert {len(steps(task, p)) for p in task.sample("test", 20, np.random.default_rng(0), "4")} == {5}


@pytest.mark.parametrize("answer", ["direct", "chain"])
def test_targets_are_what_follows_the_question(answer):
    task: Any = TASKS["arithmetic"](ArithmeticConfig(length=3, min_length=1, answer=answer))
    problems = task.sample("train", 8, np.random.default_rng(0))
    batch = task.encode(problems)
    for problem, inputs, targets, mask in zip(problems, batch.inputs, batch.targets, batch.mask, strict=True):
        start = int(mask.int().argmax())
        assert [task.word(token) for token in inputs[: start + 1].tolist()] == list(problem.question)
        chain = problem.chain if answer == "chain" else ()
        assert [task.word(token) for token in targets[mask].tolist()] == [*chain, *problem.answer, "<end>"]
        assert (inputs[start + 1 :][mask[start + 1 :]] == targets[mask][:-1]).all()


def test_problems_grow_with_the_step():
    task: Any = TASKS["arithmetic"](ArithmeticConfig(length=4, min_length=1, start_length=2, length_every=10))

    def operators(step):
        problems = task.sample_step(step, 60, np.random.default_rng(step))
        return {sum(word in {*"+-*/"} for word in problem.question) for problem in problems}

    assert [operators(step) for step in (9, 10, 20, 99)] == [{1, 2}, {1, 2, 3}, {1, 2, 3, 4}, {1, 2, 3, 4}]
    assert operators(9) < {len(steps(task, p)) - 1 for p in task.sample("train", 60, np.random.default_rng(0))}


@pytest.mark.parametrize(
    ("written", "right"),
    [("4 / 2 = 2 <end>", True), ("2 <end> 3", True), ("2 = <end>", False), ("2", False), ("5 = 2 = 3 <end>", False)],
)
def test_the_answer_is_what_follows_the_last_separator(written, right):
    task: Any = TASKS["arithmetic"](ArithmeticConfig(length=2))
    (problem,), _ = task.read(["(6+9)/2 ="], "mine", "stop")
    tokens = [1 if word == "<end>" else task.ids[word] for word in written.split()]
    assert task.score_generated(task.encode([problem]), [tokens])["accuracy"].tolist() == [float(right)]
    assert (task.generated_answer(problem, tokens)["answer"] == "2") == right


@pytest.mark.parametrize(
    ("config", "line", "message"),
    [
        (ArithmeticConfig(), "3 + x", "'x': expected words of"),
        (ArithmeticConfig(), "3 + 12", "'12': expected words of"),
        (ArithmeticConfig(), "3 + + 4", "expected an expression"),
        (ArithmeticConfig(), "( 3 + 4", "expected an expression"),
        (ArithmeticConfig(), ")", "expected an expression"),
        (ArithmeticConfig(), "1 / ( 3 - 3 )", "divided by 0"),
        (ArithmeticConfig(length=1), "1 + 2 + 3", "6 words; expected at most 4"),
        (EquationsConfig(length=3), "a = 1 , c = 2", "c: expected as many equations as variables"),
        (EquationsConfig(length=2), "a + 2 = 1 , b = 2", "expected an equation"),
        (EquationsConfig(length=2), "a = 1 , a = 2", "exactly one solution"),
        (EquationsConfig(length=1), "a = 1 , a = 2", "at most 1"),
        (IncreasingSubsequenceConfig(length=5), "7 9 3", "expected numbers from 6 to 149"),
        (IncreasingSubsequenceConfig(length=5), "7 9 8 7 9 8", "7 words; expected at most 6"),
        (EditDistanceChainConfig(length=5), "abc", "expected two strings"),
        (EditDistanceChainConfig(length=5), "a | b | c", "expected two strings"),
        (EditDistanceChainConfig(length=5), "kitten | sitting", "6 and 7 letters; expected at most 5 and 7"),
    ],
)
def test_bad_questions_are_one_line(config, line, message):
    task: Any = TASKS[config.name](config)
    with pytest.raises(ValueError, match=rf"^mine, line 2: .*({message})"):
        task.read(["", line], "mine", "stop")
    with pytest.raises(ValueError, match="no question of the task"):
        task.read([line], "mine", "skip")


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (ArithmeticConfig, {"modulus": 9}, "modulus=9: expected a prime"),
        (ArithmeticConfig, {"length": 3, "min_length": 4}, "min_length=4: expected 1 to 3"),
        (ArithmeticConfig, {"min_length": 2, "start_length": 1, "length_every": 9}, "start_length=1: expected 2 to 4"),
        (EquationsConfig, {"length": 27}, "length=27: expected 1 to 26"),
        (IncreasingSubsequenceConfig, {"length": 80}, "numbers=150: expected at least 161"),
        (IncreasingSubsequenceConfig, {"length": 10, "answer": "rounds"}, "length=10: expected at least 11"),
        (EditDistanceChainConfig, {"length": 3}, "length=3: expected 4"),
        (EditDistanceChainConfig, {"min_letters": 12}, "min <= max"),
    ],
)
def test_bad_settings(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)
