"""Moduli against functions whose moduli are known in closed form, and every side as labelled."""

import math

import pytest
import torch
from theory_cases import waves
from torch import nn

from looped.theory.continuity import (
    KINDS,
    between_grid,
    lipschitz_upper,
    local_lipschitz,
    of_samples,
    on_grid,
    search,
)

A = torch.tensor([[1.0, 0.5], [-0.3, 0.8]], dtype=torch.float64)
B = torch.tensor([[0.4, -0.2], [0.7, 0.9]], dtype=torch.float64)
NORM = lambda m: float(torch.linalg.matrix_norm(m, 2))  # noqa: E731
DELTA, SEQ = 0.1, 3

KNOWN = {
    "linear": (2, lambda x: x @ A.T + x.mean(1, keepdim=True) @ B.T, {
        "token": NORM(A + B / SEQ) * DELTA, "contextual": NORM(B) * math.sqrt(SEQ - 1) / SEQ * DELTA,
        "sequence": max(NORM(A), NORM(A + B)) * DELTA}),
    "sine": (1, lambda x: torch.sin(5 * x), {
        "token": 2 * math.sin(5 * DELTA / 2), "contextual": 0.0,
        "sequence": 2 * math.sqrt(SEQ) * math.sin(5 * DELTA / (2 * math.sqrt(SEQ)))}),
    "maximum": (1, lambda x: x.amax(1, keepdim=True).expand_as(x), {
        "token": DELTA, "contextual": DELTA, "sequence": math.sqrt(SEQ) * DELTA}),
    "product": (1, lambda x: x * (x.sum(1, keepdim=True) - x) / (SEQ - 1), {
        "token": DELTA, "contextual": DELTA / math.sqrt(SEQ - 1)}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", KNOWN)
def test_search_finds_what_is_known_and_never_more(name, kind):
    dim, f, known = KNOWN[name]
    if kind not in known:
        return
    found = search(f, kind, DELTA, seq=SEQ, dim=dim)
    assert found.side == "lower bound"
    assert found.value <= known[kind] * (1 + 1e-9) + 1e-12
    assert found.value >= known[kind] * 0.999
    assert found.pair is not None
    x, other = found.pair
    assert float((x - other).norm()) <= DELTA * (1 + 1e-9)
    assert 0 <= torch.stack([x, other]).min() <= torch.stack([x, other]).max() <= 1


@pytest.mark.parametrize("seq", [1, 2, 4])
@pytest.mark.parametrize(("frequency", "delta"), [(5.0, 0.7), (2 * math.pi, 0.7), (8.0, 0.9), (math.pi, 1e300)])
def test_search_finds_pairs_that_are_nearer_than_delta(seq, frequency, delta):
    """A sine changes most over half a period, pi / frequency, which is less than delta."""
    found = search(lambda x: torch.sin(frequency * x), "token", delta, seq=seq, dim=1)
    known = 2.0 if frequency > 4 else 1.0
    assert known * (1 - 1e-6) <= found.value <= known * (1 + 1e-12)


def test_search_goes_on_until_it_stops_growing():
    """Few random pairs miss the narrow peak at first; more repetitions find it."""
    peak = lambda x: x + torch.exp(-((50 * (x - 0.77)) ** 2))  # noqa: E731
    found = search(peak, "token", 0.05, seq=1, dim=1, samples=8, steps=4, seed=2)
    fine = on_grid(peak, "token", 0.05, seq=1, dim=1, grid=10_000).value
    assert found.value == pytest.approx(fine, rel=0.01)


def test_grid_takes_the_largest_norm():
    """sup |f(x) - f(y)|_inf of x and 2 x, of two tokens at once, at a distance of a quarter in each coordinate."""
    double = lambda x: torch.cat([x, 2 * x], dim=-1)  # noqa: E731
    for p, value in ((math.inf, 0.5), (1.0, 1.5), (2.0, math.sqrt(2 * 5) / 4)):
        found = on_grid(double, "sequence", math.sqrt(2) / 4, seq=2, dim=1, grid=4, p=p)
        assert found.value == pytest.approx(value)
    assert on_grid(double, "sequence", 1e300, seq=1, dim=1, grid=4).value == pytest.approx(math.sqrt(5))


def test_search_without_gradient_and_without_lipschitz_constant():
    root = lambda x: (x - 0.5).abs().sqrt()  # noqa: E731
    found = search(root, "token", 0.01, seq=2, dim=1)
    assert 0.97 * 0.1 <= found.value <= 0.1 * (1 + 1e-9)
    rough = search(lambda x: KNOWN["linear"][1](x.detach()), "token", DELTA, seq=SEQ, dim=2)
    assert 0.99 <= rough.value / KNOWN["linear"][2]["token"] <= 1 + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_grid_and_search_enclose_the_modulus(kind):
    grid, delta = 24, 0.125
    lower = lambda d: on_grid(waves, kind, d, seq=2, dim=1, grid=grid).value  # noqa: E731
    lipschitz = math.pi + math.pi / 2
    upper = between_grid(lower, delta, lipschitz, axes=2, grid=grid)
    found = search(waves, kind, delta, seq=2, dim=1)
    assert 0 < lower(delta) <= found.value * (1 + 1e-6)
    assert found.value <= upper.value < 2 * found.value + 0.5
    assert upper.side == "upper bound"


def test_grid_by_brute_force():
    ticks = torch.arange(6, dtype=torch.float64) / 5
    points = torch.cartesian_prod(ticks, ticks)[..., None]
    values = waves(points)
    for kind in KINDS:
        samples = of_samples(points, values, kind, 0.29).value
        assert samples > 0
        assert samples == pytest.approx(on_grid(waves, kind, 0.29, seq=2, dim=1, grid=5).value)


def test_lipschitz_constants_enclose():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    x = torch.rand(50, 3, 2, dtype=torch.float64)
    local = local_lipschitz(network, "token", x)
    found = search(network, "token", 0.1, seq=3, dim=2)
    assert local.side == "lower bound"
    assert 0 < found.value <= lipschitz_upper(network) * 0.1
    assert local.value <= lipschitz_upper(network)
    assert local_lipschitz(network, "contextual", x).value == 0
    linear = local_lipschitz(KNOWN["linear"][1], "sequence", x[:2])
    assert linear.value == pytest.approx(max(NORM(A), NORM(A + B)))
    with pytest.raises(ValueError, match="GELU"):
        lipschitz_upper(nn.Sequential(nn.GELU()))


def test_bad_input():
    with pytest.raises(ValueError, match="delta=0"):
        search(waves, "token", 0.0, seq=2, dim=1)
    with pytest.raises(ValueError, match=r"p=0\.5"):
        search(waves, "token", 0.1, seq=2, dim=1, p=0.5)
    with pytest.raises(ValueError, match="grid=100"):
        on_grid(waves, "token", 0.1, seq=9, dim=1, grid=100)
