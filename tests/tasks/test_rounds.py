"""Rounds of chains: what is read back from them is the chain that they were made from."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from looped.tasks import TASKS
from looped.tasks.arithmetic import ArithmeticConfig
from looped.tasks.batch import IGNORED
from looped.tasks.edit_distance_chain import EditDistanceChainConfig
from looped.tasks.increasing_subsequence import IncreasingSubsequenceConfig

ROUNDS = [
    ArithmeticConfig(length=5, min_length=1, answer="rounds"),
    IncreasingSubsequenceConfig(length=31, min_length=11, answer="rounds"),
    EditDistanceChainConfig(length=7, min_length=4, answer="rounds"),
]


@pytest.mark.parametrize("config", ROUNDS, ids=lambda config: config.name)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_a_chain_can_be_read_from_its_rounds(config, seed):
    task: Any = TASKS[config.name](config)
    problems = task.sample("train", 6, np.random.default_rng(seed))
    batch: Any = task.with_loops(task.encode(problems), problems)
    assert batch.loops.tolist() == [len(task.rounds(problem)) for problem in problems]
    anything = torch.from_numpy(
        np.random.default_rng(seed).integers(task.spec.output_size, size=batch.step_targets.shape)
    )
    written = torch.where(batch.step_targets == IGNORED, anything, batch.step_targets).numpy()
    for row, problem in enumerate(problems):
        end = 1 + len(problem.question)
        assert [task.word(token) for token in batch.inputs[row, 1:end].tolist()] == list(problem.question)
        assert task.word(int(batch.targets[row, 0])) == problem.answer[0]
        assert (batch.step_targets[row, :, end:] == IGNORED).all()
        assert (batch.step_targets[row, :, 0] == IGNORED).all()
        assert (batch.step_targets[row, batch.loops[row] :] == IGNORED).all()
        found = task.read_rounds(written[row, : int(batch.loops[row]), :end])
        assert found == task.rounds(problem)
        assert task.chain(problem.question, found) == problem.chain


def test_the_rounds_of_the_works_examples():
    task: Any = TASKS["arithmetic"](ArithmeticConfig(length=3, answer="rounds"))
    (problem,), _ = task.read(["3*2+6/3="], "mine", "stop")
    assert [" ".join(words) for words in task.rounds(problem)] == ["6 + 6 / 3 =", "6 + 2 =", "8"]
    task: Any = TASKS["increasing_subsequence"](IncreasingSubsequenceConfig(length=12, answer="rounds"))
    (problem,), _ = task.read([" ".join(map(str, range(20, 32)))], "mine", "stop")
    last = ["11", "12", *["12"] * 8, "<sep>"]
    assert task.rounds(problem) == [(*map(str, range(1, 11)), "<sep>"), tuple(last)]
    task: Any = TASKS["edit_distance_chain"](EditDistanceChainConfig(answer="rounds"))
    (problem,), _ = task.read(["ab | acb"], "mine", "stop")
    assert task.rounds(problem) == [("0", "2", "4", ","), ("2", "3", "2", ",")]


def test_words_and_chains_of_rounds_are_counted():
    config = EditDistanceChainConfig(length=7, answer="rounds")
    task: Any = TASKS[config.name](config)

    def predict(batch, loops):
        wrong = batch.step_targets.clone()
        wrong[:128, 1] = (wrong[:128, 1] + 1).clamp(min=0)  # the second round of half of the examples
        known = wrong.clamp(min=0).transpose(0, 1)
        return torch.nn.functional.one_hot(known, task.spec.output_size).float()

    (row,) = task.extra_evaluation(predict, loops=[1], split="test", group="7", seed=0)["rounds.jsonl"]
    assert row["words_by_round"][0] == 1
    assert 0.4 < row["words_by_round"][1] < 0.6
    assert row["chains"] == 0.5
