import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_cases import tiny

from looped.config import OptimConfig, ScheduleConfig
from looped.training import LoopSchedule, train
from looped.training.schedule import learning_rate_at

steps = st.integers(0, 10_000)


def test_fixed():
    assert {LoopSchedule(ScheduleConfig(), 6, 0).at(step) for step in range(50)} == {(6, 6)}
    assert LoopSchedule(ScheduleConfig(num_grad_loops=2), 6, 0).at(3) == (6, 2)


def test_curriculum_as_published():
    # In-context learning, decision trees: T=15, b=70, two loops more every 500 steps.
    config = ScheduleConfig(kind="curriculum", min_loops=15, max_loops=70, loops_step=2, every=500, num_grad_loops=15)
    schedule = LoopSchedule(config, 70, 0)
    assert [schedule.at(step) for step in (0, 499, 500, 1000, 13_500, 14_000, 10**6)] == [
        (15, 15), (15, 15), (17, 15), (19, 15), (69, 15), (70, 15), (70, 15),
    ]  # fmt: skip
    assert schedule.last == 70


@given(
    st.sampled_from(["curriculum", "random"]), st.integers(1, 9), st.integers(0, 9),
    st.none() | st.integers(1, 20), st.integers(0, 99), steps,
)  # fmt: skip
def test_loops_stay_in_range(kind, low, extra, window, seed, step):
    every = {"loops_step": 2, "every": 7} if kind == "curriculum" else {}
    config = ScheduleConfig(kind=kind, min_loops=low, max_loops=low + extra, num_grad_loops=window, **every)
    loops, grad_loops = LoopSchedule(config, 5, seed).at(step)
    assert low <= loops <= low + extra
    assert grad_loops == min(loops, window or loops)
    assert LoopSchedule(config, 5, seed).at(step) == (loops, grad_loops)
    if kind == "curriculum":
        assert loops <= LoopSchedule(config, 5, seed).at(step + 1)[0]


def test_random_is_uniform_and_depends_on_seed():
    config = ScheduleConfig(kind="random", min_loops=2, max_loops=5)
    draws = [[LoopSchedule(config, 1, seed).at(step)[0] for step in range(2000)] for seed in (0, 1)]
    assert draws[0] != draws[1]
    for loops in (2, 3, 4, 5):
        assert draws[0].count(loops) == pytest.approx(500, abs=80)  # four standard deviations


def rates(total: int = 110, **config) -> list[float]:
    optim = OptimConfig(**{"learning_rate": 2.0, "warmup_steps": 10} | config)
    return [learning_rate_at(optim, step, total) for step in range(total + 1)]


def test_warm_up_then_decay():
    cosine = rates()
    assert cosine[:11] == pytest.approx([0.2 * step for step in range(11)])
    assert [cosine[10], cosine[35], cosine[60], cosine[110]] == pytest.approx([2, 1 + math.sqrt(0.5), 1, 0])
    linear = rates(schedule="linear", final_fraction=0.1)
    assert [linear[10], linear[60], linear[110]] == pytest.approx([2, 1.1, 0.2])
    assert set(rates(schedule="constant", warmup_steps=0)) == {2.0}
    assert rates(warmup_steps=110)[-1] == 2.0
    later = rates(constant_steps=40)
    assert later[10:51] == [2.0] * 41
    assert [later[80], later[110]] == pytest.approx([1, 0])
    assert set(rates(warmup_steps=0, constant_steps=110)) == {2.0}
    with pytest.raises(ValueError, match="constant_steps=101: expected at most 100, the steps after the warm-up"):
        tiny(optim={"warmup_steps": 10, "constant_steps": 101}, steps=110)


def test_published_epoch_schedule_leaves_the_first_epoch_at_zero():
    epochwise = rates(update_every=5)
    assert epochwise[:5] == [0] * 5
    assert epochwise[5:10] == [1.0] * 5
    assert epochwise[10:15] == [2.0] * 5
    assert epochwise[60:65] == pytest.approx([1.0] * 5)


@given(steps, st.integers(1, 50), st.sampled_from(["cosine", "linear", "constant"]))
def test_rate_stays_between_zero_and_peak(step, every, schedule):
    optim = OptimConfig(warmup_steps=300, schedule=schedule, update_every=every)
    assert 0 <= learning_rate_at(optim, step, 10_000) <= optim.learning_rate


@pytest.mark.parametrize(("injection", "said"), [("none", True), ("add", False)])
def test_training_says_once_which_parts_get_no_gradient(injection, said, tmp_path, capsys):
    schedule = ScheduleConfig(num_grad_loops=2)
    train(tiny(model={"input_injection": injection}, schedule=schedule, steps=2), tmp_path / "run")
    line = "with 3 loops and num_grad_loops=2, no gradient: embed, positions"
    assert capsys.readouterr().err.count(line) == said
