"""Values that the public functions of a model cannot use give one line that names them, and never an error of torch."""

import dataclasses
import itertools

import jaxtyping
import pytest
import torch
from model_cases import TINY, VARIANTS, build

from looped.models import (
    Fixed,
    KLDivergence,
    LoopedTransformer,
    Sampling,
    StateChange,
    Unchanged,
    generate,
    memory,
    parse_rule,
)

CAUSAL = dataclasses.replace(TINY, causal=True, output_size=11)
TOKENS = torch.arange(12).reshape(2, 6) % 11
VECTORS = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def as_a_user():
    """Without the checks of types that the other tests have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def refused(call, says: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        call()
    assert says in str(error.value)


@pytest.mark.parametrize("value", [0, -1, True, False, 2.5, 2.0, "3", float("nan"), float("inf"), [1]])
def test_numbers_of_loops_and_sizes_are_positive_whole_numbers(value):
    model = LoopedTransformer(CAUSAL)
    for name in ("num_loops", "num_grad_loops", "last_logits"):
        refused(lambda name=name: model(TOKENS, **{name: value}), f"{name}={value!r}: expected ")
    refused(lambda: model(TOKENS, loop_logits=[value]), f"loop_logits={[value]!r}: expected last, all, or loop")
    refused(lambda: model.loop(TOKENS, num_loops=value), f"num_loops={value!r}: expected ")
    for name in ("num_loops", "cache_loops"):
        refused(lambda name=name: model.new_cache(2, 4, policy="first", **{name: value}), f"{name}={value!r}: expected")
    refused(lambda: model.new_cache(value, 4), f"batch={value!r}: expected ")
    refused(lambda: model.new_cache(2, value), f"length={value!r}: expected ")
    for name in ("max_new_tokens", "num_loops", "chunk", "vocab_size"):
        options = {"max_new_tokens": 1, name: value}
        refused(lambda options=options: generate(model, [TOKENS[0]], **options), f"{name}={value!r}: expected ")
    refused(lambda: Sampling(top_k=value), f"top_k={value!r}: expected ")
    refused(lambda: Fixed(loops=value), f"loops={value!r}: expected ")
    refused(lambda: Unchanged(loops=1, min_loops=value), f"min_loops={value!r}: expected ")


@pytest.mark.parametrize("value", [True, "0.1", float("nan"), float("inf"), -1.0, None, 1e39, 1e-50])
def test_thresholds_are_positive_numbers_of_float32(value):
    for rule in (StateChange, KLDivergence):
        refused(lambda rule=rule: rule(threshold=value), f"threshold={value!r}: expected a positive number")


@pytest.mark.parametrize(
    ("model", "inputs", "says"),
    [
        ("plain", TOKENS - 1, "inputs: from -1 to 9; expected 0 to 10"),
        ("plain", TOKENS + 1, "inputs: from 1 to 11; expected 0 to 10"),
        ("plain", TOKENS + 2**40, "expected 0 to 10"),
        ("plain", TOKENS.float(), "type float32; expected tokens (batch, seq) of type int64 or int32"),
        ("plain", TOKENS.bool(), "type bool; expected tokens"),
        ("plain", TOKENS[..., None], "inputs: have shape (2, 6, 1) and type int64; expected tokens"),
        ("plain", TOKENS[0], "inputs: have shape (6,) and type int64; expected (batch, seq, ...)"),
        (
            "hardmax",
            TOKENS[:, :0],
            "inputs: have shape (2, 0) and type int64; expected (batch, seq, ...) with at least 1",
        ),
        ("plain", [[1, 2]], "inputs: expected a tensor, not list"),
        ("vectors", VECTORS.double(), "type float64; expected vectors (batch, seq, 5) of type float32"),
        ("vectors", VECTORS.long(), "type int64; expected vectors (batch, seq, 5) of type float32"),
        (
            "vectors",
            VECTORS[..., :4],
            "inputs: have shape (2, 6, 4) and type float32; expected vectors (batch, seq, 5)",
        ),
        ("vectors", VECTORS[0], "inputs: have shape (6, 5) and type float32; expected vectors"),
    ],
)
def test_inputs_that_a_model_cannot_read(model, inputs, says):
    refused(lambda: LoopedTransformer(VARIANTS[model])(inputs), says)


def test_no_examples_give_no_answers():
    model = LoopedTransformer(CAUSAL)
    for rule in (None, StateChange(threshold=0.1), Unchanged(per="token")):
        assert model(TOKENS[:0], exit_rule=rule).logits.shape == (0, 6, 11)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"positions": TOKENS * 0 + 9}, "positions: from 9 to 9; expected 0 to 8"),
        ({"positions": TOKENS * 0 - 1}, "positions: from -1 to -1; expected 0 to 8"),
        ({"positions": TOKENS.float()}, "positions: expected whole numbers of shape (2, 6)"),
        ({"positions": TOKENS[:, :3]}, "positions: expected whole numbers of shape (2, 6)"),
        ({"initial_state": 3}, "initial_state: is int; expected (2, 6, 16)"),
        ({"attention_mask": [1]}, "attention_mask: expected a tensor, not list"),
        ({"exit_rule": "kl:0.1"}, "exit_rule='kl:0.1': expected an ExitRule; parse_rule reads one from text"),
        ({"exit_rule": Unchanged(), "exit_mask": torch.ones(2, 5)}, "exit_mask: has shape (2, 5); expected (2, 6)"),
        ({"recompute": "some"}, "recompute='some': expected none, loop or nested"),
        ({"loop_logits": []}, "loop_logits=[]: expected last, all, or loop numbers from 1 to 5"),
    ],
)
def test_other_arguments_of_a_pass(options, says):
    refused(lambda: LoopedTransformer(TINY)(TOKENS, **options), says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prompts": None}, "prompts: expected a list of tensors of integers, not NoneType"),
        ({"prompts": [[1, 2]]}, "prompts: expected a list of tensors of integers"),
        ({"prompts": [TOKENS[0].bool()]}, "prompts: expected a list of tensors of integers"),
        ({"prompts": [torch.tensor([-1, 3])]}, "prompt: token -1: expected 0 to 10"),
        ({"stop": None}, "stop=None: expected tokens"),
        ({"stop": "end"}, "stop='end': expected tokens"),
        ({"seed": 2.5}, "seed=2.5: expected a whole number"),
        ({"exit_rule": "kl:1"}, "exit_rule='kl:1': expected an ExitRule"),
        ({"cache_policy": "newest"}, "cache policy='newest': expected one of all, first, last, ring"),
        ({"output_weights": "int4"}, "output_weights='int4': expected exact or int8"),
    ],
)
def test_arguments_of_generation(options, says):
    settings = {"prompts": [TOKENS[0]], "max_new_tokens": 1, **options}
    refused(lambda: generate(LoopedTransformer(CAUSAL), settings.pop("prompts"), **settings), says)


@pytest.mark.parametrize("name", ["plain", "scale_gate", "additive"])
def test_loops_without_end_are_refused(name):
    refused(
        lambda: LoopedTransformer(VARIANTS[name])(TOKENS, num_loops=10**9), "num_loops=1000000000: expected at most"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loop_states": True}, "num_loops=1000: 1000 states and logits of 1: needs 0.8 GB"),
        ({"loop_logits": "all"}, "num_loops=1000: 1000 states and logits of 1000: needs 1.3 GB"),
        ({"num_loops": 3}, None),
    ],
)
def test_what_grows_with_the_loops_fits_into_memory(options, says, monkeypatch):
    monkeypatch.setattr(memory, "memory_of", lambda device: 10**7)
    model, tokens = LoopedTransformer(CAUSAL), torch.zeros(2000, 6, dtype=torch.long)
    with torch.no_grad():
        if says is None:
            assert model(tokens, **options).num_loops == 3
        else:
            refused(lambda: model(tokens, **{"num_loops": 1000} | options), says)
    refused(lambda: model(tokens, num_loops=1000), "1001 states")  # with gradient
    refused(lambda: model.new_cache(100, 9, num_loops=1000), "a cache of 1000 loops for 100 x 9 tokens: needs 0.1 GB")
    modulated = LoopedTransformer(VARIANTS["scale_gate"])
    refused(lambda: modulated(TOKENS, num_loops=100_000), "num_loops=100000: the modulation: needs 0.0 GB")


@pytest.mark.parametrize("size", ["vocab_size", "output_size", "max_seq_len", "d_model", "d_ff", "d_head"])
def test_a_model_that_no_machine_holds_is_refused_before_it_is_built(size):
    config = dataclasses.replace(TINY, **{size: 10**12})
    refused(lambda: LoopedTransformer(config), "GB; this machine has ")


@pytest.mark.parametrize("part", ["prelude_layers", "core_layers", "coda_layers"])
def test_more_layers_than_anybody_builds_are_refused_at_once(part):
    refused(lambda: dataclasses.replace(TINY, **{part: 10_001}), f"{part}=10001: expected at least 0, at most 10000")


def test_no_cache_with_gradient():
    """Whatever carries it: weights, inputs or the state; with every policy and rule."""
    rules = [None, "change:0.5", "change:0.5/token", "kl:0.1/token", "fixed:2/token"]
    frozen = build(dataclasses.replace(CAUSAL, coda_layers=1)).requires_grad_(False)
    one = TOKENS[:, :1]
    for rule, policy, grad in itertools.product(rules, ["all", "first", "last", "ring"], ["weights", "state", None]):
        frozen.head.requires_grad_(grad == "weights")
        cache = frozen.new_cache(2, 9, policy=policy, every_loop_logits=True)
        state = torch.zeros(2, 1, 16, dtype=torch.float64, requires_grad=grad == "state")
        options = {"cache": cache, "exit_rule": rule and parse_rule(rule), "initial_state": state}
        if grad:
            refused(lambda options=options: frozen(one, **options), "cache: carries no gradient; expected a call under")
        else:
            assert frozen(one, **options).logits.isfinite().all()
    vectors = LoopedTransformer(dataclasses.replace(VARIANTS["vectors"], causal=True)).requires_grad_(False)
    inputs = VECTORS[:, :1].clone().requires_grad_()
    refused(lambda: vectors(inputs, cache=vectors.new_cache(2, 4)), "cache: carries no gradient")
