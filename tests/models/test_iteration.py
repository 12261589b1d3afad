"""`iterate` by itself, on states that are not the library's, against a loop written out."""

import itertools

import pytest
import torch
from tolerance import assert_close
from torch import nn

from looped.models.iteration import iterate

pytestmark = pytest.mark.usefixtures("one_thread")
MODES = ["none", "loop", "nested"]


def image_step(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Conv2d(3, 3, 3, padding=1).double()


def weight_gradient(module: nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters())))


@pytest.mark.parametrize("recompute", MODES)
@pytest.mark.parametrize("window", [None, 1, 4])
def test_state_is_an_image(recompute, window):
    conv, start = image_step(), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    states, state = [], start
    for t in range(7):
        if window is not None and t == 7 - window:
            state = state.detach()
        state = (conv(state) + t).tanh()
        states.append(state)
    expected = weight_gradient(conv, state.square().sum())
    full = weight_gradient(conv, iterate(lambda s, t: (conv(s) + t).tanh(), start, 7).state.square().sum())
    assert window is None or not torch.equal(expected[0], full[0]), "the window must matter"
    out = iterate(lambda s, t: (conv(s) + t).tanh(), start, 7, num_grad_loops=window, recompute=recompute, keep=(2, 6))
    assert (out.num_loops, list(out.kept)) == (7, [2, 6])
    assert_close(out.state, state)
    for n, kept in out.kept.items():
        assert_close(kept, states[n - 1])
    for got, wanted in zip(weight_gradient(conv, out.state.square().sum()), expected, strict=True):
        assert_close(got, wanted)


@pytest.mark.parametrize("recompute", MODES)
def test_state_is_a_tuple_of_different_shapes(recompute):
    """Two states that feed each other, as in hierarchical reasoning models."""
    torch.manual_seed(0)
    down, up = nn.Linear(6, 4).double(), nn.Linear(4, 6).double()

    def step(state: tuple[torch.Tensor, torch.Tensor], t: int) -> tuple[torch.Tensor, torch.Tensor]:
        high, low = state
        low = (low + down(high)).tanh()
        return (high + up(low)).tanh(), low

    state = start = torch.randn(3, 6, dtype=torch.float64), torch.zeros(3, 2, 4, dtype=torch.float64)[:, 0]
    for t in range(5):
        state = step(state, t)
    parts = nn.ModuleList([down, up])
    expected = weight_gradient(parts, state[0].square().sum())
    out = iterate(step, start, 5, recompute=recompute, keep=(5,))
    assert_close(out.state[1], state[1])
    assert_close(out.kept[5][0], state[0])
    for got, wanted in zip(weight_gradient(parts, out.state[0].square().sum()), expected, strict=True):
        assert wanted.abs().max() > 0
        assert_close(got, wanted)


@pytest.mark.parametrize(("mode", "other"), list(itertools.combinations(MODES, 2)))
def test_recomputation_repeats_the_draws_of_a_random_step(mode, other):
    """Dropout inside the loop: the gradients with and without recomputation are the same."""
    conv, start = image_step(), torch.randn(2, 3, 5, 4, dtype=torch.float64)

    def gradient(recompute, seed):
        torch.manual_seed(seed)
        out = iterate(lambda s, t: nn.functional.dropout(conv(s), 0.3).tanh(), start, 6, recompute=recompute)
        return weight_gradient(conv, out.state.square().sum())

    assert not torch.equal(gradient(mode, 1)[0], gradient(mode, 2)[0]), "the draws must matter"
    for got, wanted in zip(gradient(mode, 1), gradient(other, 1), strict=True):
        assert_close(got, wanted)


def test_until_ends_the_loop():
    seen: list[float] = []

    def step(x: torch.Tensor, t: int) -> torch.Tensor:
        seen.append(float(x / 2))
        return x / 2

    out = iterate(step, torch.tensor(8.0), 50, keep=(1, 3, 40), until=lambda: seen[-1] < 1)
    assert (out.num_loops, float(out.state)) == (4, 0.5)
    assert {n: float(x) for n, x in out.kept.items()} == {1: 4.0, 3: 1.0}


@pytest.mark.parametrize("options", [{"recompute": "loop"}, {"num_grad_loops": 1}])
def test_until_needs_every_loop_with_gradient(options):
    with pytest.raises(ValueError, match="until: expected neither"):
        iterate(lambda x, t: x, torch.zeros(1), 3, until=lambda: True, **options)


def test_counts_out_of_range():
    with pytest.raises(ValueError, match="num_loops=0: expected at least 1"):
        iterate(lambda x, t: x, torch.zeros(1), 0)
    with pytest.raises(ValueError, match="num_grad_loops=4: expected 1 to num_loops=3"):
        iterate(lambda x, t: x, torch.zeros(1), 3, num_grad_loops=4)


def test_unknown_choices_and_loops_to_keep():
    with pytest.raises(ValueError, match="recompute='nestd': expected none, loop or nested"):
        vars(iterate)["__wrapped__"](lambda x, t: x, torch.zeros(1), 3, recompute="nestd")
    with pytest.raises(ValueError, match=r"keep=\[0, 2\]: expected loop numbers from 1 to num_loops=3"):
        iterate(lambda x, t: x, torch.zeros(1), 3, keep=[0, 2])
    assert list(iterate(lambda x, t: x + 1, torch.zeros(1), 3, keep=[2, 2]).kept) == [2]
