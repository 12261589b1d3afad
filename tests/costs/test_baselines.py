"""Matched baselines are standard transformers of the cost they claim."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looped.config import ModelConfig
from looped.costs.baselines import ASPECT, TOLERANCE, match, standard
from looped.costs.count import effective_depth, flops, parameters
from looped.models import LoopedTransformer

LOOPED = ModelConfig(
    vocab_size=200, output_size=200, max_seq_len=32, d_model=64, num_loops=6, modulation="scale_gate", timestep="both",
    input_injection="concat", tie_embeddings=True, prelude_layers=1, coda_layers=2,
)  # fmt: skip


COSTS = {"parameters": parameters, "flops": lambda config: flops(config, config.max_seq_len)}


@pytest.mark.parametrize("by", COSTS)
def test_no_other_shape_is_better(by):
    found = match(LOOPED, by)
    cost, aim = COSTS[by], COSTS[by](LOOPED)
    assert found.ratio == cost(found.config) / aim
    every = [standard(LOOPED, layers, d) for layers, d in itertools.product(range(1, 65), range(4, 257, 4))]
    misses = {config: abs(math.log(cost(config) / aim)) for config in every}
    nearest = min(misses.values())
    assert abs(math.log(found.ratio)) <= max(nearest, TOLERANCE)

    def shape(config: ModelConfig) -> float:
        return abs(math.log(config.d_model / config.core_layers / ASPECT))

    near = [config for config, miss in misses.items() if miss <= max(nearest, TOLERANCE)]
    assert len(near) > 1
    assert shape(found.config) == min(map(shape, near))


@settings(deadline=None, max_examples=12)
@given(
    st.sampled_from(sorted(COSTS)), st.integers(1, 5), st.sampled_from([1, 2, 4]), st.integers(2, 24),
    st.sampled_from(["learned", "rotary", "sinusoidal", "none"]), st.sampled_from([None, 100]),
)  # fmt: skip
def test_a_match_is_standard_and_near(by, layers, heads, loops, positions, d_ff):
    looped = ModelConfig(
        vocab_size=50, output_size=50, max_seq_len=16, d_model=96, num_heads=heads, core_layers=layers,
        num_loops=loops, positions=positions, d_ff=d_ff, input_injection="add", loop_norm=True,
    )  # fmt: skip
    config, ratio = match(looped, by)
    assert (config.num_loops, config.modulation, config.input_injection) == (1, "none", "none")
    assert effective_depth(config) == config.core_layers
    assert config.num_heads == heads
    assert 0.9 < ratio < 1.1


def test_sizes_must_be_known():
    with pytest.raises(ValueError, match="vocab_size"):
        match(dataclasses.replace(LOOPED, vocab_size=None), "parameters")


@pytest.mark.parametrize("tied", [True, False])
def test_the_parameters_of_many_layers_are_those_of_the_built_model(tied):
    looped = dataclasses.replace(LOOPED, tie_embeddings=tied, bias=True, norm="layer", d_ff=100)
    for layers, d_model in [(3, 20), (9, 64)]:
        config = standard(looped, layers, d_model)
        assert parameters(config) == sum(p.numel() for p in LoopedTransformer(config).parameters())
