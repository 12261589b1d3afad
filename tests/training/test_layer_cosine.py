from typing import Any

import pytest
import torch
from torch import nn
from training_cases import tiny

from looped.config import ModelConfig
from looped.nn.block import TransformerBlock
from looped.training import load_run, train
from looped.training.layer_cosine import layer_cosine


def layers(count: int, **more) -> Any:
    config = ModelConfig(d_model=16, num_heads=2, d_ff=24, bias=True, norm="layer", **more)
    torch.manual_seed(0)
    blocks = nn.ModuleList(TransformerBlock(config) for _ in range(count)).double()
    for weight in blocks.parameters():
        nn.init.normal_(weight)
    return blocks


def by_definition(blocks: Any, k: int) -> float:
    """The printed sums over i and j, with the matrices of each role taken out by hand."""
    n = len(blocks)
    roles = {
        "query": lambda b: b.attention.qkv.weight[:16],
        "key": lambda b: b.attention.qkv.weight[16:32],
        "value": lambda b: b.attention.qkv.weight[32:],
        "output": lambda b: b.attention.project.weight,
        "up": lambda b: b.feedforward.up.weight[-24:],
        "down": lambda b: b.feedforward.down.weight,
    }
    if blocks[0].feedforward.gated:
        roles["gate"] = lambda b: b.feedforward.up.weight[:24]
    total = 0.0
    for role in roles.values():
        for i in range(n // k - 1):
            for j in range(k):
                a, b = (role(blocks[layer]).flatten() for layer in (i * k + j, (i + 1) * k + j))
                total += (a @ b / (a.norm() * b.norm())).item() / (n - k)
    return total / len(roles)


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize(("n", "k"), [(2, 1), (4, 1), (4, 2), (6, 2), (6, 3)])
def test_it_equals_the_published_formula(n, k, activation):
    blocks = layers(n, activation=activation)
    assert layer_cosine(blocks, k).item() == pytest.approx(by_definition(blocks, k), abs=1e-12)


def test_the_scale_of_a_layer_does_not_matter():
    blocks = layers(6)
    before = layer_cosine(blocks, 2).item()
    assert abs(before) < 0.1  # random matrices are nearly orthogonal
    with torch.no_grad():
        for scale, block in enumerate(blocks, start=1):
            for weight in block.parameters():
                weight *= scale if weight.ndim == 2 else -scale  # norms and biases do not count
    assert layer_cosine(blocks, 2).item() == pytest.approx(before, abs=1e-12)


def test_layers_that_repeat_with_period_k_have_1():
    blocks = layers(6)
    for later, block in zip(blocks[2:], blocks, strict=False):
        later.load_state_dict(block.state_dict())
    assert layer_cosine(blocks, 2).item() == pytest.approx(1)
    assert abs(layer_cosine(blocks, 1).item()) < 0.1


def test_the_gradient_is_orthogonal_to_each_layer_and_right():
    blocks = layers(4)
    layer_cosine(blocks, 2).backward()
    matrices = [(name, w) for name, w in blocks.named_parameters() if w.ndim == 2]
    assert matrices
    for name, weight in matrices:
        assert weight.grad is not None
        assert weight.grad.norm() > 1e-4, name
        assert abs((weight.grad * weight).sum()) < 1e-12, name
    assert all(w.grad is None for w in blocks.parameters() if w.ndim == 1)
    weight, step = blocks[1].attention.project.weight, 1e-6
    direction = torch.randn_like(weight)
    expected = (weight.grad * direction).sum().item()
    with torch.no_grad():
        ends = []
        for sign in (1, -2):
            weight += sign * step * direction
            ends.append(layer_cosine(blocks, 2).item())
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("k", [0, 3, 4, 8])
def test_k_must_divide_the_layers_and_be_smaller(k):
    with pytest.raises(ValueError, match=f"k={k}: expected a divisor of 4 layers, smaller than 4"):
        layer_cosine(layers(4), k)


@pytest.mark.parametrize("weight", [0.0, 10.0])
def test_training_makes_layers_similar_only_with_the_regulariser(weight, tmp_path):
    regularisers = (("cosine:2", weight),) if weight else ()
    run = tiny(
        model={"core_layers": 4, "num_loops": 1},
        optim={"learning_rate": 1e-2},
        steps=30,
        eval_every=30,
        regularisers=regularisers,
    )
    train(run, tmp_path / "run")
    _, model, _ = load_run(tmp_path / "run")
    cosine = layer_cosine(model.core, 2).item()
    assert cosine > 0.9 if weight else cosine < 0.3


@pytest.mark.parametrize("argument", ["", "x", "-1", "3", "4"])
def test_a_run_with_an_impossible_period_is_refused(argument, tmp_path):
    run = tiny(model={"core_layers": 4}, regularisers=((f"cosine:{argument}", 1.0),))
    with pytest.raises(ValueError, match=f"train.regularisers='cosine:{argument}': expected cosine:K with K below"):
        train(run, tmp_path / "run")
