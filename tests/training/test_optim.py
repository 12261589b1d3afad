import copy

import torch

from looped.config import ModelConfig, OptimConfig
from looped.models.transformer import LoopedTransformer
from looped.training.optim import WeightAverage, make_optimizers

CONFIG = ModelConfig(
    vocab_size=5, output_size=3, max_seq_len=4, d_model=16, num_heads=2, num_loops=2,
    norm="layer", bias=True, modulation="scale_gate",
)  # fmt: skip


def decayed(decay) -> tuple[set[str], set[str]]:
    model = LoopedTransformer(CONFIG)
    names = {parameter: name for name, parameter in model.named_parameters()}
    (adamw,) = make_optimizers(model, OptimConfig(decay=decay, weight_decay=0.3))
    groups = adamw.param_groups
    assert sum(len(group["params"]) for group in groups) == len(names)
    by_decay = {group["weight_decay"]: {names[p] for p in group["params"]} for group in groups}
    return by_decay[0.3], by_decay[0.0]


def test_decay_on_matrices_only():
    yes, no = decayed("matrices")
    shapes = {name: parameter.ndim for name, parameter in LoopedTransformer(CONFIG).named_parameters()}
    assert all(shapes[name] >= 2 for name in yes)
    assert all(shapes[name] == 1 for name in no)
    assert {"positions.table", "embed.weight", "head.weight"} <= yes
    assert {"norm.weight", "head.bias"} <= no


def test_published_decay_spares_biases_only():
    yes, no = decayed("all_but_bias")
    assert "norm.weight" in yes
    assert all(name.endswith("bias") for name in no)
    assert not any(name.endswith("bias") for name in yes)


def test_shared_weights_count_once():
    config = ModelConfig(vocab_size=5, output_size=5, max_seq_len=4, d_model=16, num_heads=2, tie_embeddings=True)
    model = LoopedTransformer(config)
    groups = make_optimizers(model, OptimConfig())[0].param_groups
    assert sum(p.numel() for group in groups for p in group["params"]) == sum(p.numel() for p in model.parameters())


def test_muon_takes_the_matrices_of_the_layers_and_orthogonalises_their_updates():
    model = LoopedTransformer(CONFIG)
    names = {parameter: name for name, parameter in model.named_parameters()}
    adamw, muon = make_optimizers(model, OptimConfig(optimizer="muon", weight_decay=0.0))
    taken = {names[p] for group in muon.param_groups for p in group["params"]}
    assert taken == {name for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("core.")}
    left = {names[p] for group in adamw.param_groups for p in group["params"]}
    assert left == set(names.values()) - taken
    weight = model.get_parameter("core.0.feedforward.up.weight")  # 64 x 16
    before = weight.detach().clone()
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 0, 16)
    assert torch.linalg.svdvals(weight.grad).aminmax().min < 0.05 * torch.linalg.svdvals(weight.grad).max()
    muon.step()
    change = torch.linalg.svdvals((weight - before).detach())
    assert change.min() > 0.5 * change.max()  # all singular values about equal, whatever those of the gradient were


def test_average_is_the_naive_formula():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(model, decay=0.8)
    naive = copy.deepcopy(model.state_dict())
    for _ in range(10):
        with torch.no_grad():
            model.weight += torch.randn(2, 3)
        average.update()
        naive = {name: 0.8 * naive[name] + 0.2 * weight for name, weight in model.state_dict().items()}
    assert not torch.allclose(naive["weight"], model.weight)
    torch.testing.assert_close(average.state_dict(), dict(naive))


def test_average_is_applied_for_a_while():
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(model, decay=0.5)
    kept = average.weights["weight"].clone()
    with torch.no_grad():
        model.weight += 1
    own = model.weight.detach().clone()
    with average.applied():
        assert torch.equal(model.weight, kept)
    assert torch.equal(model.weight, own)
    assert torch.equal(average.weights["weight"], kept)
    other = WeightAverage(torch.nn.Linear(3, 2), decay=0.5)
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.weights["weight"], kept)
