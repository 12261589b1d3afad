"""The model against naive references: outputs and every gradient, in float64."""

import dataclasses
import itertools

import pytest
import torch
from model_cases import TINY, VARIANTS, build, gradients, inputs_for
from tolerance import assert_close

from looped.models import LoopedTransformer, StateChange
from looped.nn.protocols import Context

# In the order of the published code, with the two shifts of DiT at the end.
SCALES_AND_GATES = ["attention_scale", "feedforward_scale", "attention_gate", "feedforward_gate"]
NAMES = {
    "none": [],
    "additive": [],
    "scale_gate": SCALES_AND_GATES,
    "adaln_zero": [*SCALES_AND_GATES, "attention_shift", "feedforward_shift"],
    "table": SCALES_AND_GATES,
    "rezero": ["attention_gate", "feedforward_gate"],
}


def naive(model, inputs, attention_mask, num_loops, grad_loops=None):
    """The readout and all states, written out without the recurrence: loops as consecutive tied layers."""
    config = model.config
    seq = inputs.shape[1]
    x = model.embed(inputs) * config.embedding_scale
    if config.positions in ("learned", "sinusoidal") and not config.positions_every_loop:
        x = x + model.positions.table[:seq]
    x = model.embed_norm(x)
    mask = attention_mask[:, None, None, :]
    if config.causal:
        mask = mask & torch.ones(seq, seq).tril().bool()[None, None]
    for block in model.prelude:
        x = block(x, Context(mask))
    from_zero = config.input_injection != "none" and config.initial_state == "zero"
    embedded, state = x, torch.zeros_like(x) if from_zero else x
    vectors = None if model.modulation is None else model.modulation(num_loops, x.device)
    injection = model.injection.injection if config.positions_every_loop else model.injection
    states = []
    for t in range(num_loops):
        if grad_loops is not None and t == num_loops - grad_loops:
            state = state.detach()
        if config.input_injection == "add":
            state = state + embedded
        if config.input_injection == "concat":
            state = injection.linear(torch.cat([state, embedded], -1))
        if config.positions_every_loop:
            state = state + model.positions.table[:seq]
        if config.modulation == "additive":
            assert vectors is not None
            state = state + vectors[t, 0]
        for i, block in enumerate(model.core):
            names = NAMES[config.modulation]
            factors = {} if vectors is None else {n: vectors[t, i * len(names) + k] for k, n in enumerate(names)}
            state = block(state, Context(mask, modulation=factors))
        if config.loop_norm:
            state = model.norm(state)
        states.append(state)
    state = model.norm(state) if config.coda_norm else state
    for block in model.coda:
        state = block(state, Context(mask))
    return model.head(state if config.loop_norm else model.norm(state)), torch.stack(states)


@pytest.mark.parametrize("name", VARIANTS)
def test_loops_equal_tied_layers(name):
    config = VARIANTS[name]
    model, (inputs, attention_mask) = build(config), inputs_for(config)
    loops = config.num_loops + (config.modulation != "table")
    expected, states = naive(model, inputs, attention_mask, loops)
    assert all((a - b).norm() > 1e-2 for a, b in itertools.pairwise(states)), "the loops must do something"
    output = model(inputs, attention_mask=attention_mask, num_loops=loops, loop_states=True, loop_logits="all")
    assert_close(output.logits, expected)
    assert_close(output.loop_logits[-1], expected)
    assert_close(output.loop_states, states)
    wanted = gradients(model, expected.square().sum())
    assert min(g.abs().max() for g in wanted.values()) > 0
    actual = gradients(model, model(inputs, attention_mask=attention_mask, num_loops=loops).logits.square().sum())
    assert actual.keys() == wanted.keys()
    for key in wanted:
        assert_close(actual[key], wanted[key])


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("grad_loops", [1, 2])
def test_gradient_window_equals_explicit_detach(name, grad_loops):
    config = dataclasses.replace(VARIANTS[name], num_loops=5)
    model, (inputs, attention_mask) = build(config), inputs_for(config)
    expected = gradients(model, naive(model, inputs, attention_mask, 5, grad_loops)[0].square().sum())
    full = gradients(model, naive(model, inputs, attention_mask, 5)[0].square().sum())
    assert any((expected[k] - full[k]).abs().max() > 1e-6 for k in expected), "the window must matter"
    actual = gradients(
        model, model(inputs, attention_mask=attention_mask, num_grad_loops=grad_loops).logits.square().sum()
    )
    for key, gradient in actual.items():
        assert_close(gradient, expected[key])
    # Where the reference gives a zero gradient (the input before the window), ours may give none.
    assert all(expected[k].abs().max() == 0 for k in expected.keys() - actual.keys())


