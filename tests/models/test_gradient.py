"""The weights that a truncated gradient does not reach, against autograd, for every combination of the options."""

import dataclasses
import itertools

import pytest
import torch
from model_cases import TINY, build, gradients, inputs_for

from looped.models.gradient import without_gradient

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = {
    "input_injection": ["none", "add", "concat"],
    "modulation": ["none", "scale_gate", "table"],
    "prelude_layers": [0, 1],
    "tie_embeddings": [False, True],
    "positions_every_loop": [False, True],
    "embedding_norm": [False, True],
    "cache": ["all", "first"],
}


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("injection", OPTIONS["input_injection"])
def test_parts_without_gradient_are_those_of_autograd(injection, window):
    inputs, mask = inputs_for(TINY, batch=2, seq=4)
    for values in itertools.product(*list(OPTIONS.values())[1:]):
        options = dict(zip(list(OPTIONS)[1:], values, strict=True)) | {"input_injection": injection}
        options |= {"max_loops": 3} if options["modulation"] == "table" else {}
        config = dataclasses.replace(TINY, num_loops=3, output_size=11, coda_layers=1, **options)
        model = build(config)
        output = model(inputs, attention_mask=mask, num_grad_loops=window)
        found = gradients(model, output.logits.square().sum())
        expected = set()
        for name, parameter in model.named_parameters():
            gradient = found.get(name, torch.zeros_like(parameter))
            if name == "core.0.attention.qkv.weight":
                assert gradient[: len(gradient) // 3].abs().max() > 0, "queries are computed in every loop"
                expected |= set() if gradient[len(gradient) // 3 :].abs().max() > 0 else {"keys"}
            elif name == "modulation.table":
                expected |= {f"rows 1 to {int(row) + 1}" for row in (gradient.abs().amax((1, 2)) == 0).nonzero()[-1:]}
            elif gradient.abs().max() == 0:
                expected.add(name.partition(".")[0])
        named = without_gradient(config, 3, window)
        assert {part.partition(" of ")[0].replace("keys and values", "keys") for part in named} == expected, options
        assert without_gradient(config, 3, 3) == []
