import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from looped.tasks.n_ary_addition import NAryAddition, NAryAdditionConfig
from looped.tasks.sequence import END


def make(**more) -> NAryAddition:
    return NAryAddition(NAryAdditionConfig(**more))


def by_columns(operands: list[str]) -> str:
    """The sum as pupils write it: column by column from the right, with a carry."""
    digits, carry = "", 0
    for column in itertools.zip_longest(*map(reversed, operands)):
        carry += sum(map("0123456789".index, column))
        digits, carry = "0123456789"[carry % 10] + digits, carry // 10
    while carry:
        digits, carry = "0123456789"[carry % 10] + digits, carry // 10
    return digits.lstrip("0") or "0"


@given(st.integers(1, 5), st.lists(st.integers(0, 99_999), min_size=1, max_size=12))
@settings(deadline=None)
def test_answers_equal_addition_by_columns(digits, numbers):
    operands = [f"{number % 10**digits:0{digits}}" for number in numbers]
    task = make(digits=digits, operands=(12,))
    problem = task.parse("+".join(operands))
    assert task.to_text(problem) == {"input": "+".join(operands) + "=", "expected": by_columns(operands)}


def test_the_published_example():
    task = make()
    assert task.to_text(task.parse("315 + 120 + 045 + 824 ="))["expected"] == "1304"
    assert task.spec.max_seq_len == 32 * 4 + len("31968")
    assert task.trained_seq_len is None
    longer = make(operands=(2, 4), eval_operands=(3, 10))
    assert (longer.trained_seq_len, longer.spec.max_seq_len) == (4 * 4 + len("3996"), 10 * 4 + len("9990"))


@pytest.mark.parametrize("settings", [{"operands": (2, 5), "eval_operands": (3, 7)}, {"digits": 2, "operands": (4,)}])
def test_every_problem_has_the_asked_number_of_operands(settings):
    task, rng = make(**settings), np.random.default_rng(0)
    config = task.config
    assert task.groups == tuple(map(str, config.eval_operands))
    for group in (None, *task.groups):
        problems = task.sample("train", 60, rng, group)
        counts = {problem.input.count("+") + 1 for problem in problems}
        assert counts == ({*config.operands} if group is None else {int(group)})
        for text in map(task.to_text, problems):
            operands = text["input"].removesuffix("=").split("+")
            assert all(len(operand) == config.digits for operand in operands)
            assert text["expected"] == by_columns(operands)
    drawn = [task.to_text(p)["input"] for p in task.sample("train", 2000, rng)]
    first = [int(text[: config.digits]) for text in drawn]
    assert np.mean(first) == pytest.approx((10**config.digits - 1) / 2, rel=0.05)


def test_the_loss_is_on_the_answer_and_its_end():
    task = make(operands=(1, 2), eval_operands=(2,))
    batch = task.encode([task.parse("999+001"), task.parse("000")])
    right = [[task.word(t) for t in batch.targets[row][batch.mask[row]].tolist()] for row in range(2)]
    assert right == [[*"1000", END], ["0", END]]
    shown = [task.vocabulary[i - 1] for i in batch.inputs[0][batch.attention_mask[0]].tolist()]
    assert "".join(map(str, shown)) == "999+001=1000"
    assert batch.mask.nonzero().tolist() == [[0, i] for i in range(7, 12)] + [[1, 3], [1, 4]]


def test_all_symbols_are_right_exactly_if_greedy_decoding_gives_the_answer():
    task = make(operands=(2, 3), eval_operands=(2,))
    problems = task.sample("train", 200, np.random.default_rng(0))

    def likely(read: tuple[str, ...], right: str) -> int:
        """A causal model: its next symbol depends on what it read, and is often right."""
        draw = random.Random("".join(read))
        return task.symbols[right] if draw.random() < 0.8 else draw.randrange(task.answers)

    batch = task.encode(problems)
    logits = torch.zeros(*batch.inputs.shape, task.answers)
    decoded = []
    for row, (prompt, answer) in enumerate(problems):
        for k, right in enumerate(answer):
            logits[row, len(prompt) - 1 + k, likely(prompt + answer[:k], right)] = 1
        written: tuple[str, ...] = ()
        while END not in written and len(written) < 9:
            right = answer[len(written)] if answer[: len(written)] == written and written != answer else "0"
            written += (task.word(likely(prompt + written, right)),)
        decoded.append(written == answer)
    scored = task.score(batch, logits)["accuracy"].bool().tolist()
    assert scored == decoded
    assert 20 < sum(scored) < 180


def test_files_and_impossible_settings():
    task = make(operands=(2,), eval_operands=(3,))
    assert task.read(["001+002", "", "5"], "sums", "skip")[1] == 1
    for line, reason in [
        ("12+345", "'12': expected numbers of 3 digits with . between them"),
        ("123+", "'': expected numbers of 3 digits"),
        ("٣٣٣+001", "'٣٣٣': expected numbers of 3 digits"),
        ("+".join(["111"] * 4), "4 operands; expected at most 3, the largest of the task"),
    ]:
        with pytest.raises(ValueError, match=f"sums, line 2: {reason}"):
            task.read(["001+002", line], "sums", "stop")
    with pytest.raises(ValueError, match="sums: no problem of the task n_ary_addition in it"):
        task.read([], "sums", "stop")
    for bad_settings, message in [
        ({"operands": ()}, r"operands=\(\): expected different numbers"),
        ({"eval_operands": (4, 4)}, r"eval_operands=\(4, 4\): expected different numbers"),
        ({"digits": 0}, "digits=0: expected 1 to 15"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(**bad_settings)
    with pytest.raises(ValueError, match="group='8': expected one of 3"):
        task.sample("train", 1, np.random.default_rng(0), "8")
    with pytest.raises(ValueError, match="group=1: found no problem in the test split"):
        make(digits=1, operands=(1,), eval_operands=(1,)).sample("test", 9, np.random.default_rng(0), "1")