@pytest.mark.parametrize("name", ["plain", "scale_gate", "inject_concat", "prelude_coda"])
@pytest.mark.parametrize("recompute", ["loop", "nested"])
@pytest.mark.parametrize("window", [None, 4])
def test_recomputed_equals_plain(name, recompute, window):
    config = dataclasses.replace(VARIANTS[name], num_loops=7)
    model, (inputs, attention_mask) = build(config), inputs_for(config)

    def loss(mode):
        output = model(
            inputs, attention_mask=attention_mask, num_grad_loops=window, loop_logits=(4, 5, 7), recompute=mode
        )
        return output.loop_logits.square().sum()

    expected, actual = gradients(model, loss("none")), gradients(model, loss(recompute))
    assert expected.keys() == actual.keys()
    for key in expected:
        assert_close(actual[key], expected[key])


def test_gradient_window_under_autocast_trains_the_weights():
    # A weight cast without gradient before the window must not be reused inside it.
    config = dataclasses.replace(TINY, num_loops=4)
    model, (inputs, attention_mask) = LoopedTransformer(config), inputs_for(config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(inputs, attention_mask=attention_mask, num_grad_loops=2).logits.float().square().sum()
    found = gradients(model, loss)
    assert found["core.0.feedforward.up.weight"].abs().max() > 0
    assert found["core.0.attention.qkv.weight"].abs().max() > 0


@pytest.mark.parametrize("name", ["scale_gate", "adaln_zero", "table", "rezero"])
def test_published_initialisation_is_the_identity_until_a_step(name):
    config = dataclasses.replace(VARIANTS[name], gate_offset=0)
    model, (inputs, attention_mask) = LoopedTransformer(config), inputs_for(config)
    states = model(inputs, attention_mask=attention_mask, loop_states=True).loop_states
    embedded = model.embed(inputs) + model.positions.table[: inputs.shape[1]]
    assert embedded.abs().max() > 0
    assert all(torch.equal(state, embedded) for state in states)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(inputs, attention_mask=attention_mask).logits.square().sum().backward()
    optimizer.step()
    states = model(inputs, attention_mask=attention_mask, loop_states=True).loop_states
    assert all((a - b).norm() > 0 for a, b in itertools.pairwise(states))


def test_gate_offset_one_starts_as_the_plain_model():
    plain = LoopedTransformer(TINY, seed=3)
    gated = LoopedTransformer(dataclasses.replace(TINY, modulation="scale_gate", gate_offset=1), seed=3)
    gated.load_state_dict({**gated.state_dict(), **plain.state_dict()})
    inputs, attention_mask = inputs_for(TINY)
    assert torch.equal(
        plain(inputs, attention_mask=attention_mask).logits, gated(inputs, attention_mask=attention_mask).logits
    )


def test_weights_depend_on_the_seed_alone():
    before = torch.get_rng_state()
    a, b, c = (LoopedTransformer(TINY, seed=s) for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    for (name, x), y, z in zip(a.named_parameters(), b.parameters(), c.parameters(), strict=True):
        assert torch.equal(x, y)
        assert not torch.equal(x, z) or "norm" in name


def test_padding_does_not_reach_real_positions():
    model, (inputs, attention_mask) = build(TINY), inputs_for(TINY)
    changed = inputs.clone()
    changed[1, -1] = (changed[1, -1] + 1) % 11
    a, b = model(inputs, attention_mask=attention_mask).logits, model(changed, attention_mask=attention_mask).logits
    assert (a[1, -1] - b[1, -1]).abs().max() > 1e-3
    assert_close(a[attention_mask], b[attention_mask])


def test_causal_model_does_not_look_ahead():
    config = VARIANTS["causal"]
    model, (inputs, _) = build(config), inputs_for(config)
    changed = inputs.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    a, b = model(inputs).logits, model(changed).logits
    assert (a[:, 4:] - b[:, 4:]).abs().amax((0, 2)).min() > 1e-6
    assert_close(a[:, :4], b[:, :4])


def test_exit_freezes_finished_examples():
    config = dataclasses.replace(TINY, num_loops=8)
    model, (inputs, attention_mask) = build(config), inputs_for(config)
    states = model(inputs, attention_mask=attention_mask, loop_states=True).loop_states
    previous = torch.cat([(model.embed(inputs) + model.positions.table[:6])[None], states[:-1]])
    change = ((states - previous).norm(dim=3) / previous.norm(dim=3)).where(attention_mask, 0).amax(2)
    threshold = change[4].median().item() * 1.001
    first = [next((t + 1 for t in range(8) if change[t, i] <= threshold), 8) for i in range(3)]
    assert len(set(first)) > 1, "examples must leave at different loops"
    output = model(inputs, attention_mask=attention_mask, exit_rule=StateChange(threshold=threshold))
    assert output.loops_taken.tolist() == [[loops] * 6 for loops in first]
    assert output.num_loops == max(first)
    for i, loops in enumerate(first):
        assert_close(output.state[i], states[loops - 1, i])
    everyone = model(inputs, attention_mask=attention_mask, exit_rule=StateChange(threshold=1e9))
    assert everyone.num_loops == 1
    assert_close(everyone.state, states[0])
    assert everyone.loop_logits.shape[0] == 1


@pytest.mark.parametrize("name", ["scale_gate", "plain"])
def test_compiled_equals_eager_at_any_loop_count(name):
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        config = VARIANTS[name]
        model, (inputs, attention_mask) = build(config), inputs_for(config)
        expected = {n: model(inputs, attention_mask=attention_mask, num_loops=n) for n in (2, 5, 11)}
        gradient = gradients(model, expected[5].logits.square().sum())
        torch._dynamo.reset()
        model.compile_core()
        # The first loops may meet a new kind of input (no gradient yet), later ones must not.
        model(inputs, attention_mask=attention_mask, num_loops=3).logits.sum().backward()
        with torch._dynamo.config.patch(error_on_recompile=True):
            for n in (2, 5, 11):
                assert_close(model(inputs, attention_mask=attention_mask, num_loops=n).logits, expected[n].logits)
            compiled = gradients(model, model(inputs, attention_mask=attention_mask, num_loops=5).logits.square().sum())
        for key, value in gradient.items():
            assert_close(compiled[key], value)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        ({"num_loops": 0}, ["num_loops=0", "at least 1"]),
        ({"num_grad_loops": 6}, ["num_grad_loops=6", "1 to"]),
        ({"num_grad_loops": 0}, ["num_grad_loops=0"]),
        ({"loop_logits": (6,)}, ["loop_logits=(6,)"]),
        ({"loop_logits": ()}, ["loop_logits=()"]),
        ({"exit_rule": StateChange(threshold=0.1), "recompute": "loop"}, ["exit_rule", "recompute"]),
    ],
)
def test_bad_calls_are_named(call, names):
    with pytest.raises(ValueError, match="expected") as error:
        build(TINY)(inputs_for(TINY)[0], **call)
    assert all(name in str(error.value) for name in names)


