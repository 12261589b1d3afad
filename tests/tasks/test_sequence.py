"""Sequence tasks: their encoding, splits, answers and files."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import result_or_line
from own_tasks import Collapse
from test_own_task import Parity

from looped.tasks.base import SPLITS
from looped.tasks.sequence import Example

TASK = Collapse(Collapse.Config(length=4, eval_lengths=(6,)))


def test_encoding_by_hand():
    batch = TASK.encode([Example(("a", "a", "ch"), ("a", "ch")), Example(("b",), ("b",))])
    # a 2, b 3, ch 4; a blank is 1; the classes are a 0, b 1, ch 2, end 3
    assert batch.inputs.tolist() == [[2, 2, 4, 1, 1, 1, 0, 0], [3, 1, 0, 0, 0, 0, 0, 0]]
    assert batch.targets.tolist() == [[0, 0, 0, 0, 2, 3, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]]
    assert batch.mask.tolist() == [[False] * 3 + [True] * 3 + [False] * 2, [False, True, *[False] * 6]]
    assert torch.equal(batch.attention_mask, batch.inputs != 0)
    assert (TASK.spec.vocab_size, TASK.spec.output_size, TASK.spec.max_seq_len) == (5, 4, 12)
    assert TASK.encode(TASK.sample("train", 4, np.random.default_rng(0), "6")).inputs.shape == (4, 12)


def test_answer_ends_at_the_end():
    problem = Example(("a", "a", "ch"), ("a", "ch"))
    logits = 20.0 * torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 0, 2, 3, 0, 0]), 4)
    assert TASK.answer(problem, logits)["answer"] == "a ch"
    assert TASK.answer(problem, logits)["confidence"] > 0.99
    assert TASK.to_text(problem) == {"input": "a a ch", "expected": "a ch"}
    assert TASK.visualise(problem, logits[None])["loops"][0]["slots"] == ["a", "ch", "·"]
    assert TASK.visualise(problem, logits[None])["answer"] == ["a", "ch", "·"]


def test_lengths_and_answers():
    drawn = TASK.sample("train", 400, np.random.default_rng(0))
    assert {len(example.input) for example in drawn} == {1, 2, 3, 4}
    assert all(example.output == tuple(TASK.solve(example.input)) for example in drawn)
    assert len({len(example.output) for example in drawn}) > 2
    with pytest.raises(ValueError, match="group='5': expected one of 4, 6"):
        TASK.sample("train", 1, np.random.default_rng(0), "5")


def test_splits_share_no_word_and_no_label_is_bound_to_one():
    task = Parity(Parity.Config(length=12, eval_lengths=()))
    words = {split: task.sample(split, 300, np.random.default_rng(0), "12") for split in SPLITS}
    inputs = {split: {example.input for example in found} for split, found in words.items()}
    assert not inputs["train"] & inputs["test"]
    assert not inputs["train"] & inputs["validation"]
    assert not inputs["test"] & inputs["validation"]
    for found in words.values():
        assert 0.35 < np.mean([example.output == ("1",) for example in found]) < 0.7


def test_a_split_without_words_is_an_error():
    task = Parity(Parity.Config(length=1, eval_lengths=()))  # two words for three splits
    with pytest.raises(ValueError, match=r"length=1: found no input in the \w+ split; expected longer"):
        _ = [task.sample(split, 1, np.random.default_rng(0), "1") for split in SPLITS]


def test_files():
    examples, skipped = TASK.read(["a  a ch", "", " b "], "in", "stop")
    assert examples == [Example(("a", "a", "ch"), ("a", "ch")), Example(("b",), ("b",))]
    assert skipped == 0
    for line, reason in (("a c", "'c': expected symbols of a b ch"), ("a " * 7, "7 symbols; expected at most")):
        with pytest.raises(ValueError, match=f"in, line 2: {reason}"):
            TASK.read(["a", line], "in", "stop")
        assert TASK.read(["a", line], "in", "skip")[1] == 1
    with pytest.raises(ValueError, match=r"in: no input of the task collapse in it \(1 bad rows\)"):
        TASK.read(["x"], "in", "skip")


@pytest.mark.parametrize(("answer", "shown"), [("2", "'2'"), ("01", "'01'")])
def test_a_solver_that_breaks_its_word(answer: str, shown: str, monkeypatch: pytest.MonkeyPatch):
    task = Parity(Parity.Config())
    monkeypatch.setattr(Parity, "solve", lambda self, symbols: answer)
    with pytest.raises(ValueError, match=rf"task parity: solve\('[01]+'\) gave {shown}; expected at most 1 symbols"):
        task.sample("train", 1, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ("011", "vocabulary='011': expected every symbol once"),
        (("a", "b", "a"), "expected every symbol once"),
        (("a", "b c"), "'b c'; expected texts without white space"),
        ("0 1", "' '; expected texts without white space"),
        (("a", ""), "''; expected texts"),
        ((0, 1), "0; expected texts"),
        ("01·", "'·'; expected texts without white space, not ·"),
    ],
)
def test_a_vocabulary_that_is_none(vocabulary, message, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Parity, "vocabulary", vocabulary)
    with pytest.raises(ValueError, match=r"^task parity: vocabulary[^\n]+$") as error:
        Parity(Parity.Config())
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("draw", "0" * 9, r"draw\(\d\) gave '0{9}'; expected \d symbols"),
        ("draw", ["2"] * 8, r"draw\(\d\) gave '22222222'; expected \d symbols"),
        ("draw", 7, r"draw\(\d\) gave '7'; expected \d symbols"),
        ("solve", 1, r"solve\('[01]+'\) gave '1'; expected at most 1 symbols"),
        ("solve", None, r"solve\('[01]+'\) gave 'None'; expected at most 1 symbols"),
        ("solve", [["0"]], r"solve\('[01]+'\) gave .*; expected at most 1 symbols"),
        ("output_length", 0, r"output_length\(8\)=0: expected at least 1"),
    ],
)
def test_methods_that_break_their_word(method, given, message, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Parity, method, lambda self, argument, rng=None: given)
    with pytest.raises(ValueError, match=rf"^task parity: {message}"):
        Parity(Parity.Config()).sample("train", 200, np.random.default_rng(0), "8")


@given(st.text(alphabet="abch \t|·٣\x1b", max_size=30))
@settings(deadline=None, max_examples=300)
def test_any_line_gives_an_input_or_one_clear_line(text):
    result_or_line(TASK.read, [text], "in", "stop")
    result_or_line(TASK.read, [text, "a"], "in", "skip")


def test_lengths_are_positive():
    with pytest.raises(ValueError, match="length=0: expected at least 1"):
        Collapse.Config(length=0)
