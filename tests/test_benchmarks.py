"""The plain reference computes the library's function, and recomputation keeps the memory that it promises."""

import pytest
import torch
from tolerance import assert_close

from benchmarks.reference import PublishedTMLT, copy_weights
from benchmarks.training_step import VOCAB, config, peak_states
from looped.models import LoopedTransformer


def test_reference_and_library_agree_in_outputs_and_gradients():
    torch.manual_seed(0)
    reference = PublishedTMLT(VOCAB, 126, 32, 4, 3).double()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model = LoopedTransformer(config(3, 32)).double()
    copy_weights(reference, model)
    inputs = torch.randint(VOCAB, (2, 20))
    expected, actual = reference(inputs), model(inputs).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)  # the timestep's sinusoids are float32
    expected.square().sum().backward()
    actual.square().sum().backward()
    assert model.core[0].feedforward.up.weight.grad.abs().max() > 0.1
    wanted = reference.block.up.weight.grad
    torch.testing.assert_close(model.core[0].feedforward.up.weight.grad, wanted, rtol=1e-4, atol=1e-4)
    assert_close(model.head.weight, reference.head.weight)


@pytest.mark.parametrize("recompute", ["none", "loop", "nested"])
def test_memory_of_recomputation(recompute):
    few, many = (peak_states(n, recompute, seq=32, d_model=32) for n in (8, 64))
    per_loop = (many - few) / 56
    if recompute == "none":
        assert per_loop > 15
    elif recompute == "loop":
        assert 0.5 < per_loop < 1.2
    else:
        assert many < 1.5 * few
