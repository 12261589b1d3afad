"""Weights from a file are of the model's shapes and of a floating-point type, and finite; anything else is refused."""

import dataclasses
import re

import pytest
import torch
from model_cases import TINY, build, inputs_for
from safetensors.torch import load_file, save_file

from looped.models import LoopedModel, LoopedTransformer
from looped.models.weights import WEIGHTS, load_weights, write_tensors

NAME = "core.0.feedforward.up.weight"


@pytest.fixture
def saved(tmp_path):
    """A folder with a model of float32, and its tensors."""
    LoopedTransformer(TINY, seed=1).save(tmp_path)
    return tmp_path, load_file(tmp_path / WEIGHTS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floating_point_types_become_the_models(saved, dtype):
    folder, tensors = saved
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, folder / WEIGHTS)
    for name, weight in LoopedTransformer.load(folder).state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, tensors[name].to(dtype).float())
    model = build(TINY)  # of float64
    model.load_weights(folder)
    assert model.state_dict()[NAME].dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("all_of_them", [True, False])
def test_other_types_are_refused(saved, dtype, all_of_them):
    folder, tensors = saved
    cast = {name: tensor.to(dtype) if all_of_them or name == NAME else tensor for name, tensor in tensors.items()}
    save_file(cast, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        LoopedTransformer.load(folder)
    first = next(iter(LoopedTransformer(TINY).state_dict())) if all_of_them else NAME
    kind = str(dtype).removeprefix("torch.")
    assert str(error.value) == f"{folder / WEIGHTS}: tensor {first}: is of type {kind}; expected float32"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e39, -1e300])
def test_values_that_are_not_finite_in_the_models_type_are_refused(saved, value):
    """1e39 is finite in float64, but not in float32."""
    folder, tensors = saved
    tensors = {name: tensor.double() for name, tensor in tensors.items()}
    tensors[NAME].view(-1)[-3] = value
    save_file(tensors, folder / WEIGHTS)
    model = LoopedTransformer(TINY)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        model.load_weights(folder)
    expected = "holds NaN, infinity or a value too large for torch.float32; expected finite numbers"
    assert str(error.value) == f"{folder / WEIGHTS}: tensor {NAME}: {expected}"
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{}", "vocab_size=None: expected a size; a model needs it before it can be built"),
        ("[]", "expected an object, not list"),
        ('{"d_model": "64"}', "model.d_model='64': expected int, not str"),
    ],
)
def test_a_wrong_configuration_names_its_file(tmp_path, content, expected):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ValueError, match=f"^{tmp_path}/model.json.*{re.escape(expected)}$"):
        LoopedTransformer.load(tmp_path)


def test_shared_weights_are_equal_under_all_their_names(tmp_path):
    tied = dataclasses.replace(TINY, tie_embeddings=True, output_size=11)
    untied = LoopedTransformer(dataclasses.replace(tied, tie_embeddings=False))
    untied.save(tmp_path)
    model = LoopedTransformer(tied, seed=3)
    with pytest.raises(ValueError, match=r"embed\.weight and head\.weight differ; expected equal values"):
        model.load_weights(tmp_path)
    with torch.no_grad():
        untied.head.weight.copy_(untied.embed.weight)
    save_file({name: tensor.clone() for name, tensor in untied.state_dict().items()}, tmp_path / WEIGHTS)
    model.load_weights(tmp_path)
    tokens, mask = inputs_for(TINY)
    assert torch.equal(model(tokens, attention_mask=mask).logits, untied(tokens, attention_mask=mask).logits)
    model.save(tmp_path)  # one name
    with pytest.raises(ValueError, match=r"of another architecture: \w+\.weight is absent here"):
        untied.load_weights(tmp_path)


def test_buffers_of_integers_stay_integers(tmp_path):
    """A module of your own may count; only the same type is then right."""

    class Counts(torch.nn.Module):
        calls: torch.Tensor

        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)
            self.register_buffer("calls", torch.tensor([7]))
            self.register_buffer("nothing", torch.zeros(0))

        def forward(self, x, context):
            return self.linear(x)

    def made(core: Counts) -> LoopedModel:
        return LoopedModel(embed=torch.nn.Embedding(3, 4), core=[core], head=torch.nn.Linear(4, 3))

    counts, others = Counts(), Counts()
    model, other = made(counts), made(others)
    counts.calls += 2
    model.save(tmp_path)
    other.load_weights(tmp_path)
    assert others.calls.item() == 9
    tensors = load_file(tmp_path / WEIGHTS)
    save_file(tensors | {"core.0.calls": torch.tensor([9.0])}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=r"core\.0\.calls: is of type float32; expected int64"):
        load_weights(other, tmp_path)


def test_tensors_are_written_as_the_library_does(tmp_path):
    tensors = {
        "b/step": torch.tensor(3.0), "b": torch.randn(3, 5), "a": torch.randn(7).bfloat16(), "transposed":
        torch.randn(4, 3).T, "none": torch.zeros(0, 3), "count": torch.arange(3), "mask": torch.tensor([True, False]),
    }  # fmt: skip
    write_tensors(tmp_path / "ours", tensors, {"format": "pt"})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "theirs", {"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
