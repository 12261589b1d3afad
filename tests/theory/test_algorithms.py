"""The constructed models against the plain algorithms, loop by loop."""

import pytest
import torch

from looped.theory.algorithms import gradient_descent, newton_schulz, newton_tokens, query_mask


@pytest.mark.parametrize("preconditioned", [False, True])
def test_linear_attention_is_gradient_descent_after_every_loop(preconditioned):
    generator = torch.Generator().manual_seed(0)
    dim, examples, loops = 5, 40, 25
    mix = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    x = torch.randn(3, examples + 1, dim, generator=generator, dtype=torch.float64) @ mix
    truth = torch.randn(3, dim, generator=generator, dtype=torch.float64)
    y = torch.einsum("bnd,bd->bn", x, truth)
    step = torch.linalg.inv(mix.T @ mix) if preconditioned else 0.02 * torch.eye(dim, dtype=torch.float64)
    tokens = torch.cat([x, y[..., None]], dim=-1)
    tokens[:, -1, dim] = 0
    model = gradient_descent(step, examples, loops)
    assert sum(p.count_nonzero() for p in model.core.parameters()) <= 2 * (dim + 1) ** 2
    out = model(tokens, attention_mask=query_mask(3, examples), loop_logits="all").loop_logits[:, :, -1, 0]
    w = torch.zeros(3, dim, dtype=torch.float64)
    for t in range(loops):
        residual = y[:, :-1] - torch.einsum("bnd,bd->bn", x[:, :-1], w)
        w = w + torch.einsum("bnd,bn->bd", x[:, :-1], residual) @ step / examples
        expected = torch.einsum("bd,bd->b", x[:, -1], w)
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(out[t], expected, atol=1e-12, rtol=1e-12)
    if preconditioned:
        assert (out[-1] - y[:, -1]).abs().max() < 0.1 * y[:, -1].abs().max()


def test_newton_schulz_inverts():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    s = root @ root.T + torch.eye(6, dtype=torch.float64)
    tokens = newton_tokens(s)
    result = newton_schulz(6, 25)(tokens, loop_logits="all").loop_logits[:, 0].mT
    x = s / (s.abs().sum(0).max() * s.abs().sum(1).max())
    for t in range(25):
        x = 2 * x - x @ s @ x
        torch.testing.assert_close(result[t], x, atol=1e-12, rtol=1e-12)
    assert (result[3] - torch.linalg.inv(s)).abs().max() > 1e-2
    torch.testing.assert_close(result[-1], torch.linalg.inv(s), atol=1e-12, rtol=1e-12)