def test_impossible_models_are_named():
    with pytest.raises(ValueError, match="vocab_size=None"):
        LoopedTransformer(dataclasses.replace(TINY, vocab_size=None))
    with pytest.raises(ValueError, match="sequence length 10"):
        build(TINY)(torch.zeros(1, 10, dtype=torch.long))
    with pytest.raises(ValueError, match="num_loops=10: expected at most 9, the max_loops"):
        build(VARIANTS["table"])(inputs_for(TINY)[0], num_loops=10)
    with pytest.raises(ValueError, match=r"threshold=0\.0"):
        StateChange(threshold=0.0)


def test_what_each_query_sees_can_be_told():
    """The same padding, once for all queries and once for each; and a graph in which information moves."""
    model = build(VARIANTS["plain"])
    inputs, attention_mask = inputs_for(VARIANTS["plain"])
    each = attention_mask[:, None, :].expand(-1, inputs.shape[1], -1)
    assert not torch.equal(model(inputs).logits, model(inputs, attention_mask=attention_mask).logits)
    assert_close(model(inputs, attention_mask=each).logits, model(inputs, attention_mask=attention_mask).logits)
    chain = torch.eye(6, dtype=torch.bool) | torch.eye(6, dtype=torch.bool).roll(-1, dims=0)
    other = inputs.clone()
    other[:, 0] = (other[:, 0] + 1) % 11
    seen = [
        (model(inputs, attention_mask=chain.expand(3, 6, 6), num_loops=n).state
         - model(other, attention_mask=chain.expand(3, 6, 6), num_loops=n).state).abs().sum(-1) > 0 for n in (1, 3)
    ]  # fmt: skip
    assert [int(s[0].sum()) for s in seen] != [6, 6]
    assert seen[1].sum() > seen[0].sum()
