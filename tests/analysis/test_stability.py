"""Power iteration against the eigenvalues and singular values of the whole Jacobian."""

import math

import pytest
import torch
from model_cases import VARIANTS, build, inputs_for
from tolerance import assert_close
from torch.func import jacrev

from looped.analysis.stability import alignment, disturbed_start, gaussian_start, jacobian_spectrum
from looped.analysis.states import states


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole_jacobian(step, state, attention_mask, example: int) -> torch.Tensor:
    """The derivative of one example's attended positions by themselves, as a square matrix."""
    full = jacrev(lambda h: step(h)[example])(state)[:, :, example]  # seq d seq d
    real = attention_mask[example]
    return full[real][:, :, real].flatten(2).flatten(0, 1)


@pytest.mark.parametrize("name", ["plain", "scale_gate", "prelude_coda", "inject_concat", "adaln_zero", "linear"])
def test_spectrum_of_models(name):
    config = VARIANTS[name]
    model, (inputs, attention_mask) = build(config), inputs_for(config, seq=4)
    loop = model.loop(inputs, attention_mask=attention_mask, num_loops=5)
    t, state = 3, states(loop, 5)[3]
    found = jacobian_spectrum(lambda h: loop.step(h, t), state, attention_mask, generator(), iterations=200)
    with torch.no_grad():
        for example in range(len(inputs)):
            matrix = whole_jacobian(lambda h: loop.step(h, t), state, attention_mask, example)
            assert len(matrix) == 16 * attention_mask[example].sum()
            radius = torch.linalg.eigvals(matrix).abs().max().item()
            assert radius > 0.1
            assert found.radius[example].item() == pytest.approx(radius, rel=0.03)
            norm = torch.linalg.matrix_norm(matrix, 2).item()
            assert norm > 1.05 * radius, "else one would do for both"
            assert found.norm[example].item() == pytest.approx(norm, rel=1e-3)


def test_a_complex_pair_oscillates_and_is_still_measured():
    """The map scales by 0.9 and turns by 1 radian, in a skewed basis; beside it are smaller real eigenvalues."""
    basis = torch.randn(6, 6, generator=generator(), dtype=torch.float64)
    turn = 0.9 * torch.tensor([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]], dtype=torch.float64)
    inner = torch.block_diag(turn, torch.diag(torch.tensor([0.5, -0.4, 0.3, 0.1], dtype=torch.float64)))
    matrix = basis @ inner @ torch.linalg.inv(basis)
    assert torch.linalg.eigvals(matrix).imag.abs().max() > 0.5
    state, attention_mask = torch.zeros(2, 3, 2, dtype=torch.float64), torch.ones(2, 3, dtype=torch.bool)

    def step(h):
        return (h.flatten(1) @ matrix.T).view_as(h)

    v, ratios = torch.randn(6, generator=generator(1), dtype=torch.float64), []
    for _ in range(200):
        v = v / v.norm()
        v = matrix @ v
        ratios.append(v.norm().item())
    assert max(ratios[-20:]) - min(ratios[-20:]) > 0.2, "plain power iteration must not settle"
    found = jacobian_spectrum(step, state, attention_mask, generator(), iterations=200)
    assert found.radius.tolist() == pytest.approx([0.9, 0.9], rel=0.01)
    assert found.norm.tolist() == pytest.approx([torch.linalg.matrix_norm(matrix, 2).item()] * 2)


def test_a_complex_pair_of_a_model():
    config = VARIANTS["plain"]
    model, (inputs, _) = build(config, seed=2), inputs_for(config, batch=2, seq=2)
    loop = model.loop(inputs, num_loops=5)
    state, attention_mask = states(loop, 5)[4], torch.ones(2, 2, dtype=torch.bool)
    with torch.no_grad():
        values = torch.linalg.eigvals(whole_jacobian(lambda h: loop.step(h, 4), state, attention_mask, 0))
    values = values[values.abs().argsort(descending=True)]
    assert values[0].imag.abs() > 0.05
    assert values[0].abs() > 1.05 * values[2].abs()
    found = jacobian_spectrum(lambda h: loop.step(h, 4), state, attention_mask, generator(), iterations=300)
    assert found.radius[0].item() == pytest.approx(values[0].abs().item(), rel=0.02)


def test_padding_has_no_part_in_the_spectrum():
    state = torch.zeros(1, 2, 2, dtype=torch.float64)
    gain = torch.tensor([0.5, 7.0], dtype=torch.float64)[:, None]
    for attention_mask, expected in (([True, False], 0.5), ([True, True], 7.0)):
        found = jacobian_spectrum(lambda h: gain * h, state, torch.tensor([attention_mask]), generator())
        assert found.radius.item() == pytest.approx(expected)
        assert found.norm.item() == pytest.approx(expected)


def test_a_loop_that_forgets_everything():
    state, attention_mask = torch.ones(1, 2, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool)
    found = jacobian_spectrum(lambda h: 0 * h, state, attention_mask, generator())
    assert (found.radius.item(), found.norm.item()) == (0, 0)


def test_alignment_counts_real_positions_alone():
    config = VARIANTS["inject_add"]
    model, (inputs, attention_mask) = build(config), inputs_for(config)
    loop = model.loop(inputs, attention_mask=attention_mask, num_loops=4)
    usual = states(loop, 4)
    other = states(loop, 4, gaussian_start(usual[-1], generator()))
    found = alignment(usual, other, attention_mask)
    assert not attention_mask.all()
    assert found.distance[0].isinf().all(), "the usual start is zero"
    for loops in range(1, 5):
        for example in range(3):
            a, b = (h[loops, example][attention_mask[example]].flatten() for h in (usual, other))
            assert (a - b).norm() > 1e-3
            assert found.distance[loops, example].item() == pytest.approx(((a - b).norm() / a.norm()).item())
            assert found.cosine[loops, example].item() == pytest.approx((a @ b / a.norm() / b.norm()).item())
    same = alignment(usual, usual, attention_mask)
    assert_close(same.cosine[1:], torch.ones(4, 3, dtype=torch.float64))


def test_starts_have_the_size_that_is_asked_for():
    last = 3 * torch.randn(4, 50, 40, generator=generator(), dtype=torch.float64)
    start = gaussian_start(last, generator(1))
    assert start.square().mean().sqrt().item() == pytest.approx(last.square().mean().sqrt().item(), rel=0.02)
    disturbed = disturbed_start(last, 0.1, generator(1))
    assert_close((disturbed - last).norm(dim=-1), 0.1 * last.norm(dim=-1))
    assert torch.equal(disturbed, disturbed_start(last, 0.1, generator(1)))
    assert not torch.equal(disturbed, disturbed_start(last, 0.1, generator(2)))
