"""Exit rules against naive references: the loops one by one, each sequence alone, and who is done read off by hand."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from model_cases import TINY, VARIANTS, build, gradients, inputs_for
from tolerance import assert_close

from looped.models import Act, Entropy, Fixed, Gate, KLDivergence, StateChange, Unchanged, parse_rule
from looped.models.exit_rules import EPSILON
from looped.nn.protocols import Context

pytestmark = pytest.mark.usefixtures("one_thread")

LOOPS = 7
MODELS = {
    name: dataclasses.replace(VARIANTS[name], num_loops=LOOPS)
    for name in ("plain", "prelude_coda", "inject_concat", "scale_gate_both", "swiglu", "vectors", "norm_after_gates")
}


def batch_for(config):
    """Six sequences with padding, and positions of which a rule looks only at some: at least one of each sequence."""
    inputs, attention_mask = inputs_for(config, batch=6)
    exit_mask = torch.rand(attention_mask.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    exit_mask[:, 1] = True
    return inputs, attention_mask, exit_mask


# What each rule measures at each position after loop t = len(logits), from the states (the first before any loop) and
# the loop_logits so far; a position is done where that is at most the threshold.


def change(states, logits):
    return (states[-1] - states[-2]).norm(dim=-1) / states[-2].norm(dim=-1)


def divergence(states, logits):
    if len(logits) == 1:
        return torch.full(logits[0].shape[:-1], torch.inf, dtype=torch.double)
    return F.kl_div(logits[-2].log_softmax(-1), logits[-1].log_softmax(-1), log_target=True, reduction="none").sum(-1)


def entropy(states, logits):
    return torch.distributions.Categorical(logits=logits[-1]).entropy()


def restlessness(states, logits):
    """Minus the loops for which the answer has stayed the same."""
    answers = torch.stack(logits).argmax(-1)
    same = (answers == answers[-1]).flip(0).cumprod(0).sum(0) - 1
    return -same.double()


RULES = {
    "change": (change, lambda value, **options: StateChange(threshold=value, **options)),
    "kl": (divergence, lambda value, **options: KLDivergence(threshold=value, **options)),
    "entropy": (entropy, lambda value, **options: Entropy(threshold=value, **options)),
    "unchanged": (restlessness, lambda value, **options: Unchanged(loops=round(-value), **options)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("min_loops", [1, 3])
@torch.no_grad()
def test_sequences_leave_when_all_watched_positions_are_done(name, kind, min_loops):
    measure, make = RULES[kind]
    model, (inputs, attention_mask, exit_mask) = build(MODELS[name]), batch_for(MODELS[name])
    full = model(inputs, attention_mask=attention_mask, loop_logits="all", loop_states=True)
    states, logits = [embedding_of(model, inputs, attention_mask), *full.loop_states], list(full.loop_logits)
    looked = exit_mask & attention_mask
    values = torch.stack([measure(states[: t + 1], logits[:t]) for t in range(1, LOOPS + 1)])
    worst = torch.where(looked, values, -torch.inf).amax(-1)

    def leaves(threshold):
        return [next((t for t in range(min_loops, LOOPS + 1) if w[t - 1] <= threshold), LOOPS) for w in worst.T]

    candidates = [-1.0, -2.0] if kind == "unchanged" else [1.0001 * w for w in worst.flatten().tolist()]
    threshold = max(candidates, key=lambda value: len(set(leaves(value))))
    expected = leaves(threshold)
    assert len(set(expected)) > 1, "sequences must leave at different loops"
    rule = make(threshold, min_loops=min_loops)

    seen = []
    hook = model.core[0].register_forward_hook(lambda block, args, output: seen.append(len(output)))
    output = model(inputs, attention_mask=attention_mask, exit_mask=exit_mask, exit_rule=rule, loop_states=True)
    hook.remove()
    assert output.loops_taken.tolist() == [[n] * 6 for n in expected]
    assert seen == [sum(n > t for n in expected) for t in range(max(expected))], "who has left is not computed"
    assert output.num_loops == max(expected)
    for i, n in enumerate(expected):
        assert_close(output.logits[i], full.loop_logits[n - 1, i])
        assert_close(output.state[i], full.loop_states[n - 1, i])
        for t in range(output.num_loops):
            assert_close(output.loop_states[t, i], full.loop_states[min(t, n - 1), i])


def embedding_of(model, inputs, attention_mask):
    """The state before the first loop."""
    config = model.config
    x = model.embed(inputs)
    if config.positions != "none" and not config.positions_every_loop:
        x = x + model.positions.table[: inputs.shape[1]]
    x = model.embed_norm(x)
    for block in model.prelude:
        x = block(x, Context(attention_mask[:, None, None, :]))
    return x if config.input_injection == "none" else torch.zeros_like(x)


def test_fixed_leaves_after_its_loops():
    model, (inputs, attention_mask, _) = build(MODELS["plain"]), batch_for(MODELS["plain"])
    output = model(inputs, attention_mask=attention_mask, exit_rule=Fixed(loops=3))
    assert (output.num_loops, set(output.loops_taken.flatten().tolist())) == (3, {3})
    assert_close(output.logits, model(inputs, attention_mask=attention_mask, num_loops=3).logits)
    assert model(inputs, exit_rule=Fixed(loops=3, min_loops=5)).num_loops == 5
    assert model(inputs, exit_rule=Fixed(loops=99)).num_loops == LOOPS


def tokens_by_hand(model, tokens, exit_mask, done, loops):
    """One sequence, token by token leaving: state, loops of each token, and all states as they stood.

    A token that has left keeps its state; the others see the keys and values of its last loop. When all watched tokens
    have left, the sequence does. `done(states, logits)` tells who is done now.
    """
    config, block, seq = model.config, model.core[0], len(tokens)
    mask = torch.ones(seq, seq).tril().bool() if config.causal else torch.ones(seq, seq).bool()
    state = model.embed(tokens) + model.positions.table[:seq]
    states, logits, keys, values = [state], [], None, None
    settled, ran = torch.zeros(seq, dtype=torch.bool), torch.zeros(seq, dtype=torch.long)
    for _ in range(loops):
        q, k, v = block.attention.qkv(block.attention_norm(state)).view(seq, 3, config.num_heads, -1).unbind(1)
        keys = k if keys is None else torch.where(settled[:, None, None], keys, k)
        values = v if values is None else torch.where(settled[:, None, None], values, v)
        scores = torch.einsum("qhd,khd->hqk", q, keys) / q.shape[-1] ** 0.5
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        new = state + block.attention.project(torch.einsum("hqk,khd->qhd", weights, values).flatten(1))
        new = new + block.feedforward(block.feedforward_norm(new)[None])[0]
        state = torch.where(settled[:, None], state, new)
        states.append(state)
        logits.append(model.head(model.norm(state)))
        ran += ~settled
        settled = settled | (done(states, logits) & exit_mask)
        if (settled | ~exit_mask).all():
            break
    return state, ran, states


@pytest.mark.parametrize("kind", RULES)
@torch.no_grad()
def test_tokens_that_left_stand_still_and_show_their_last_keys(kind):
    measure, make = RULES[kind]
    model = build(MODELS["plain"])
    inputs, attention_mask, exit_mask = batch_for(MODELS["plain"])
    plain = model(inputs, attention_mask=attention_mask, loop_logits="all", loop_states=True)
    states = [embedding_of(model, inputs, attention_mask), *plain.loop_states]
    values = torch.stack([measure(states[: t + 1], list(plain.loop_logits[:t])) for t in range(1, LOOPS + 1)])
    threshold = -1.0 if kind == "unchanged" else 1.0001 * values[1:4].median().item()
    output = model(inputs, attention_mask=attention_mask, exit_mask=exit_mask, exit_rule=make(threshold, per="token"))
    moved = 0.0
    for i in range(6):
        real = attention_mask[i]
        state, ran, _ = tokens_by_hand(
            model, inputs[i, real], exit_mask[i, real], lambda s, r: measure(s, r) <= threshold, LOOPS
        )
        assert torch.equal(output.loops_taken[i, real], ran)
        assert_close(output.state[i, real], state)
        assert_close(output.logits[i, real], model.head(model.norm(state)))
        then = plain.loop_states[ran - 1, i, real.nonzero()[:, 0]]
        moved = max(moved, (then - state).abs().max().item())
    assert len(output.loops_taken[attention_mask].unique()) > 2, "tokens must leave at different loops"
    assert moved > 1e-3, "that others stand still must matter to those that go on"


# --- Learned halting -------------------------------------------------------------------------------------


def halting_model(kind, causal=False, loops=LOOPS):
    model = build(dataclasses.replace(TINY, halting=kind, causal=causal, num_loops=loops))
    with torch.no_grad():  # probabilities around 1 / 4 that differ between states
        model.halt.bias.fill_(-1.0)
    return model


@torch.no_grad()
def test_gate_leaves_when_the_chance_of_having_left_is_reached():
    model = halting_model("gate")
    inputs, attention_mask, exit_mask = batch_for(TINY)
    full = model(inputs, attention_mask=attention_mask, loop_states=True, loop_logits="all")
    expected = []
    for i in range(6):
        stays, n = 1.0, 0
        while stays > 1 - 0.6 and n < LOOPS:
            real = model.norm(full.loop_states[n, i, attention_mask[i]])
            stays *= 1 - model.halt(real).sigmoid().mean().item()
            n += 1
        expected.append(n)
    assert len(set(expected)) > 1
    # Learned halting was trained on all real positions, whatever is watched.
    output = model(inputs, attention_mask=attention_mask, exit_mask=exit_mask, exit_rule=Gate(threshold=0.6))
    assert output.loops_taken[:, 0].tolist() == expected
    for i, n in enumerate(expected):
        assert_close(output.logits[i], full.loop_logits[n - 1, i])


def act_by_hand(halting, states):
    """Graves (2016), equations 5 to 13, with at most as many steps as states: the mean state, N, and N + R."""
    weights, total = [], 0.0
    for n, h in enumerate(halting, start=1):
        if total + h >= 1 - EPSILON or n == len(halting):
            weights.append(1 - total)
            break
        weights.append(h)
        total = total + h
    mean = torch.stack([w * s for w, s in zip(weights, states, strict=False)]).sum(0)
    return mean, len(weights), len(weights) + weights[-1]


def test_act_of_sequences_by_hand_with_every_gradient():
    model = halting_model("act")
    inputs, attention_mask, _ = batch_for(TINY)
    plain = build(dataclasses.replace(TINY, num_loops=LOOPS))  # runs all loops, with the weights of the other
    own: dict[str, torch.Tensor] = {
        name: weight for name, weight in model.named_parameters() if not name.startswith("halt.")
    }
    loss, expected = torch.zeros(()).double(), []
    for i in range(6):
        real = attention_mask[i]
        call = (inputs[i, real][None],), {"loop_states": True}
        state = torch.func.functional_call(plain, own, *call).loop_states[:, 0]
        chances = model.halt(model.norm(state))[..., 0].sigmoid().mean(-1)
        mean, n, ponder = act_by_hand(list(chances), list(state))
        loss = loss + model.head(model.norm(mean)).square().sum() + 0.3 * ponder * real.sum()
        expected.append((n, mean.detach(), ponder.item()))
    assert len({n for n, *_ in expected}) > 1
    assert max(n for n, *_ in expected) == LOOPS, "some must be stopped by the number of loops"
    wanted = gradients(model, loss)

    output = model(inputs, attention_mask=attention_mask)
    for i, (n, mean, ponder) in enumerate(expected):
        assert output.loops_taken[i].tolist() == [n] * 6
        assert_close(output.state[i, attention_mask[i]], mean)
        assert output.ponder_cost[i, 0].item() == pytest.approx(ponder)
    logits = output.logits.square().sum(-1)
    actual = gradients(model, (logits + 0.3 * output.ponder_cost)[attention_mask].sum())
    assert wanted["halt.weight"].abs().max() > 1e-3
    assert actual.keys() == wanted.keys()
    for key, gradient in wanted.items():
        assert_close(actual[key], gradient)


def test_act_of_tokens_by_hand_with_every_gradient_and_from_the_cache():
    model = halting_model("act", causal=True)
    tokens = inputs_for(TINY)[0][0]

    def chance(state):
        return model.halt(model.norm(state))[..., 0].sigmoid()

    def done(states, logits):
        return torch.stack([chance(s) for s in states[1:]]).sum(0) >= 1 - EPSILON

    everyone = torch.ones(6, dtype=torch.bool)
    _, ran, states = tokens_by_hand(model, tokens, everyone, done, LOOPS)
    assert len(ran.unique()) > 1
    means, ponder = [], []
    for i, n in enumerate(ran.tolist()):
        own = [s[i] for s in states[1 : n + 1]]
        mean, count, cost = act_by_hand([chance(s) for s in own], own)
        assert count == n
        means.append(mean)
        ponder.append(cost)
    expected = model.head(model.norm(torch.stack(means)))
    wanted = gradients(model, expected.square().sum() + 0.3 * torch.stack(ponder).sum())
    output = model(tokens[None])
    assert torch.equal(output.loops_taken[0], ran)
    assert_close(output.logits[0], expected)
    actual = gradients(model, output.logits.square().sum() + 0.3 * output.ponder_cost.sum())
    for key, gradient in wanted.items():
        assert_close(actual[key], gradient)
    with torch.no_grad():
        cache = model.new_cache(1, 6)
        cached = torch.cat([model(token[None, None], cache=cache).logits for token in tokens], dim=1)
    assert_close(cached[0], expected)


@torch.no_grad()
def test_act_after_each_loop_is_act_with_so_many_loops():
    model = halting_model("act")
    inputs, attention_mask, _ = batch_for(TINY)
    output = model(inputs, attention_mask=attention_mask, loop_logits="all")
    assert output.num_loops == len(output.loop_logits) > 3
    for n, logits in enumerate(output.loop_logits, start=1):
        assert_close(logits, model(inputs, attention_mask=attention_mask, num_loops=n).logits)


@pytest.mark.parametrize(
    ("config", "rule", "says"),
    [
        ({}, Gate(), "exit_rule=gate:0.5: expected a model with model.halting='gate'; this has 'none'"),
        ({"halting": "gate"}, Act(), "exit_rule=act: expected a model with model.halting='act'; this has 'gate'"),
        ({"halting": "act"}, Entropy(threshold=0.1), "exit_rule=entropy:0.1: expected act"),
        ({"halting": "act"}, Act(per="token"), "exit_rule=act/token: expected per='sequence'"),
        ({"halting": "gate", "causal": True}, Gate(), "exit_rule=gate:0.5: expected per='token'"),
        ({"output_size": 1}, Unchanged(), "exit_rule=unchanged:1: expected a rule that needs no classes"),
    ],
)
def test_rules_that_the_model_was_not_trained_for(config, rule, says):
    model = build(dataclasses.replace(TINY, **config))
    with pytest.raises(ValueError, match="expected") as error:
        model(inputs_for(TINY)[0], exit_rule=rule)
    assert says in str(error.value)


# --- Rules as text ---------------------------------------------------------------------------------------


@given(
    st.sampled_from(["fixed", "change", "kl", "entropy", "unchanged", "gate"]),
    st.integers(1, 99),
    st.floats(1e-37, 1, exclude_max=True),
    st.sampled_from(["", "/token"]),
    st.integers(1, 9),
)
def test_rules_as_text_and_back(name, whole, fraction, per, least):
    text = f"{name}:{whole if name in ('fixed', 'unchanged') else fraction}{per}{f'/min:{least}' if least > 1 else ''}"
    rule = parse_rule(text)
    assert str(rule) == text
    assert parse_rule(str(rule)) == rule


def test_rules_are_what_their_text_says():
    assert parse_rule("kl:0.01/token") == KLDivergence(threshold=0.01, per="token")
    assert parse_rule("unchanged/min:3") == Unchanged(loops=1, min_loops=3)
    assert parse_rule("act/token") == Act(per="token")
    assert str(Act()) == "act"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("entropie:1", "did you mean 'entropy'"),
        ("kl", "expected kl:THRESHOLD"),
        ("kl:much", "expected kl:THRESHOLD"),
        ("kl:0", "threshold=0.0: expected a positive number"),
        ("gate:1.5", "threshold=1.5: expected a probability"),
        ("fixed:0", "loops=0: expected at least 1"),
        ("change:-1", "threshold=-1.0: expected a positive number, finite in float32"),
        ("kl:1e-50", "threshold=1e-50: expected a positive number, finite in float32"),
        ("change:1e39", "threshold=1e+39: expected a positive number, finite in float32"),
        ("kl:nan", "expected kl:THRESHOLD"),
        ("entropy:inf", "expected entropy:THRESHOLD"),
        ("unchanged:1e9", "expected unchanged:LOOPS"),
        ("unchanged:1_0", "expected unchanged:LOOPS"),
        ("unchanged:\u0663", "expected unchanged:LOOPS"),  # a digit, but not of ASCII
        ("kl:0.\uff11", "expected kl:THRESHOLD"),
        ("kl: 0.1", "expected kl:THRESHOLD"),
        ("fixed:" + "9" * 5000, "expected fixed:LOOPS"),
        ("kl:0.1/threshold:5", "expected kl:THRESHOLD"),
        ("kl:0.1/min:2/min:3", "expected each option once"),
        ("unchanged:1.5", "expected unchanged:LOOPS"),
        ("act:3", "expected act"),
        ("act/min:2", "min_loops=2: expected 1 with act"),
        ("kl:1/tokens", "expected kl:THRESHOLD"),
        ("kl:1/min:0", "min_loops=0: expected at least 1"),
        ("", "expected one of fixed, change"),
    ],
)
def test_texts_that_are_no_rule(text, says):
    with pytest.raises(ValueError, match="exit rule") as error:
        parse_rule(text)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
