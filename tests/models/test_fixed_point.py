"""Gradients at the fixed point of a loop, in float64, against unrolling, finite differences and closed forms."""

import dataclasses
from typing import Any

import pytest
import torch

from looped.cli import main
from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.models.fixed_point import FixedPointGradient, fixed_point
from looped.models.transformer import LoopedTransformer
from looped.recipes import complete
from looped.run_folder import MetricsRow, TrainRow, read_rows
from looped.tasks.edit_distance import EditDistanceConfig
from looped.training.trainer import train

IMPLICIT = FixedPointGradient("implicit")


def contraction(radius: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """W with its largest singular value `radius`, and b. The loop is z <- tanh(W z + b)."""
    rng = torch.Generator().manual_seed(seed)
    w = torch.randn(6, 6, generator=rng, dtype=torch.double)
    w = w / torch.linalg.matrix_norm(w, 2) * radius
    return w.requires_grad_(), (0.3 * torch.randn(6, generator=rng, dtype=torch.double)).requires_grad_()


def gradients(radius: float, gradient: FixedPointGradient | None, loops: int = 400) -> torch.Tensor:
    w, b = contraction(radius)
    state = torch.zeros(6, dtype=torch.double)

    def step(z: torch.Tensor, t: int) -> torch.Tensor:
        return (w @ z + b).tanh()

    if gradient is None:
        for t in range(loops):
            state = step(state, t)
    else:
        state, _ = fixed_point(step, state, loops, gradient)
    state.pow(3).sum().backward()
    assert w.grad is not None
    assert b.grad is not None
    return torch.cat([w.grad.flatten(), b.grad])


@pytest.mark.parametrize("radius", [0.5, 0.9])
def test_the_implicit_gradient_is_that_of_unrolling(radius: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("looped.models.fixed_point.TOLERANCE", 1e-13)
    exact = gradients(radius, dataclasses.replace(IMPLICIT, terms=1000))
    torch.testing.assert_close(exact, gradients(radius, None), rtol=1e-8, atol=1e-12)


def test_the_bias_of_other_gradients_falls_with_their_terms():
    exact = gradients(0.9, None)
    series = [gradients(0.9, FixedPointGradient("neumann", k)) for k in (1, 2, 4, 8, 64)]
    bias = [((g - exact).norm() / exact.norm()).item() for g in series]
    assert bias == sorted(bias, reverse=True)
    assert bias[0] > 0.1  # one step is not the gradient
    assert bias[-1] < 1e-2
    assert series[0] @ exact > 0
    phantom = gradients(0.9, FixedPointGradient("phantom", 4, 1.0))
    torch.testing.assert_close(phantom, series[2], rtol=1e-9, atol=1e-12)  # equal at a fixed point
    damped = gradients(0.9, FixedPointGradient("phantom", 4, 0.5))
    assert ((damped - exact).norm() / exact.norm()) > bias[2]  # damped loops see less of the series


def test_a_loop_that_does_not_contract_says_so():
    w = torch.diag(torch.tensor([1.5, 0.5], dtype=torch.double)).requires_grad_()
    start = torch.zeros(2, dtype=torch.double)
    z, facts = fixed_point(lambda z, t: w @ z, start, 5, IMPLICIT)
    z.sum().backward()
    assert not facts.converged
    assert 1 < facts.terms < IMPLICIT.terms  # the series grows
    torch.testing.assert_close(w.grad, z.detach()[None].expand(2, 2))  # one step: d sum(w z) / dw
    z, facts = fixed_point(lambda z, t: 0.5 * w @ z, torch.zeros(2, dtype=torch.double), 5, IMPLICIT)
    z.sum().backward()
    assert facts.converged


CONFIG = ModelConfig(
    vocab_size=5, output_size=3, max_seq_len=4, d_model=16, num_heads=2, positions="none", input_injection="add",
    loop_norm=True, initialisation="pytorch",
)  # fmt: skip
TOKENS = torch.tensor([[1, 4, 2, 0], [3, 3, 1, 2]])


@pytest.mark.parametrize("native", [False, True])
def test_every_parameter_of_a_model(native: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("looped.models.fixed_point.TOLERANCE", 1e-13)
    model = LoopedTransformer(CONFIG, seed=1).double()
    unrolled = model(TOKENS, num_loops=201).logits
    wanted = torch.autograd.grad(unrolled.logsumexp(-1).sum(), tuple(model.parameters()))
    if native:
        model.use_native()
    output = model(TOKENS, num_loops=200, gradient=IMPLICIT)
    found = torch.autograd.grad(output.logits.logsumexp(-1).sum(), tuple(model.parameters()))
    torch.testing.assert_close(output.logits, unrolled, rtol=1e-10, atol=1e-12)
    for (name, _), one, other in zip(model.named_parameters(), found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10, msg=name)
    assert output.fixed_point is not None
    assert output.fixed_point.converged


@pytest.mark.parametrize(
    "gradient", [IMPLICIT, FixedPointGradient("neumann", 2), FixedPointGradient("phantom", 2, 0.5)]
)
def test_memory_does_not_grow_with_the_loops(gradient: FixedPointGradient):
    model = LoopedTransformer(CONFIG, seed=1)

    def saved(loops: int) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
            model(TOKENS, num_loops=loops, gradient=gradient)
        return sum(sizes)

    assert saved(4) == saved(64) > 0


@pytest.mark.parametrize(("initialisation", "converges"), [("pytorch", True), ("gpt2", False)])
def test_a_run_says_how_far_it_is_from_a_fixed_point(initialisation: Any, converges: bool, tmp_path):
    run = RunConfig(
        task=EditDistanceConfig(length=4, min_letters=2, max_letters=2),
        optim=OptimConfig(warmup_steps=0),
        model=ModelConfig(d_model=16, num_heads=2, num_loops=8, input_injection="add", loop_norm=True,
                          initialisation=initialisation),
        train=TrainConfig(steps=4, batch_size=8, log_every=2, eval_every=4, eval_examples=8, workers=0,
                          gradient="implicit", accumulation=2, precision="fp32"),
    )  # fmt: skip
    train(complete(run), tmp_path / "run")
    rows = [row for row in read_rows(tmp_path / "run", MetricsRow) if isinstance(row, TrainRow)]
    assert all(row.residual is not None and 0 < row.residual < 1 and row.num_grad_loops == 1 for row in rows)
    assert all((row.unconverged == 0) == converges for row in rows)


ONE_STEP = "--train.gradient neumann --train.gradient-terms 1 --model.input-injection add"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--train.gradient implicit", "model.input_injection='none': expected add or concat"),
        ("--train.gradient neumann --model.input-injection add", "gradient_terms=None: expected at least 1"),
        ("--train.gradient-terms 3", "gradient_terms=3: has no effect when gradient='unroll'"),
        ("--train.gradient implicit --model.input-injection add", "train.precision='auto': expected 'fp32'"),
        (
            "--train.gradient neumann --train.gradient-terms 1 --model.input-injection add --train.loss all",
            "train.loss='all': expected 'last'",
        ),
        (
            f"{ONE_STEP} --model.modulation scale_gate",
            "model.modulation=",
        ),
    ],
)
def test_settings_without_a_fixed_point(words: str, says: str, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "lcs", *words.split()]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
